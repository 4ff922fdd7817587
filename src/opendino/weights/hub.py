"""Downloads from Hugging Face: the one place that goes online, with its failures in two kinds."""

from __future__ import annotations

import os
from pathlib import Path

from opendino.errors import WeightsError

# What a model folder needs; nothing else is fetched, above all no code.
FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "preprocessor_config.json")


class Unreachable(Exception):
    """No network, or the site does not answer."""


class Refused(Exception):
    """The site answers and does not let this account in."""


def has_token() -> bool:
    """Whether a Hugging Face token is set, by the rules of its library; the token itself is not looked at."""
    home = Path(
        os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    )
    if any(os.environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")):
        return True
    return Path(os.environ.get("HF_TOKEN_PATH") or home / "token").is_file()


def download(repository: str) -> Path:
    """Fetch the weights and configs of a repository into Hugging Face's cache; the folder that holds them.

    Raises Refused, Unreachable, or WeightsError naming the extra when the library is not installed.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
    except ImportError:
        raise WeightsError(repository, "needs huggingface_hub to download", "pip install 'opendino[hub]'") from None
    try:
        return Path(snapshot_download(repository, allow_patterns=list(FILES)))
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise Refused(type(error).__name__) from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise Refused(f"status {status}") from None
        raise Unreachable(str(error)) from None
    except Exception as error:  # the library's own and its transport's, which differ between versions
        raise Unreachable(f"{type(error).__name__}: {error}") from None
