"""No test of this room sees the caches, tokens or acceptances of the person who runs it, or goes online."""

import pytest

from opendino.weights.apart import convert

FOLDERS = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME", "TORCH_HOME")
SETTINGS = ("OPENDINO_WEIGHTS", "OPENDINO_ACCEPT_LICENCE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE")


@pytest.fixture
def _callers_home():
    """For the golden values alone: they need the weights that the person has."""


@pytest.fixture
def _apart():
    """For the tests of the child process itself."""


@pytest.fixture(autouse=True)
def _read_here(request, monkeypatch):
    """Pickles are read by the code that the child runs, without the seconds that a child needs to start."""

    def convert_here(path, folder):
        convert(path, folder / "tensors.safetensors")
        return folder / "tensors.safetensors"

    if "_apart" not in request.fixturenames:
        monkeypatch.setattr("opendino.weights.read.read_apart", convert_here)


@pytest.fixture(autouse=True)
def _own_home(request, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if "_callers_home" in request.fixturenames:
        return
    home = tmp_path_factory.mktemp("home")
    for name in FOLDERS:
        monkeypatch.setenv(name, str(home / name.lower()))
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
