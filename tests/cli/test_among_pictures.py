"""Commands that are started inside the folder of pictures do not take their own output for pictures."""

import shutil

import pytest

from opendino.cli import main
from opendino.data.listing import OUTPUT
from opendino.data.sources import open_source
from tests.features.child import draw_pictures, save_vit

pytest.importorskip("lance", reason="pylance is not installed: stores not tried")


@pytest.mark.parametrize(
    "commands",
    [
        (["embed", ".", "--out", "s", "--model", "MODEL"], ["search", "s", "--id", "a/000.png"]),
        (["try", ".", "--model", "MODEL"],),
        (["show", "pca", "a/000.png", "--model", "MODEL"],),
        (["check", ".", "--out", "../c"],),
    ],
    ids=lambda commands: commands[0][0],
)
def test_output_among_the_pictures_is_left_out_and_counted(commands, tmp_path, monkeypatch):
    draw_pictures(tmp_path / "p", 12)
    monkeypatch.chdir(tmp_path / "p")
    model = save_vit(tmp_path / "model")
    before = open_source(tmp_path / "p")
    for command in commands:
        assert main([str(model) if word == "MODEL" else word for word in command]) == 0
    if (tmp_path / "c").exists():  # it refuses to write here, but may come here by another way
        (tmp_path / "c").rename(tmp_path / "p" / "c")
    after = open_source(tmp_path / "p")
    assert len(after) == len(before) == 12 and after.fingerprint == before.fingerprint
    assert set(after.skip_counts) == {OUTPUT} and after.skip_counts[OUTPUT] == len(commands)


def test_pictures_of_the_user_with_names_of_ours_stay(tmp_path):
    first, *_ = draw_pictures(tmp_path / "p", 2)
    shutil.copy(first, tmp_path / "p" / "search-me.png")
    (tmp_path / "p" / "runs").mkdir()
    shutil.copy(first, tmp_path / "p" / "runs" / "b.png")
    assert len(open_source(tmp_path / "p")) == 4
    (tmp_path / "p" / "runs" / "run.lock").touch()  # that of a training run
    assert len(open_source(tmp_path / "p")) == 3
    # What is asked for by its own name is read, whatever it is.
    (tmp_path / "p" / "a" / "made-from.jsonl").write_text("{}")
    assert len(open_source(tmp_path / "p")) == 2 and len(open_source(tmp_path / "p" / "a")) == 1
