"""`opendino models`, as a table and as JSON."""

import json

import pytest
import torch

import opendino
from opendino.cli import models
from opendino.errors import UsageError
from opendino.models.family import FAMILY, build_model


def test_the_table_names_every_model_its_licence_and_what_is_not_of_the_paper(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert models.run([]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line and line.split()[0] in FAMILY}
    assert list(lines) == list(FAMILY)
    for name, words in lines.items():
        assert ("yes" in words) == FAMILY[name].from_paper
        assert ("DINOv3" in words) == FAMILY[name].from_paper
    assert lines["vits16"][1:6] == ["21.6", "M", "384", "12", "16"]
    assert lines["vit7b16"][1:3] == ["6.72", "B"]


def test_json_has_every_row_with_its_shape(capsys):
    assert models.run(["--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(FAMILY) == [spec.name for spec in opendino.list_models()]
    for row in rows:
        if not row["from_paper"]:
            with torch.device("meta"):
                model = build_model(row["name"])
            assert (row["dim"], row["layers"], row["patch"]) == (model.dim, model.num_layers, model.patch)
            assert sum(parameter.numel() for parameter in model.parameters()) == row["params"]


def test_help_has_an_example_and_a_wrong_flag_is_exit_code_2(capsys):
    with pytest.raises(SystemExit) as caught:
        models.run(["--help"])
    assert caught.value.code == 0 and "Example: opendino models" in capsys.readouterr().out
    with pytest.raises(UsageError, match="did you mean --json"):
        models.run(["--jsn"])
