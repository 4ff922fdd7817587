"""Hugging Face: its cache, its token, and downloads, the one place that goes online; its failures are of two kinds."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from opendino.errors import WeightsError

# What a model folder needs; nothing else is fetched, above all no code.
FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "preprocessor_config.json")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


class Unreachable(Exception):
    """Nothing can be fetched; the message says why: no network, offline by choice, a failing site, no library."""


class Refused(Exception):
    """The site answers and does not let this account in; the message says why."""


def cache_home() -> Path:
    """The folder of all caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def hub_cache() -> Path:
    """Hugging Face's cache folder, by its own rules; it is read without its library."""
    return Path(os.environ.get("HF_HUB_CACHE") or _home() / "hub")


def _home() -> Path:
    return Path(os.environ.get("HF_HOME") or cache_home() / "huggingface")


def has_token() -> bool:
    """Whether a Hugging Face token is set, by the rules of its library; the token itself is not looked at."""
    if any(os.environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")):
        return True
    return Path(os.environ.get("HF_TOKEN_PATH") or _home() / "token").is_file()


def download(repository: str) -> Path:
    """Fetch the weights and configs of a repository into Hugging Face's cache; the folder that holds them.

    Raises Refused, Unreachable, or WeightsError when the disk does not take it.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
    except ImportError:
        raise Unreachable("huggingface_hub is not installed (pip install 'opendino[hub]')") from None
    try:
        return Path(snapshot_download(repository, allow_patterns=list(FILES)))
    except (GatedRepoError, RepositoryNotFoundError, HfHubHTTPError) as error:
        status = getattr(error.response, "status_code", None)
        if status == 401:
            raise Refused("its token is not valid, or has expired") from None
        if isinstance(error, GatedRepoError) or status == 403:
            raise Refused("it has not been let in yet") from None
        if isinstance(error, RepositoryNotFoundError):
            raise Refused("there is no such repository for it") from None
        raise Unreachable(f"Hugging Face answers with status {status}") from None
    except Exception as error:  # the library's own and its transport's, which differ between versions
        if isinstance(error, OSError) and error.errno in _DISK:
            raise WeightsError(repository, f"cannot be kept ({error.strerror})", "HF_HOME names another disk") from None
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        raise Unreachable("HF_HUB_OFFLINE is set" if offline else "no network") from None
