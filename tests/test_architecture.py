"""The house: a room imports only rooms above it, and never a sibling's private names."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "opendino"
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "losses": {"errors"},
    "models": {"errors"},
    "parallel": {"errors"},
    "data": {"errors", "files"},
    "weights": {"errors", "files", "models", "data"},
    "monitor": {"errors", "files"},
    "train": {"errors", "files", "losses", "models", "parallel", "data", "weights", "monitor"},
    "recipes": {"errors", "files", "losses", "models", "parallel", "data", "weights", "monitor", "train"},
    "features": {"errors", "files", "models", "data", "weights", "parallel"},
    "pages": {"errors", "files", "models", "data", "features", "monitor"},
    "evaluation": {
        "errors",
        "files",
        "losses",
        "models",
        "parallel",
        "data",
        "weights",
        "monitor",
        "train",
        "features",
        "pages",
    },
}


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("opendino"):
            yield node.module.split("."), [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("opendino"):
                    yield alias.name.split("."), []


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_rooms_above_it(room):
    files = [SRC / f"{room}.py"] if (SRC / f"{room}.py").exists() else sorted((SRC / room).rglob("*.py"))
    for path in files:
        for module, names in imports(path):
            target = module[1] if len(module) > 1 else ""
            assert target == room or target in ALLOWED[room], f"{path.relative_to(SRC)} imports {'.'.join(module)}"
            if target != room:
                assert not any(name.startswith("_") for name in names), f"{path.name} takes a private name of {target}"


def test_no_dumping_grounds():
    names = {path.stem for path in SRC.rglob("*.py")} | {path.name for path in SRC.rglob("*") if path.is_dir()}
    assert not names & {"utils", "util", "common", "core", "misc", "helpers"}


def test_no_room_imports_the_command_line():
    for path in SRC.rglob("*.py"):
        if path.parent.name != "cli" and path.name not in ("__init__.py", "__main__.py"):
            assert not any("cli" in module[1:2] for module, _ in imports(path)), path
