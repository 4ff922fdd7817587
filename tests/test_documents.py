"""What the documents tell people to type and to open exists."""

import re
from pathlib import Path

import pytest

from opendino.cli import VERBS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_files_exist(path):
    text = path.read_text()
    for verb in re.findall(r"^\s{4}opendino (\w+)", text, re.MULTILINE):
        assert verb in VERBS, f"{path.name} names the command {verb}"
    for target in re.findall(r"\]\(([\w./-]+\.(?:md|png))\)", text):
        assert (path.parent / target).exists(), f"{path.name} points to {target}"
    for target in re.findall(r"`((?:src|tests|benchmarks|docs)/[\w./-]*\w)`", text):
        assert (ROOT / target).exists(), f"{path.name} names {target}"


def test_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^\s{4}make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)) <= targets
    assert targets >= {"demo", "test", "lint", "bench", "docs"}


def test_no_machine_paths_or_registry_hosts_in_tracked_text():
    words = ["/" + "work/", "/" + "root/", "index" + "-url"]
    for path in [*DOCUMENTS, ROOT / "Makefile", ROOT / "pyproject.toml", *(ROOT / "src").rglob("*.py")]:
        assert not any(word in path.read_text() for word in words), path
