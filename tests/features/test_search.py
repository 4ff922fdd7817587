"""Search: the answer of a full sort, in any block size; refused questions; sheet, table, and the page of a folder."""

import json

import numpy as np
import pytest
from PIL import Image

from opendino.cli.embed import embed
from opendino.cli.search import run, search
from opendino.cli.try_ import try_
from opendino.data.images import Reading
from opendino.errors import DataError, UsageError, WeightsError
from opendino.features.search import find_neighbours
from opendino.features.store import open_store
from tests.features.child import draw_pictures, save_vit

pytest.importorskip("lance", reason="pylance is not installed: stores not tried")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    draw_pictures(folder / "pictures", 30)
    model = save_vit(folder / "model")
    embed(folder / "pictures", model, folder / "store", dtype="fp32")
    return folder


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("column", ["cls", "mean"])
def test_neighbours_are_those_of_a_full_sort(given, rows, column):
    store = open_store(given / "store")
    matrix = store.matrix(column).astype(np.float64)
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    for place, name in list(enumerate(store.ids()))[::9]:
        cosine = unit @ unit[place]
        order = [row for row in np.argsort(-cosine, kind="stable") if row != place][:5]
        found = find_neighbours(store, store.matrix(column)[place], 5, column=column, without=(name,), rows=rows)
        assert [one.id for one in found] == [store.ids()[row] for row in order]
        np.testing.assert_allclose([one.cosine for one in found], cosine[order], rtol=1e-5)


def test_more_than_there_are_gives_all_and_no_made_up_row(given):
    """cases.md C34."""
    store = open_store(given / "store")
    found = find_neighbours(store, store.matrix()[0], 50)
    assert len(found) == 30 and {one.id for one in found} == set(store.ids())


def test_a_picture_from_outside_goes_through_the_stores_own_model(given, tmp_path):
    answer = search(given / "store", image=given / "pictures" / "a" / "004.png", k=3, out=tmp_path / "s.png")
    assert answer.found[0].id == "a/004.png" and answer.found[0].cosine > 0.99999
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert answer.usual is not None and answer.usual.p5 <= answer.usual.p50 <= answer.usual.p99 <= 1


def test_senseless_questions_are_refused(given, tmp_path):
    other = save_vit(tmp_path / "other", seed=3)
    picture = given / "pictures" / "a" / "004.png"
    for options, words in (
        ({}, "one of --image and --id"),
        ({"image": picture, "id": "a/004.png"}, "one of --image and --id"),
        ({"id": "nothing"}, "not in"),
        ({"id": "a/004.png", "k": 0}, "at least 1"),
        ({"id": "a/004.png", "vector": "pooler"}, "cls, mean"),
        ({"image": picture, "model": other}, "holds features of model"),
    ):
        with pytest.raises(UsageError, match=words):
            search(given / "store", **options)


def test_a_model_that_moved_is_named_again_and_compared_by_its_hash(given, tmp_path):
    model, picture = save_vit(tmp_path / "model", seed=7), given / "pictures" / "a" / "004.png"
    embed(given / "pictures", model, tmp_path / "s", dtype="fp32")
    model.rename(tmp_path / "moved")
    with pytest.raises(WeightsError, match=rf"{model}\) cannot be opened .*no such file.*where it is now with --model"):
        search(tmp_path / "s", image=picture)
    assert search(tmp_path / "s", id="a/004.png", k=2).found
    assert search(tmp_path / "s", image=picture, model=tmp_path / "moved", k=1).found[0].id == "a/004.png"
    save_vit(model, seed=8)
    with pytest.raises(UsageError, match=r"was replaced there by another one .*former"):
        search(tmp_path / "s", image=picture)
    with pytest.raises(UsageError, match="holds features of model vit "):
        search(tmp_path / "s", image=picture, model=given / "model")


def test_sheets_of_other_questions_and_files_of_the_user_stay(given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = [str(given / "store"), "--id", "a/004.png"]

    def sheet(*more):
        assert run([*line, *more, "--json"]) == 0
        return json.loads(capsys.readouterr().out)["sheet"]

    assert sheet() == sheet() == "search-004.png"
    assert sheet("-k", "3") == sheet("-k", "3") == "search-004-2.png"
    (tmp_path / "mine.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="not drawn by opendino"):
        run([*line, "--out", "mine.png"])
    assert (tmp_path / "mine.png").read_bytes() == b"mine"


def test_a_question_may_be_read_otherwise_than_the_store(given, tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed: bands not tried")
    pixels = np.asarray(Image.open(given / "pictures" / "a" / "004.png"))
    five, bands = np.concatenate([pixels[..., ::-1], pixels[..., :2]], 2), tmp_path / "bands.tif"
    tifffile.imwrite(bands, five, photometric="minisblack", planarconfig="contig")
    line = [str(given / "store"), "--image", str(bands), "--out", str(tmp_path / "x.png"), "-k", "1"]
    with pytest.raises(DataError, match="bands"):
        run(line)
    assert run([*line, "--bands", "2", "1", "0"]) == 0
    answer = search(given / "store", image=bands, reading=Reading(bands=(2, 1, 0)), k=1).found[0]
    assert answer.id == "a/004.png" and answer.cosine > 0.999999


def test_the_command_prints_a_table_and_json(given, tmp_path, capsys):
    line = [str(given / "store"), "--id", "a/004.png", "-k", "4", "--out", str(tmp_path / "s.png")]
    assert run(line) == 0
    said = capsys.readouterr().out
    assert "cosine" in said and "random pairs" in said and "next: opendino search" in said
    assert run([*line, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["found"]) == 4 and told["found"][0]["id"] in said and "a/004.png" not in str(told["found"])


def test_a_file_that_is_gone_leaves_a_grey_cell_not_an_error(given, tmp_path):
    draw_pictures(tmp_path / "p", 4)
    embed(tmp_path / "p", given / "model", tmp_path / "s", dtype="fp32")
    (tmp_path / "p" / "a" / "000.png").unlink()
    answer = search(tmp_path / "s", id="b/001.png", k=3, out=tmp_path / "s.png")
    assert len(answer.found) == 3 and (tmp_path / "s.png").exists()


def test_try_writes_one_page_about_a_folder(given, tmp_path):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: the map not tried")
    tried = try_(given / "pictures", given / "model", tmp_path / "t", limit=20)
    assert tried.pictures == 20 and len(open_store(tried.store)) == 20
    page = tried.page.read_text()
    assert "10 more pictures" in page and page.count('"data:image/jpeg;base64,') == 20


def test_another_model_or_folder_does_not_mix_with_the_page_of_the_first(given, tmp_path):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: the map not tried")
    page = try_(given / "pictures", given / "model", tmp_path / "t", limit=12).page
    before = page.read_bytes()
    other = save_vit(tmp_path / "other", seed=3)
    draw_pictures(tmp_path / "pictures", 12)
    for pictures, model, options, words in (
        (given / "pictures", other, {}, r"other inputs \(model vit \(\w+\) instead of vit \(\w+\)\)"),
        (given / "pictures", given / "model", {"size": 64}, "other inputs .transform"),
        (tmp_path / "pictures", given / "model", {}, "other inputs .pictures"),
    ):
        with pytest.raises(UsageError, match=f"{words}.*; choose another --out"):
            try_(pictures, model, tmp_path / "t", limit=12, **options)
    assert page.read_bytes() == before and len(open_store(tmp_path / "t" / "features.store")) == 12
    assert try_(given / "pictures", given / "model", tmp_path / "t", limit=20).pictures == 20
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"a\.txt"):
        try_(given / "pictures", given / "model", tmp_path / "notes", limit=12)
