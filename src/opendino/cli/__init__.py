"""The command line: one table of verbs, one small file a verb. Only the chosen verb's module is imported.

A verb's file has a public function of the verb's name, which wires the rooms, and `run(argv) -> exit code`, which
parses and prints. To add one: the file, and its line in `VERBS`.
"""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from opendino import __version__
from opendino.cli.shortage import shortage
from opendino.errors import OpendinoError, UsageError

VERBS = {
    "demo": "see it learn on real photographs in under 3 minutes, no data needed",
    "check": "what is in a folder of pictures, broken or twice, and what to do about it",
    "pretrain": "learn from a folder of pictures without labels",
    "adapt": "go on from trained weights on your pictures, and keep what they knew",
    "advise": "take a model as it is, adapt it, or train anew? by short runs, measured",
    "distill": "teach small models what a large one knows",
    "show": "PCA, similarity and attention pictures of a model",
    "evaluate": "score frozen backbones by the protocols of the paper",
    "compare": "results of several evaluations side by side",
    "track": "follow painted objects through a video",
    "embed": "features of every picture of a folder, kept in a store",
    "search": "the most alike pictures of a store",
    "try": "one page about a folder of pictures, without training",
    "models": "list the model family",
    "weights": "say what a weights file is; convert it",
    "doctor": "say what this machine has and how fast it is",
}

# Verbs that Python keeps for itself.
_MODULES = {"try": "try_"}


EXTRAS = {
    **dict.fromkeys(("lance", "pyarrow"), "store"),
    **dict.fromkeys(("sklearn", "scipy", "faster_coco_eval"), "eval"),
    **dict.fromkeys(("tifffile", "imagecodecs", "pydicom", "nibabel"), "sci"),
    "av": "video",
    "huggingface_hub": "hub",
    "skimage": "demo",
    "peft": "adapt",
    "timm": "timm",
}
"""Which extra brings a library that may be missing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `opendino ARGV` and return its exit code; every expected failure is one line on standard error."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return _dispatch(arguments)
    except OpendinoError as error:
        if debug:
            traceback.print_exc()
        print(f"opendino: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("opendino: stopped", file=sys.stderr)
        return 75
    except BrokenPipeError:
        # The reader of our output (head, less) went away: not a failure, and no trace at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"opendino: {_in_words(error, arguments[0])}", file=sys.stderr)
        return 1


def _in_words(error: Exception, verb: str) -> str:
    """One line for what no command expected: the machine's fault where it is, else a bug with the way to its trace."""
    if lacking := shortage(error, verb):
        return lacking
    if isinstance(error, OSError):  # a full disk, a folder that may not be written
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRAS.get(str(error.name).partition(".")[0], "all")
        return f"{error.name} is not installed; pip install 'opendino[{extra}]'"
    return f"{type(error).__name__}: {error}; a bug: run again with --debug and report it"


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _print_help()
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"opendino {__version__}")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        fix = f"did you mean {near[0]}?" if near else f"commands: {', '.join(VERBS)}"
        raise UsageError(verb, "no such command", fix)
    result: int = import_module(f"opendino.cli.{_MODULES.get(verb, verb)}").run(rest)
    return result


def _print_help() -> None:
    print("opendino: self-supervised learning on your own pictures\n\nusage: opendino COMMAND ... [--help]\n")
    for verb, words in VERBS.items():
        print(f"  {verb:<10} {words}")
    print("\nfirst:  opendino demo\nthen:   opendino pretrain PICTURES/")
