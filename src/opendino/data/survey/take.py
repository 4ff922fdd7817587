"""Goes over a source once, in processes of its own, and goes on where a killed survey stopped."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from opendino.data.images import ImageError, crashed, too_slow
from opendino.data.sources import Source
from opendino.data.survey.measure import Measured, measure, unreadable
from opendino.data.survey.records import Records
from opendino.data.watch import Watch
from opendino.errors import OpendinoError

CHUNK = 32
"""Pictures measured and kept together: what a kill loses at most, for each process."""

_source: Source | None = None
_watch: Watch | None = None


def take_survey(source: Source, records: Records, workers: int, tell: Callable[[int], None]) -> int:
    """Measure every picture of a source that is not in `records` yet, or has changed since.

    Args:
        workers: processes that decode; 0 does it in this one. With processes, a decoder that crashes or does not end
            costs one picture, not the survey.
        tell: called with the number of pictures that are done, new or known.
    Returns:
        How many were measured now.
    """
    new = 0
    with _Pool(source, workers) as pool:
        for rows in pool.measured(_waiting(source, records, tell)):
            records.add(rows)
            new += len(rows)
            tell(len(rows))
    if len(records) != len(source):
        records.keep_only(source.id(index) for index in range(len(source)))
    records.mark_masks()
    return new


def _waiting(source: Source, records: Records, tell: Callable[[int], None]) -> Iterator[list[int]]:
    """Chunks of the numbers of pictures that must be measured."""
    chunk: list[int] = []
    for start in range(0, len(source), 500):
        indices = range(start, min(start + 500, len(source)))
        known = records.stamps([source.id(index) for index in indices])
        for index in indices:
            label = source.label(index)
            stamp = (*source.stamp(index), -1 if label is None else label)
            if known.get(source.id(index)) == stamp:
                tell(1)
                continue
            chunk.append(index)
            if len(chunk) == CHUNK:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


class _Pool:
    """Processes that measure chunks; a few chunks are under way at a time, so memory does not follow the source."""

    def __init__(self, source: Source, workers: int) -> None:
        self._source, self._workers = source, workers
        self._executor = self._start() if workers else None

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        return _start(self._source, self._workers, Watch())

    def measured(self, chunks: Iterator[list[int]]) -> Iterator[list[Measured]]:
        """Rows of each chunk, in order."""
        if self._executor is None:
            _set_source(self._source)
            yield from map(_measure_chunk, chunks)
            return
        under_way: deque[tuple[list[int], Future[list[Measured]]]] = deque()
        for chunk in chunks:
            under_way.append((chunk, self._submit(chunk)))
            if len(under_way) >= 3 * self._workers:
                yield self._result(*under_way.popleft())
        while under_way:
            yield self._result(*under_way.popleft())

    def _submit(self, chunk: list[int]) -> Future[list[Measured]]:
        assert self._executor is not None
        try:
            return self._executor.submit(_measure_chunk, chunk)
        except BrokenProcessPool:
            self._executor = self._start()
            return self._executor.submit(_measure_chunk, chunk)

    def _result(self, chunk: list[int], future: Future[list[Measured]]) -> list[Measured]:
        try:
            return future.result()
        except BrokenProcessPool:
            return self._apart(chunk)

    def _apart(self, chunk: list[int]) -> list[Measured]:
        """A chunk in a process of its own, started again without each picture that ends it."""
        ended: list[Measured] = []
        while chunk:
            watch = Watch()
            with _start(self._source, 1, watch) as executor:
                try:
                    return ended + executor.submit(_measure_chunk, chunk).result()
                except BrokenProcessPool:
                    place = watch.place
            if place is None:
                raise OpendinoError(
                    "check", "its processes are killed as they start", "free memory, or use --workers 0"
                )
            ended.append(_ended(_seen(self._source, place), watch.too_slow))
            chunk = [index for index in chunk if index != place]
        return ended


def _start(source: Source, workers: int, watch: Watch) -> ProcessPoolExecutor:
    # Fork where it is safe is faster, but the parent may hold threads (torch): spawn is right everywhere.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, _set_source, (source, watch))


def _ended(seen: Measured, slow: bool) -> Measured:
    return unreadable(seen, too_slow(seen.id) if slow else crashed(seen.id))


def _set_source(source: Source, watch: Watch | None = None) -> None:
    global _source, _watch
    _source, _watch = source, watch
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: Any) -> None:
    # A killed parent cannot stop its workers, and they would wait for the next chunk for ever.
    parent.join()
    os._exit(1)


def _measure_chunk(indices: list[int]) -> list[Measured]:
    assert _source is not None
    if _watch is None:
        return [_measure(_source, index) for index in indices]
    rows = []
    for index in indices:
        with _watch.at(index):
            rows.append(_measure(_source, index))
    return rows


def _seen(source: Source, index: int) -> Measured:
    label = source.label(index)
    return Measured(source.id(index), *source.stamp(index), label=-1 if label is None else label)


def _measure(source: Source, index: int) -> Measured:
    seen = _seen(source, index)
    try:
        data = source.load(index)
    except ImageError as error:
        return unreadable(seen, error)
    return measure(data, seen, source.reading)
