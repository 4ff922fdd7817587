"""results.json: every field in its place, the same results when read again, and what keeps numbers from comparing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from opendino.data.transform import Transform
from opendino.errors import DataError
from opendino.evaluation.protocol import Choice, Job, Outcome, Subject, mean_score, set_score
from opendino.evaluation.record import read_record, write_record
from opendino.evaluation.side_by_side import to_lines
from opendino.evaluation.suite import PROTOCOLS
from opendino.evaluation.surroundings import scored
from opendino.models.family import build_model
from tests.evaluation import schema

RUN = dict.fromkeys(schema.FIELDS["run"].split(), 0)
IDS = [f"picture {number}" for number in range(6)]


class Listing:
    name, split, split_hash, class_names = "ade20k", "val", "ab" * 32, ("wall", "sky")


@pytest.fixture(scope="module")
def subject():
    transform = Transform(size=48, patch=8, mode="center", filter="bicubic")
    return Subject(build_model("vit_tiny", depth=2), transform, "tiny", "cd" * 32, licence="Apache-2.0")


def evaluated(subject, protocol="seg-linear", settings=(), limit=None, scores=None, warnings=()):
    """A made outcome of a real protocol with its surroundings."""
    entry = PROTOCOLS[protocol]
    points = [{"lr": 1e-3}, {"lr": 1e-4}]
    choice = Choice(points[0], "held-out train", points, [30.0, float("nan")])
    values = np.arange(6.0)
    scores = scores or [
        set_score("miou", lambda times: float(times @ values / times.sum()), IDS, choice=choice),
        mean_score("other", values, IDS, measure="m", high_is_good=False, choice=choice, config={"k": 3}),
    ]
    job = Job(None, limit, 5, settings={**entry.settings, **dict(settings)})
    return scored(entry, subject, Listing(), job, Outcome(scores, warnings=warnings))


def test_every_field_is_there_and_results_come_back_as_they_were(subject, tmp_path):
    made = [evaluated(subject), evaluated(replace(subject, name="other", hash="ef" * 32))]
    path = write_record(tmp_path, made, {"vos": "no data"}, RUN)
    raw = json.loads(path.read_text())
    schema.check(raw)
    assert read_record(tmp_path).results == [result for one in made for result in one.results]
    assert raw["failures"] == {"vos": "no data"}
    one = raw["evaluations"][0]
    assert one["protocol"] == {
        "id": "seg-linear",
        "variant": "ours",
        "settings": {"rows": 32, "layer": -1, "steps": 1000, "batch": 2048, "ignore": 255, "limit": None, "seed": 5},
    }
    assert one["selected"] == {"lr": 1e-3, "on": "held-out train"}
    assert one["grid"] == {"points": [{"lr": 1e-3}, {"lr": 1e-4}], "scores": [30.0, None]}
    assert one["data"]["class_names"] == ["wall", "sky"] and one["data"]["n"] == 6
    miou, other = one["metrics"]
    assert (miou["unit"], other["unit"], other["higher_is_better"]) == ("%", "m", False)
    assert other["settings"] == {"k": 3} and miou["settings"] == {}
    assert miou["ci_method"] == "percentile bootstrap, 2000 draws of images" and miou["ci_unit"] == "image"


def test_what_the_model_was_shown_is_said(subject):
    whole = evaluated(subject).features
    assert (whole["size"], whole["crop"], whole["layers"], whole["pooling"]) == (256, None, [1], "patches")
    assert evaluated(subject, settings={"layer": 0}).features["layers"] == [0]
    top1 = [mean_score("top1", np.ones(6), IDS)]
    shown = evaluated(subject, "linear", scores=top1).features
    assert shown["size"] == 48 and shown["resize"] == "short side to 55" and shown["crop"] == "middle square"
    assert shown["interpolation"] == "bicubic" and shown["pooling"] == "CLS" and len(shown["mean"]) == 3
    native = evaluated(subject, "discovery", scores=top1).features
    assert native["size"] is None and "full resolution" in native["resize"]
    assert evaluated(subject, "corr-navi", scores=top1).features["final_norm"] == "with and without"


def test_a_choice_of_one_number_stands_beside_it(subject, tmp_path):
    scores = [
        mean_score("top1", np.ones(6), IDS, choice=Choice({"lr": 1.0}, "held-out train")),
        mean_score("top1_best_on_val", np.ones(6), IDS, variant="paper", choice=Choice({"lr": 2.0}, "test")),
    ]
    made = evaluated(subject, "linear-grid", scores=scores)
    raw = json.loads(write_record(tmp_path, [made], {}, RUN).read_text())
    schema.check(raw)
    (one,) = raw["evaluations"]
    assert one["selected"] is None and [metric["selected"]["on"] for metric in one["metrics"]] == [
        "held-out train",
        "test",
    ]
    assert read_record(tmp_path).results == made.results


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "variant ours"),
        ({"limit": 3}, "limited"),
        ({"settings": {"rows": 16}}, "rows 16"),
        ({"warnings": ["half of it is missing"]}, "half of it is missing"),
    ],
)
def test_why_a_number_does_not_compare_with_the_paper_is_said(changes, words, subject, tmp_path):
    raw = json.loads(write_record(tmp_path, [evaluated(subject, **changes)], {}, RUN).read_text())
    (reference,) = raw["evaluations"][0]["reference"]
    assert reference["metric"] == "miou" and reference["value"] == 55.9 and reference["table"] == "table 3"
    assert not reference["comparable"] and words in reference["why_not"]


def test_pairs_of_alike_units_are_drawn_by_their_groups(subject, tmp_path):
    """Gains that are equal inside of groups are as uncertain as there are groups."""
    groups = [name for name in "abcd" for _ in range(25)]
    ids, gain = [f"{name}/{number}" for number, name in enumerate(groups)], np.repeat([0.0, 0, 100, 100], 25)
    found = {}
    for kind, named in (("grouped", groups), ("plain", ())):
        for name, values in (("before", 0 * gain), ("after", gain)):
            score = mean_score("recall_1cm", values, ids, unit="pair", groups=named)
            model = replace(subject, name=name, hash=(name[0] * 64))
            write_record(tmp_path / kind / name, [evaluated(model, "corr-navi", scores=[score])], {}, RUN)
        records = [read_record(tmp_path / kind / name) for name in ("before", "after")]
        ((line,), _) = to_lines(records)
        found[kind] = line.gains["after"]
    assert found["grouped"].value == found["plain"].value == 50
    assert found["grouped"].high - found["grouped"].low > 3 * (found["plain"].high - found["plain"].low)


def test_numbers_that_are_no_means_are_paired_by_their_draws(subject, tmp_path):
    """The oracle is a mean said both ways. Its two models differ by far less than either is known."""
    generator = np.random.default_rng(0)
    before = generator.normal(50, 20, len(IDS) * 20)
    ids = [str(number) for number in range(len(before))]
    values = {"before": before, "after": before + generator.normal(1, 0.5, len(ids))}
    for name, numbers in values.items():
        model = replace(subject, name=name, hash=(name[0] * 64))
        said = [
            mean_score("mean", numbers, ids),
            set_score("drawn", lambda times, of=numbers: float(times @ of / times.sum()), ids),
            set_score(
                "others", lambda times, of=numbers: float(times @ of / times.sum()), [f"{name} {one}" for one in ids]
            ),
        ]
        write_record(tmp_path / name, [evaluated(model, "corr-navi", scores=said)], {}, RUN)
    records = [read_record(tmp_path / name) for name in values]
    mean, drawn, others = (line.gains for line in to_lines(records)[0])
    assert drawn["after"].value == pytest.approx(mean["after"].value)
    assert (drawn["after"].low, drawn["after"].high) == pytest.approx((mean["after"].low, mean["after"].high), abs=0.03)
    assert mean["after"].high - mean["after"].low < 0.3 and not others


def test_the_documentation_names_every_field():
    text = (Path(__file__).parents[2] / "docs" / "evaluate.md").read_text()
    for names in schema.FIELDS.values():
        assert [name for name in names.replace("?", "").split() if f"`{name}`" not in text] == []


def test_other_files_are_named(tmp_path):
    for text, words in (("[]", "schema 2"), ('{"schema": 1}', "schema 2"), ('{"schema": 2}', "evaluations")):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(DataError, match=words):
            read_record(tmp_path)


def test_the_end_of_a_grid_of_rates_is_said(subject):
    points = [{"lr": rate, "weight_decay": 0.0} for rate in (1e-4, 3e-4, 1e-3)]
    for chosen, said in ((1e-3, "largest"), (1e-4, "smallest"), (3e-4, None)):
        choice = Choice({"lr": chosen}, "held-out train", points, [1, 2, 3])
        score = mean_score("miou", np.arange(6.0), IDS, choice=choice)
        warnings = evaluated(subject, scores=[score, score], warnings=["own"]).outcome.warnings
        assert warnings[0] == "own" and len(warnings) == (1 if said is None else 2)
        assert said is None or f"seg-linear: the {said} of the learning rates" in warnings[1]


def test_a_folder_without_its_tables_is_said_to_lack_them(subject, tmp_path):
    write_record(tmp_path, [evaluated(subject)], {}, RUN)
    assert read_record(tmp_path).lacks == () and read_record(tmp_path).name == tmp_path.name
    (tmp_path / "draws.csv").unlink()
    assert read_record(tmp_path).lacks == ("draws.csv",)
