"""Health of dense features without labels: drift towards CLS, outlier patches, rank, spectrum and locality.

Sources: figure 5 and A.1 of arXiv 2508.10104; RankMe, arXiv 2210.02885. No number here is a score: thresholds mean
something beside a baseline, such as an earlier checkpoint of the same run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from opendino.data import images
from opendino.data.sources import Skipped, Source, open_source
from opendino.evaluation.cache import limited
from opendino.evaluation.datasets.units import hash_ids
from opendino.evaluation.dense import whole_input
from opendino.evaluation.metrics.interval import Estimate
from opendino.evaluation.protocol import Job, Outcome, Score, Subject, mean_score
from opendino.evaluation.reading import read_each

LAYOUT = "a folder or tar of any pictures"
OUTLIER_MADS = 6.0
RANKME_EPS = 1e-7


class Pictures:
    """Any pictures: a source with the name and words of a data set."""

    split = "all"

    def __init__(self, name: str, source: Source) -> None:
        self.name, self.source, self.split_hash = name, source, hash_ids([source.fingerprint])

    def words(self) -> str:
        """How many."""
        return f"{len(self.source):,} pictures"

    def read_each(self, skipped: list[Skipped], job: Job) -> Iterator[tuple[int, images.Image]]:
        """Number and picture of all that can be read; the others go to `skipped`."""
        numbers = range(len(self.source))
        return read_each(numbers, self.source.read, skipped, job, "pictures", name=self.source.id)


def open_pictures(job: Job) -> Pictures:
    """A fixed part of a folder's pictures, as many as the setting `pictures` says; masks beside them are left alone."""
    count = int(job.settings["pictures"])
    limit = count if job.limit is None else min(count, job.limit)
    root = job.data
    masked = (root / part for part in ("", "val", "train") if (root / part / "masks").is_dir())
    whole = open_source(next((part / "images" for part in masked if (part / "images").is_dir()), root))
    return Pictures(root.resolve().name, limited(whole, Job(root, limit, job.seed)))


def cls_patch_cosine(cls: Tensor, patches: Tensor) -> Tensor:
    """[B]: mean cosine of CLS [B, D] and the patches [B, N, D] of its picture."""
    return F.cosine_similarity(cls[:, None], patches, dim=-1).mean(dim=1)


def norm_outliers(norms: Tensor) -> tuple[float, float]:
    """Share of norms above median + 6 robust standard deviations, and the largest over the median."""
    median = norms.median() if norms.numel() % 2 else norms.sort().values[norms.numel() // 2 - 1 :][:2].mean()
    away = (norms - median).abs().sort().values
    mad = away[away.numel() // 2] if away.numel() % 2 else away[away.numel() // 2 - 1 :][:2].mean()
    limit = median + OUTLIER_MADS * 1.4826 * mad
    return float((norms > limit).float().mean()), float(norms.max() / median)


def rank_me(tokens: Tensor) -> float:
    """exp of the entropy of the singular values of [n, D], not centred, each share raised by 1e-7."""
    values = torch.linalg.svdvals(tokens.double())
    shares = values / values.sum() + RANKME_EPS
    return float(torch.exp(-(shares * shares.log()).sum()))


def spectrum(tokens: Tensor) -> dict[str, float]:
    """Share of the variance in the first 1, 3 and 10 directions, and the participation ratio, of [n, D] tokens."""
    values = torch.linalg.svdvals((tokens - tokens.mean(dim=0)).double()).square()
    shares = values / values.sum()
    named = {f"pca_top{count}": 100 * float(shares[:count].sum()) for count in (1, 3, 10)}
    return {**named, "participation": participation_ratio(values)}


def participation_ratio(eigenvalues: Tensor) -> float:
    """(sum)^2 / sum of squares: how many directions share the variance evenly."""
    return float(eigenvalues.sum().square() / eigenvalues.square().sum())


def gram_drift(patches: Tensor, reference: Tensor) -> float:
    """Mean squared difference of the cosines between patches [N, D] and those between the same patches of another
    network [N, E]; 0 for equal or rotated features.
    """
    one, other = (F.normalize(part.double(), dim=1) for part in (patches, reference))
    return float((one @ one.T - other @ other.T).square().mean())


def locality(patches: Tensor, distances: tuple[int, ...] = (1, 2, 4, 8)) -> dict[str, float]:
    """Mean cosine of patches [h, w, D] that many columns or rows apart."""
    units = F.normalize(patches, dim=-1)
    found = {}
    for away in distances:
        if away < min(units.shape[:2]):
            across = (units[:, away:] * units[:, :-away]).sum(-1).mean()
            down = (units[away:] * units[:-away]).sum(-1).mean()
            found[f"cosine_at_{away}"] = float((across + down) / 2)
    return found


def evaluate_health(subject: Subject, data: Pictures, job: Job) -> Outcome:
    """All gauges over whole pictures; those that are a mean over pictures have an interval over pictures."""
    rows = int(job.settings["rows"])
    last = subject.model.num_layers - 1
    cls, samples, cosines, shares, peaks, near = [], [], [], [], [], []
    ids: list[str] = []
    skipped: list[Skipped] = []
    generator = torch.Generator().manual_seed(job.seed)
    for index, picture in data.read_each(skipped, job):
        image = whole_input(subject, picture, rows)
        with torch.no_grad():
            batch = image[None].to(subject.device)
            normed = subject.model(batch)
            (raw,) = subject.model.intermediate(batch, [last], norm=False)
        patches = normed.patches.float().cpu().flatten(1, 2)
        share, peak = norm_outliers(raw.patches.float().cpu().norm(dim=-1).flatten())
        cls.append(normed.cls.float().cpu().clone())  # a view would keep all tokens
        samples.append(patches[0, torch.randperm(patches.shape[1], generator=generator)[:64]])
        cosines.append(float(cls_patch_cosine(cls[-1], patches)))
        shares.append(100 * share)
        peaks.append(peak)
        near.append(locality(normed.patches[0].float().cpu()))
        ids.append(data.source.id(index))
    tokens = torch.cat(cls)
    values = {"rank_me": rank_me(tokens), **spectrum(torch.cat(samples))}
    scores = [
        mean_score("cls_patch_cosine", cosines, ids, measure="1", high_is_good=False),
        mean_score("patch_norm_outliers", shares, ids, high_is_good=False),
        mean_score("patch_norm_peak", peaks, ids, measure="1", high_is_good=False),
        *(mean_score(name, [one[name] for one in near], ids, measure="1") for name in near[0]),
        # No interval: drawing pictures twice lowers a rank whatever the features are.
        *(
            Score(name, Estimate(value, math.nan, math.nan), len(ids), "image", measure="%" if "top" in name else "1")
            for name, value in values.items()
        ),
    ]
    wanted = 4 * tokens.shape[1]
    warnings = [f"rank_me of {len(ids)} pictures is low for want of pictures; {wanted} are asked"] * (len(ids) < wanted)
    details = {"cls_patch_cosine": {"p95": float(np.quantile(cosines, 0.95))}}
    return Outcome(scores, skipped, {}, details, warnings)
