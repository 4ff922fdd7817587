"""What looks at a student while it learns: the watchers of any run, and the line that its teacher sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from opendino.cli.distill_plan import Job
from opendino.cli.pretrain import knn_probe
from opendino.cli.training import note_skipped
from opendino.cli.watchers import Watch
from opendino.data.beside import stated_fields
from opendino.data.sources import why_unscored
from opendino.data.transform import Transform
from opendino.evaluation.probes import KnnProbe, knn_row
from opendino.models.family import FAMILY
from opendino.train.config import RunConfig
from opendino.train.method import BackboneMethod
from opendino.train.run import RunDirectory


class TeacherScore:
    """The teacher's k-NN score, taken once for all students that ask."""

    def __init__(self, probe: KnnProbe | None, backbone: Any) -> None:
        self._probe, self._backbone = probe, backbone
        self._row: dict[str, Any] | None = None

    def row(self) -> dict[str, Any] | None:
        """Values of a metrics row; None without labels."""
        if self._row is None and self._probe is not None:
            (result,) = self._probe(self._backbone)
            gains = ("gain", "gain_low", "gain_high", "paired", "correct")
            self._row = {name: value for name, value in knn_row(result).items() if name not in gains}
        return self._row


@dataclass
class StudentWatch(Watch):
    """`Watch` with the line that the teacher sets."""

    score: TeacherScore = field(kw_only=True)

    def _knn(self, step: int, method: BackboneMethod) -> None:
        if step == 0 and (row := self.score.row()) is not None:
            self.metrics.append("teacher", 0, **row)
            span = f"[{row['low']:.1f}, {row['high']:.1f}]"
            self.say(f"step 0: the teacher's k-NN is {row['value']:.1f} % {span}: the line to reach")
        super()._knn(step, method)


def watch_student(
    job: Job,
    config: RunConfig,
    run: RunDirectory,
    method: BackboneMethod,
    score: TeacherScore,
    say: Callable[[str], None],
) -> StudentWatch:
    """The watchers of one student, with the card of what it will be."""
    source, named = job.source, job.named
    patch: Any = method.export().patch
    transform = Transform(size=config.read_px, mode="square", mean=config.data.mean, std=config.data.std, patch=patch)
    note_skipped(run, source)
    name = config.model.name
    card = {
        "name": name,
        "licence": f"made from {named.name}: {named.backbone.card['licence']}",
        "source": f"opendino distill, recipe {config.recipe}, {config.steps} steps, from {named.named}",
        "teacher": {"name": named.name, "hash": config.distill.teacher_hash},
        "pictures": len(source),
        "reading": stated_fields(source.reading),
    }
    probe = knn_probe(config, source, job.val, transform, run, job.device)
    if probe is None:
        say(f"{why_unscored(source)}: k-NN is skipped, health and pictures are not")
    if not FAMILY[name].from_paper:
        say(f"student: {name} ({FAMILY[name].note})")
    return StudentWatch(config, run, source, transform, job.device, probe, card, say, score=score)
