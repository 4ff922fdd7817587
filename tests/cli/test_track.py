"""`opendino track`: a painted square followed through frames and a film, lost and found again, corrected, refused."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from opendino.cli.track import Gap, run, track
from opendino.data.transform import Transform
from opendino.errors import DataError, UsageError
from opendino.models.family import build_model
from opendino.weights import write_model

SIDE, COUNT = 96, 8
HIDDEN = (4, 5)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    made = build_model("conv_mini")
    write_model(folder, made, Transform(size=SIDE, patch=made.patch), {"name": "x", "licence": "x", "source": "x"})
    return folder


def draw(index, hidden=()):
    """A striped square that moves right 4 px a frame over dark noise; where it is."""
    generator = np.random.default_rng(index)
    array = generator.integers(0, 40, (SIDE, SIDE, 3), np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    if index not in hidden:
        left = 8 + 4 * index
        mask[32:64, left : left + 32] = 255
        array[mask > 0] = (240, 200, 30)
    return array, mask


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    root = tmp_path_factory.mktemp("video")
    for index in range(COUNT):
        array, mask = draw(index, HIDDEN)
        for part, picture in (("frames", array), ("truth", mask)):
            (root / part).mkdir(exist_ok=True)
            Image.fromarray(picture).save(root / part / f"{index:05d}.png")
    return root


def overlap(found, truth):
    one, other = np.array(Image.open(found)) > 0, np.array(Image.open(truth)) > 0
    return (one & other).sum() / max(1, (one | other).sum())


def follow(video, model, out, **options):
    return track(video / "frames", video / "truth" / "00000.png", model, out=out, rows=12, quiet=True, **options)


def test_an_object_is_followed_lost_and_found_again(video, model, tmp_path):
    done = follow(video, model, tmp_path / "out")
    assert done.frames == COUNT
    for index in (0, 1, 2, 3, 6, 7):
        assert overlap(done.masks / f"{index:05d}.png", video / "truth" / f"{index:05d}.png") > 0.6, index
    assert done.gaps == (Gap(1, *HIDDEN),)
    rows = list(csv.DictReader(done.table.read_text().splitlines()))
    assert [row["state"] for row in rows] == ["painted"] + ["seen"] * 3 + ["lost"] * 2 + ["seen"] * 2
    assert all(float(row["confidence"]) < 0.5 for row in rows[4:6])


def test_a_film_gives_what_its_frames_give(video, model, tmp_path):
    av = pytest.importorskip("av")
    film = tmp_path / "film.avi"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "bgr0"
        for index in range(COUNT):
            for packet in stream.encode(av.VideoFrame.from_ndarray(draw(index, HIDDEN)[0], format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    by_frames = follow(video, model, tmp_path / "a")
    by_film = track(film, video / "truth" / "00000.png", model, out=tmp_path / "b", rows=12, quiet=True)
    for index in range(COUNT):
        one, other = (np.array(Image.open(done.masks / f"{index:05d}.png")) for done in (by_frames, by_film))
        assert (one == other).mean() > 0.99
    with av.open(str(by_film.overlay)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(pictures) == COUNT and pictures[0].shape == (SIDE, SIDE, 3)
    inside, outside = pictures[0][48, 24].astype(int), pictures[0][10, 80].astype(int)
    assert inside.sum() > outside.sum() + 200


def test_without_an_encoder_the_overlay_is_pictures(video, model, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    done = follow(video, model, tmp_path / "out")
    assert done.overlay.is_dir() and len(list(done.overlay.glob("*.jpg"))) == COUNT


def test_a_second_painted_frame_brings_back_what_changed_its_looks(video, model, tmp_path):
    (tmp_path / "frames").mkdir()
    for index in range(COUNT):
        array, mask = draw(index)
        if index >= 3:
            array[mask > 0] = (20, 40, 250)
        Image.fromarray(array).save(tmp_path / "frames" / f"{index}.png")
        Image.fromarray(mask).save(tmp_path / f"mask{index}.png")

    def last(name, corrections):
        done = track(
            tmp_path / "frames",
            tmp_path / "mask0.png",
            model,
            corrections=corrections,
            out=tmp_path / name,
            rows=12,
            quiet=True,
        )
        return overlap(done.masks / "00007.png", tmp_path / "mask7.png"), done.gaps

    before, lost = last("before", {})
    after, none = last("after", {3: tmp_path / "mask3.png"})
    assert before < 0.3 and lost[-1].last == 7
    assert after > 0.6 and not none


def test_two_objects_keep_their_numbers(model, tmp_path):
    for index in range(3):
        array, mask = draw(index)
        array[70:94, 60:90] = (30, 60, 240)
        mask[mask > 0] = 1
        mask[70:94, 60:90] = 2
        (tmp_path / "frames").mkdir(exist_ok=True)
        Image.fromarray(array).save(tmp_path / "frames" / f"{index}.png")
        Image.fromarray(mask).save(tmp_path / f"mask{index}.png")
    done = track(tmp_path / "frames", tmp_path / "mask0.png", model, out=tmp_path / "out", rows=12, quiet=True)
    last, truth = np.array(Image.open(done.masks / "00002.png")), np.array(Image.open(tmp_path / "mask2.png"))
    for number in (1, 2):
        assert ((last == number) & (truth == number)).sum() / ((last == number) | (truth == number)).sum() > 0.6


def test_the_command_says_what_it_lost_and_what_to_do(video, model, tmp_path, capsys):
    argv = [str(video / "frames"), "--mask", str(video / "truth" / "00000.png"), "--model", str(model), "--rows", "12"]
    assert run([*argv, "--out", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert "object 1 lost in frames 4 to 5" in said and "--correct 4=MASK.png" in said
    assert run([*argv, "--out", str(tmp_path / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gaps"] == [{"object": 1, "first": 4, "last": 5}]


def test_files_of_the_user_are_neither_removed_nor_overwritten(video, model, tmp_path):
    """`--out` among painted masks once deleted them: only what the record lists may go."""
    (tmp_path / "masks").mkdir()
    painted = tmp_path / "masks" / "00000.png"
    painted.write_bytes((video / "truth" / "00000.png").read_bytes())
    before = painted.read_bytes()
    with pytest.raises(UsageError, match=r"no opendino command wrote there.*choose another --out"):
        track(video / "frames", painted, model, out=tmp_path, rows=12, quiet=True)
    assert painted.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["masks"]
    done = follow(video, model, tmp_path / "out")
    (done.masks / "00099.png").write_bytes(before)
    (done.masks / "notes 1.txt").write_text("mine")
    with pytest.raises(UsageError, match="would be written anew"):
        follow(video, model, tmp_path / "out", corrections={4: done.masks / "00004.png"})
    follow(video, model, tmp_path / "out", corrections={4: video / "truth" / "00003.png"})
    assert (done.masks / "00099.png").read_bytes() == before and (done.masks / "notes 1.txt").exists()


def test_the_same_command_replaces_its_output_and_another_one_is_refused(video, model, tmp_path):
    done = follow(video, model, tmp_path / "out")
    before = done.table.read_text()
    with pytest.raises(UsageError, match=r"other inputs .rows 12 instead of 6"):
        track(video / "frames", video / "truth" / "00000.png", model, out=tmp_path / "out", rows=6, quiet=True)
    with pytest.raises(UsageError, match="has 8 frames"):
        follow(video, model, tmp_path / "out", corrections={99: video / "truth" / "00000.png"})
    assert done.table.read_text() == before and len(list(done.masks.iterdir())) == COUNT
    (video / "frames" / "00007.png").rename(video / "seven.png")
    try:
        assert follow(video, model, tmp_path / "out").frames == COUNT - 1
    finally:
        (video / "seven.png").rename(video / "frames" / "00007.png")
    assert len(list(done.masks.iterdir())) == COUNT - 1, "the mask of a frame that is gone goes too"


def test_what_does_not_fit_is_one_line(video, model, tmp_path):
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(tmp_path / "empty.png")
    Image.fromarray(np.full((10, 10), 1, np.uint8)).save(tmp_path / "small.png")
    (tmp_path / "nothing").mkdir()
    for options, words in (
        ({"mask": tmp_path / "empty.png"}, "no painted object"),
        ({"mask": tmp_path / "small.png"}, "10 x 10 px, its frame 96 x 96"),
        ({"corrections": {99: video / "truth" / "00000.png"}}, "has 8 frames"),
        ({"corrections": {0: video / "truth" / "00000.png"}}, "no later than frame 0, which --mask paints"),
        ({"start": -1}, "must be 0 or more"),
        ({"video": tmp_path / "nothing"}, "no picture"),
        ({"video": video / "frames" / "00000.png"}, "not a video"),
    ):
        given = {"video": video / "frames", "mask": video / "truth" / "00000.png", **options}
        with pytest.raises((UsageError, DataError), match=words):
            track(given.pop("video"), given.pop("mask"), model, out=tmp_path / words, rows=12, quiet=True, **given)
    with pytest.raises(UsageError, match="must be FRAME=MASK"):
        run([str(video / "frames"), "--mask", "m.png", "--model", str(model), "--correct", "first"])
