"""The k-NN probe that a training command hands to the loop: a callable from backbone to results, cheap and fixed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from opendino.data.sources import Source, subset
from opendino.data.transform import Transform
from opendino.errors import UsageError
from opendino.evaluation.knn import TEMPERATURE, Readout, score_knn
from opendino.evaluation.metrics.interval import bootstrap, paired_bootstrap, unpaired_difference
from opendino.evaluation.results import Result
from opendino.features.extract import Bank, Inputs, extract_inputs, read_inputs

BANK_LIMIT = 10_000
QUERY_LIMIT = 2_000
CACHE_MB = 512


class KnnProbe:
    """Scores a backbone by k-NN on CLS: the same bank, queries and read-out each time.

    The first call is the baseline: results carry the paired difference to it in `config` (gain, gain_low, gain_high, in
    points). A resumed run hands over `baseline` = `baseline_from_rows(rows)` of its metrics.

    Args:
        bank, queries: sources with classes; query classes are matched to the bank's by name. Pictures without a class
            are left out, and beyond `bank_limit` and `query_limit` a fixed stratified subset is taken.
        transform: what the exported model will use.
        ks: one result each.
        cache_mb: transformed pictures are kept in memory when they fit, else read again at each call.
    Raises:
        UsageError: no labelled pictures on one side, or no class in common.
    """

    def __init__(
        self,
        bank: Source,
        queries: Source,
        transform: Transform,
        *,
        ks: Sequence[int] = (10,),
        readout: Readout = "standardised",
        device: torch.device | str = "cpu",
        batch_size: int = 64,
        bank_limit: int = BANK_LIMIT,
        query_limit: int = QUERY_LIMIT,
        seed: int = 0,
        dataset: str = "",
        cache_mb: int = CACHE_MB,
        baseline: Mapping[int, str] | None = None,
    ) -> None:
        self.bank = subset(bank, stratified(labels_of(bank), bank_limit, seed))
        self.queries = subset(queries, stratified(labels_of(queries), query_limit, seed))
        if not len(self.bank) or not len(self.queries):
            raise UsageError("k-NN", "needs labelled pictures on both sides", "put pictures into one folder per class")
        numbers = {name: number for number, name in enumerate(bank.classes)}
        if not numbers.keys() & set(queries.classes):
            raise UsageError("k-NN", "bank and queries share no class name", "use the same folder names in both")
        # A class that the bank lacks gets a number of its own: its pictures count as wrong.
        self._query_numbers = torch.tensor([numbers.setdefault(name, len(numbers)) for name in queries.classes])
        self._chance = 100 / len(set(labels_of(self.bank).tolist()))
        self.transform, self.ks, self.readout, self.device = transform, tuple(ks), readout, device
        self.batch_size, self.dataset = batch_size, dataset
        self.baseline = dict(baseline or {})
        hashed = f"{self.bank.fingerprint} {self.queries.fingerprint}".encode()
        self.split_hash = hashlib.sha256(hashed).hexdigest()
        megabytes = 4 * 3 * transform.size**2 * (len(self.bank) + len(self.queries)) / 2**20
        self._keep = megabytes <= cache_mb
        self._kept: dict[str, list[Inputs]] = {}

    def __call__(self, model: nn.Module) -> list[Result]:
        """Score a backbone; it is put in eval mode and put back afterwards. One `Result` per k."""
        bank, queries = self._features(model, "bank", self.bank), self._features(model, "queries", self.queries)
        scores = score_knn(
            bank.cls,
            bank.labels,
            queries.cls,
            self._query_numbers[queries.labels],
            ks=self.ks,
            readouts=(self.readout,),
        )
        results = []
        for score in scores:
            estimate = bootstrap(100 * score.correct)
            config: dict[str, Any] = {
                "k": score.k,
                "readout": score.readout,
                "temperature": TEMPERATURE,
                "bank": len(bank.ids),
                "skipped": len(bank.skipped) + len(queries.skipped),
                "chance": self._chance,
                "size_px": self.transform.size,
                "correct": pack(score.correct),
            }
            before = unpack(self.baseline.setdefault(score.k, config["correct"]))
            # Another number: a query file has become readable or unreadable, so the answers are no pairs.
            paired = len(before) == len(score.correct)
            gain = (paired_bootstrap if paired else unpaired_difference)(100 * before, 100 * score.correct)
            config |= {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high, "paired": paired}
            results.append(
                Result(
                    protocol="knn",
                    variant="ours",
                    dataset=self.dataset,
                    split_hash=self.split_hash,
                    n=len(queries.ids),
                    metric="top1",
                    value=estimate.value,
                    interval=(estimate.low, estimate.high),
                    config=config,
                )
            )
        return results

    def _features(self, model: nn.Module, side: str, source: Source) -> Bank:
        batches: Iterable[Inputs] = self._kept.get(side) or read_inputs(
            source, self.transform, batch_size=self.batch_size
        )
        if self._keep and side not in self._kept:
            batches = self._kept[side] = list(batches)
        return extract_inputs(model, batches, device=self.device, pool=1)


def knn_row(result: Result) -> dict[str, Any]:
    """The values of a knn row of metrics.jsonl: `log.append("knn", step, **knn_row(result))`."""
    low, high = result.interval or (None, None)
    names = ("k", "chance", "readout", "bank", "gain", "gain_low", "gain_high", "paired", "correct")
    values = {name: result.config[name] for name in names if name in result.config}
    return {"value": result.value, "low": low, "high": high, "n": result.n, **values}


def baseline_from_rows(rows: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """The first knn row's right and wrong answers per k, for a resumed run's `KnnProbe(baseline=...)`."""
    found: dict[int, str] = {}
    for row in rows:
        if row.get("kind") == "knn" and "correct" in row:
            found.setdefault(row["k"], row["correct"])
    return found


def pack(correct: NDArray[np.bool_]) -> str:
    """Right-or-wrong answers as their number and hexadecimal bits, the first query first: "12:ff80"."""
    return f"{len(correct)}:{np.packbits(correct).tobytes().hex()}"


def unpack(text: str) -> NDArray[np.bool_]:
    """What `pack` was given."""
    count, _, bits = text.partition(":")
    return np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8), count=int(count)).astype(bool)


def labels_of(source: Source) -> NDArray[np.int64]:
    """Label of every picture, -1 where there is none."""
    labels = (source.label(index) for index in range(len(source)))
    return np.fromiter((-1 if label is None else label for label in labels), np.int64, len(source))


def stratified(labels: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """Ascending indices of at most `limit` labelled pictures, classes as even as they can be; a function of its inputs.

    Small classes are kept whole before large ones give more than their share.
    """
    generator = np.random.default_rng(seed)
    rank = np.full(len(labels), -1, np.int64)
    for label in np.unique(labels[labels >= 0]):
        members = generator.permutation(np.flatnonzero(labels == label))
        rank[members] = np.arange(len(members))
    labelled = np.flatnonzero(labels >= 0)
    by_turn = labelled[np.lexsort((labels[labelled], rank[labelled]))]
    return np.sort(by_turn[:limit])
