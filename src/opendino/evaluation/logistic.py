"""Logistic regression on CLS as DINOv2 and DINOv3 report it: scikit-learn's L-BFGS, C chosen on a tenth of train."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opendino.errors import UsageError
from opendino.evaluation.classification import sides
from opendino.evaluation.datasets.classes import Classes
from opendino.evaluation.protocol import Choice, Job, Outcome, Subject, mean_score

HELD_OUT_SHARE = 0.1
MAX_ITERATIONS = 1000
TOLERANCE = 1e-12


@dataclass(frozen=True)
class LogisticFit:
    """model: scikit-learn's; C: the chosen one; held_out: percent per C; converged: the iterations sufficed."""

    model: Any
    C: float
    held_out: dict[float, float]
    converged: bool

    @property
    def choice(self) -> Choice:
        """For the results."""
        points = [{"C": C} for C in self.held_out]
        return Choice({"C": self.C}, "held-out train", points, list(self.held_out.values()))


def fit_logistic(features: NDArray[np.floating], labels: NDArray[np.int64], C: float) -> tuple[Any, bool]:
    """L2-penalised multinomial fit in fp64, not standardised; C multiplies the sum of losses. Says if it converged."""
    linear_model = _scikit_learn("linear_model")
    exceptions = _scikit_learn("exceptions")
    model = linear_model.LogisticRegression(C=C, tol=TOLERANCE, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", exceptions.ConvergenceWarning)
        model.fit(features.astype(np.float64), labels)
    return model, not any(issubclass(one.category, exceptions.ConvergenceWarning) for one in caught)


def choose_and_fit(
    features: NDArray[np.floating], labels: NDArray[np.int64], grid: Sequence[float], seed: int
) -> LogisticFit:
    """Choose C on a tenth of each class, then fit on all. A class of 1 cannot be split: then the grid's middle."""
    held_out: dict[float, float] = {}
    chosen = sorted(grid)[len(grid) // 2]
    counts = np.unique(labels, return_counts=True)[1]
    held = max(len(counts), round(HELD_OUT_SHARE * len(labels)))
    if counts.min() >= 2 and len(labels) - held >= len(counts):
        split = _scikit_learn("model_selection").train_test_split
        kept, tried = split(np.arange(len(labels)), test_size=held, random_state=seed, stratify=labels)
        for C in sorted(grid):
            model, _ = fit_logistic(features[kept], labels[kept], C)
            held_out[C] = 100 * float((model.predict(features[tried]) == labels[tried]).mean())
        chosen = max(held_out, key=lambda C: (held_out[C], -C))
    model, converged = fit_logistic(features, labels, chosen)
    return LogisticFit(model, chosen, held_out, converged)


def evaluate_logreg(subject: Subject, data: Classes, job: Job) -> Outcome:
    """Top-1 and mean per class. The tenth is stratified, which the paper's is not."""
    both = sides(subject, data, job)
    train, val = both.train.numpy(), both.val.numpy()
    labels, truth = both.train_labels.numpy(), both.val_labels.numpy()
    grid = [float(C) for C in 10 ** np.linspace(-6, 5, int(job.settings["grid"]))]
    fit = choose_and_fit(train, labels, grid, job.seed)
    correct = fit.model.predict(val.astype(np.float64)) == truth
    per_class = {str(name): 100 * float(correct[truth == name].mean()) for name in np.unique(truth)}
    config = {"mean_per_class": float(np.mean(list(per_class.values())))}
    notes = [] if fit.converged else [f"logreg: {MAX_ITERATIONS} iterations were not enough at C {fit.C:g}"]
    score = mean_score("top1", 100.0 * correct, both.ids, choice=fit.choice)
    return Outcome([score], both.skipped, config, {"accuracy_by_class": per_class}, notes)


def few_shot_rows(labels: NDArray[np.int64], shots: int, seed: int) -> NDArray[np.int64]:
    """Ascending rows of `shots` pictures a class, fewer where a class has fewer; a function of its inputs."""
    generator = np.random.default_rng(seed)
    drawn = [generator.permutation(np.flatnonzero(labels == label))[:shots] for label in np.unique(labels)]
    return np.sort(np.concatenate(drawn))


def evaluate_few_shot(subject: Subject, data: Classes, job: Job) -> Outcome:
    """Top-1 with 1 to 16 pictures a class, a mean over draws; C is fixed, since so few pictures cannot choose it.

    The interval is over val pictures; the deviation over draws stands in the settings.
    """
    both = sides(subject, data, job)
    train, val = both.train.numpy(), both.val.numpy().astype(np.float64)
    labels, truth = both.train_labels.numpy(), both.val_labels.numpy()
    scores = []
    most = int(np.bincount(labels).max())
    if not (wanted := [shots for shots in job.settings["shots"] if shots <= most]):
        raise UsageError("few-shot shots", f"the largest class has {most} pictures", f"try --set shots={most}")
    for shots in wanted:
        tries = []
        for seed in range(int(job.settings["tries"])):
            rows = few_shot_rows(labels, shots, seed)
            model, _ = fit_logistic(train[rows], labels[rows], float(job.settings["C"]))
            tries.append(100.0 * (model.predict(val) == truth))
            job.progress(f"{shots} a class", seed + 1, int(job.settings["tries"]))
        spread = float(np.std([one.mean() for one in tries], ddof=1)) if len(tries) > 1 else None
        config = {"shots": shots, "tries": len(tries), "sd_of_tries": spread, "C": job.settings["C"]}
        scores.append(mean_score(f"top1_{shots}_shot", np.mean(tries, axis=0), both.ids, config=config))
    dropped = [str(shots) for shots in job.settings["shots"] if shots > most]
    words = f"few-shot: no class has more than {most} pictures; not scored with {', '.join(dropped)}"
    return Outcome(scores, both.skipped, warnings=[words] if dropped else [])


def _scikit_learn(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"sklearn.{name}")
    except ImportError:
        raise UsageError("logistic regression", "needs scikit-learn", 'run: pip install "opendino[eval]"') from None
