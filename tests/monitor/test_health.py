"""Health gauges against slow loops, and each alarm with a sick and a healthy history."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from opendino.errors import ShapeError
from opendino.monitor.health import Health, Probe, alarms, effective_rank, health_from_row, in_words, measure

HEALTHY = Health(
    teacher_entropy=4.0,
    max_entropy=math.log(256),
    prototype_usage=31 / 64,
    rank=24.0,
    rank_max=64,
    cls_patch_cosine=0.3,
    patch_cosine=0.4,
    norm_ratio=1.5,
    information=0.8,
    images=64,
)


def sick(**changes):
    return dataclasses.replace(HEALTHY, **changes)


def probe(batch=12, dim=8, patches=9, prototypes=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return Probe(draw(batch, dim), draw(batch, patches, dim), 2 * draw(batch, prototypes), 3 * draw(batch, prototypes))


def test_every_gauge_equals_a_slow_loop():
    p = probe()
    health = measure(p)

    entropies, winners = [], set()
    for row in p.teacher_logits.tolist():
        total = sum(math.exp(v) for v in row)
        entropies.append(-sum(math.exp(v) / total * math.log(math.exp(v) / total) for v in row))
        winners.add(row.index(max(row)))
    assert health.teacher_entropy == pytest.approx(sum(entropies) / len(entropies), rel=1e-5)
    assert health.max_entropy == pytest.approx(math.log(20))
    assert health.prototype_usage == len(winners) / 12
    assert health.prototypes_in_use == len(winners) and health.prototypes_possible == 12

    with_cls, between = [], []
    for cls, patches in zip(p.cls, p.patches, strict=True):
        for i, patch in enumerate(patches):
            with_cls.append(float(F.cosine_similarity(cls, patch, dim=0)))
            between += [float(F.cosine_similarity(patch, other, dim=0)) for j, other in enumerate(patches) if i != j]
    assert health.cls_patch_cosine == pytest.approx(sum(with_cls) / len(with_cls), abs=1e-6)
    assert health.patch_cosine == pytest.approx(sum(between) / len(between), abs=1e-6)

    norms = sorted(float(patch.norm()) for patches in p.patches for patch in patches)
    assert health.norm_ratio == pytest.approx(norms[math.ceil(0.99 * 108) - 1] / norms[53], rel=1e-5)

    rows = [[math.exp(v) for v in row] for row in p.student_logits.tolist()]
    rows = [[v / sum(row) for v in row] for row in rows]
    mean = [sum(row[k] for row in rows) / 12 for k in range(20)]
    spread = -sum(v * math.log(v) for v in mean)
    own = sum(-sum(v * math.log(v) for v in row) for row in rows) / 12
    assert health.information == pytest.approx(spread - own, rel=1e-4)


def test_effective_rank_of_known_singular_values():
    # Centred already; singular values 3 and 1: exp(entropy(3/4, 1/4)).
    left = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]) / 2
    tokens = left @ torch.diag(torch.tensor([3.0, 1.0]))
    assert effective_rank(tokens) == pytest.approx(1.754765, rel=1e-5)
    assert effective_rank(tokens + 7) == pytest.approx(1.754765, rel=1e-4)


def test_rank_of_equal_rows_is_one_also_with_rounding_noise():
    row = torch.linspace(-1, 1, 32).expand(16, 32)
    noise = 1e-6 * torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    assert effective_rank(row) == effective_rank(row + noise) == 1.0
    assert measure(dataclasses.replace(probe(16, 32), cls=row + noise)).collapsed


def test_information_is_zero_for_equal_predictions_and_ln_b_for_distinct_ones():
    same = torch.randn(1, 10, generator=torch.Generator().manual_seed(1)).expand(10, 10)
    base = probe(10, prototypes=10)
    assert measure(dataclasses.replace(base, student_logits=same)).information == pytest.approx(0, abs=1e-6)
    distinct = 1e3 * torch.eye(10)
    assert measure(dataclasses.replace(base, student_logits=distinct)).information == pytest.approx(math.log(10))


def test_one_picture_is_refused():
    with pytest.raises(ShapeError, match="2 or more"):
        measure(probe(batch=1))


def test_non_finite_features_never_look_healthy():
    p = probe()
    nan = Probe(*(torch.full_like(part, math.nan) for part in (p.cls, p.patches, p.teacher_logits, p.student_logits)))
    health = measure(nan)
    assert health.collapsed or health.uniform


def test_words_name_the_numbers():
    assert in_words(HEALTHY, sick(information=0.01, rank=9.0)) == (
        "targets are spread (4.0 of 5.5 nats), 31 of at most 64 prototypes in use, features use 24 of 64 directions "
        "(9 at the start), predictions tell 0.80 nats, 0.01 at the start"
    )
    assert in_words(sick(teacher_entropy=5.5)).startswith("outputs are uniform (5.5 of 5.5 nats)")
    gone = sick(prototype_usage=1 / 64, information=0.0)
    assert in_words(gone).startswith("outputs are nearly the same for all pictures")


def test_collapse_needs_more_than_narrow_targets():
    assert sick(rank=1.0).collapsed
    for narrow in ({"rank": 3.0}, {"prototype_usage": 2 / 64}):
        assert not sick(**narrow).collapsed
        assert sick(**narrow, information=0.05).collapsed
        # A uniform run also has few arg-max prototypes; it needs other advice.
        uniform = sick(**narrow, information=0.0, teacher_entropy=5.53)
        assert uniform.uniform and not uniform.collapsed


def test_healthy_history_rings_nothing():
    assert alarms([HEALTHY] * 20) == []
    assert alarms([]) == []


CASES = [
    ("uniform targets: ", "--method.target-spread", {"teacher_entropy": 5.5}),
    ("blind predictions: ", "--method.target-spread", {"information": 0.01}),
    ("single-prototype targets: ", "--method.teacher-temperature", {"teacher_entropy": 0.1, "prototype_usage": 0.3}),
    ("unused prototypes: only 2 of 64", "--method.queue", {"prototype_usage": 2 / 64}),
    ("equal features: ", "optim.lr", {"rank": 1.0}),
    ("narrow features: ", "--method.koleo-weight", {"rank": 3.0}),
    ("equal patches: ", "--method.ibot-weight", {"patch_cosine": 0.95}),
    ("outlier patches: ", "registers", {"norm_ratio": 8.0}),
]


@pytest.mark.parametrize(("words", "key", "changes"), CASES)
def test_each_alarm_rings_once_and_names_a_key(words, key, changes):
    ringing = alarms([HEALTHY] + [sick(**changes)] * 3)
    assert len(ringing) == 1
    assert ringing[0].startswith(words) and key in ringing[0]
    assert "\n" not in ringing[0]
    # Untrained networks fail many gauges: step 0 alone never rings.
    assert alarms([sick(**changes)]) == []
    assert alarms([sick(**changes)] + [HEALTHY] * 3) == []


def test_slow_alarms_wait_for_three_measurements():
    uniform = sick(teacher_entropy=5.5)
    assert alarms([uniform, uniform, uniform]) == []
    assert alarms([HEALTHY, uniform, HEALTHY, uniform, uniform]) == []


def test_the_name_of_an_alarm_stays_while_its_numbers_move():
    first = alarms([HEALTHY] + [sick(teacher_entropy=5.5)] * 3)[0]
    later = alarms([HEALTHY] + [sick(teacher_entropy=5.42)] * 4)[0]
    assert first != later and first.split(":")[0] == later.split(":")[0] == "uniform targets"


def test_health_comes_back_from_its_row():
    row = {"kind": "health", "step": 5, "words": "", **dataclasses.asdict(sick(rank=3.5))}
    assert health_from_row(row) == sick(rank=3.5)
    assert math.isnan(health_from_row(row | {"rank": None}).rank)


def test_rank_halved_and_drift_compare_with_the_best_of_training():
    history = [sick(rank=60.0), HEALTHY, sick(rank=40.0), sick(rank=19.0)]
    assert "use 19 directions and used 40" in alarms(history)[0]
    assert alarms([sick(rank=60.0), HEALTHY]) == []
    early = [HEALTHY, *[sick(cls_patch_cosine=0.02)] * 5]
    drift = alarms([*early, sick(cls_patch_cosine=0.1), sick(cls_patch_cosine=0.35)])
    assert "0.10 -> 0.35" in drift[0] and "Gram" in drift[0]
    assert alarms([*early, sick(cls_patch_cosine=0.35)]) == []  # the rise of the first tenth is learning
