"""Going through the units of a data set: those that cannot be read are left out by name, and not one is an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from opendino.data.sources import Skipped
from opendino.errors import DataError
from opendino.evaluation.protocol import Job

T = TypeVar("T")
V = TypeVar("V")


def read_each(
    items: Sequence[T],
    read: Callable[[T], V],
    skipped: list[Skipped],
    job: Job,
    what: str,
    *,
    name: Callable[[Any], str] = lambda item: str(item.id),
) -> Iterator[tuple[T, V]]:
    """Each item with what `read` gives for it; progress is told under `what` when the next one is asked for.

    Args:
        read: may raise DataError; then the item goes to `skipped` under its name, with the cause.
        name: by default the item's `id`.
    Raises:
        DataError: at the end, when not one could be read; it tells the first cause.
    """
    found = 0
    for done, item in enumerate(items, 1):
        try:
            value = read(item)
        except DataError as error:
            skipped.append(Skipped(name(item), error.cause))
            continue
        found += 1
        yield item, value
        job.progress(what, done, len(items))
    if not found:
        why = f" ({skipped[-1].id}: {skipped[-1].reason})" if skipped else ""
        raise DataError(what, f"none could be read{why}")
