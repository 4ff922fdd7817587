"""CLS features of a source, extracted once for a model and a transform and kept as one safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from opendino.data.sources import Skipped, Source, subset
from opendino.evaluation.probes import labels_of, stratified
from opendino.evaluation.protocol import Job, Subject
from opendino.evaluation.stored import StoredFeatures
from opendino.features.extract import Bank, extract
from opendino.files import write_atomic


def limited(source: Source, job: Job) -> Source:
    """The source, or a fixed part of it of `job.limit` pictures, its classes as even as they can be."""
    if job.limit is None or len(source) <= job.limit:
        return source
    labels = labels_of(source)
    if (labels < 0).all():
        return subset(source, np.linspace(0, len(source) - 1, job.limit).round().astype(np.int64))
    return subset(source, stratified(labels, job.limit, job.seed))


def features(subject: Subject, source: Source, job: Job, what: str) -> Bank:
    """CLS and mean patch of every picture; kept by weights, transform, and ids and sizes of the files, or from a store.

    Corrupted copies of a set may have equal names and sizes, so `what` names the part within `job.data`.
    """

    if isinstance(subject.model, StoredFeatures):
        return subject.model.bank(source, lambda done: job.progress(what, done, len(source)))

    def compute() -> Bank:
        return extract(
            subject.model,
            source,
            subject.transform,
            batch_size=job.batch_size,
            device=subject.device,
            pool=1,
            progress=lambda done: job.progress(what, done, len(source)),
        )

    transform = json.dumps(subject.transform.to_dict(), sort_keys=True)
    return kept(job, [subject.hash, transform, source.fingerprint, str(job.data.resolve()), what], compute)


def kept(job: Job, key: Sequence[str], compute: Callable[[], Bank]) -> Bank:
    """What `compute` gives, from a file in `job.cache` when one has the same key; a damaged file is written anew."""
    digest = hashlib.sha256(" ".join(key).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    path = None if job.cache is None else job.cache / f"{digest}.safetensors"
    if path is not None and path.is_file() and (bank := _read(path)) is not None:
        return bank
    bank = compute()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        names = {"ids": list(bank.ids), "skipped": [[one.id, one.reason] for one in bank.skipped]}
        tensors = {"cls": bank.cls, "pooled": bank.pooled, "labels": bank.labels}
        write_atomic(path, save(tensors, {"names": json.dumps(names)}))
    return bank


def _read(path: object) -> Bank | None:
    try:
        with safe_open(str(path), "pt") as file:
            names = json.loads(file.metadata()["names"])
            cls, pooled, labels = (file.get_tensor(name) for name in ("cls", "pooled", "labels"))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return Bank(
        cls, pooled, labels.to(torch.int64), tuple(names["ids"]), tuple(Skipped(*one) for one in names["skipped"])
    )
