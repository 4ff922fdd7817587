"""No test of this room sees the caches, tokens or acceptances of the person who runs it, or goes online."""

import pytest

FOLDERS = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME", "TORCH_HOME")
SETTINGS = ("OPENDINO_WEIGHTS", "OPENDINO_ACCEPT_LICENCE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE")


@pytest.fixture
def _callers_home():
    """For the golden values alone: they need the weights that the person has."""


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
