"""Results survive JSON; the hash of weights sees every tensor."""

import json

import pytest
import torch
from torch import nn

from opendino.errors import DataError
from opendino.evaluation.results import Result, from_dict, to_dict, weights_hash

RESULT = Result("knn", "ours", "tiles", "abc", 600, "top1", 39.8, (36.0, 43.7), "f00", {"k": 10, "readout": "raw"})


@pytest.mark.parametrize("result", [RESULT, Result("knn", "ours", "", "", 0, "top1", 0.0, None)])
def test_json_round_trip(result):
    assert from_dict(json.loads(json.dumps(to_dict(result)))) == result


def test_wrong_keys_are_named():
    value = to_dict(RESULT)
    with pytest.raises(DataError, match="valeu"):
        from_dict(value | {"valeu": 1})
    del value["metric"]
    with pytest.raises(DataError, match="metric"):
        from_dict(value)


def test_hash_changes_with_values_names_shapes_and_types():
    def model(seed=0):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))

    base = weights_hash(model())
    assert weights_hash(model()) == base and len(base) == 64
    changed = model()
    changed[1].running_mean[0] += 1e-7
    others = [weights_hash(m) for m in (model(1), changed, model().bfloat16(), nn.ModuleDict({"a": model()}))]
    assert len({base, *others}) == 5
