"""No test of this room sees the caches, tokens or acceptances of the person who runs it, or goes online."""

import pytest


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("home")
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))
    for name in ("OPENDINO_WEIGHTS", "OPENDINO_ACCEPT_LICENCE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
