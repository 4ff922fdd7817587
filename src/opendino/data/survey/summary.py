"""A survey added up: counts, sizes, ranges, colours, what is broken or suspicious, and what is there twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from opendino.data.beside import SkipEntry
from opendino.data.sources import Source
from opendino.data.survey.duplicates import group_pairs, near_pairs
from opendino.data.survey.records import Records

MAX_NAMED = 100
"""Names kept of each reason, suspicion and kind of group; counts are exact."""
THUMBNAIL = 4
"""A picture with a short side below 1/4 of the median is taken for a thumbnail."""
ONE_COLOUR = ("one colour", "one colour: white", "one colour: black")


@dataclass(frozen=True)
class Named:
    """How many pictures, and the first of their ids."""

    count: int
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """Pictures whose numbers became 8-bit by one rule: lowest black, highest white, and the number of them."""

    rule: str
    mode: str
    count: int
    low: float
    high: float


@dataclass(frozen=True)
class Band:
    """Stored numbers of one band of the pictures of a mode: the smallest and largest of all, and the means of each
    picture's 1st, 50th and 99th percentile."""

    mode: str
    band: int
    count: int
    smallest: float
    low: float
    middle: float
    high: float
    largest: float


@dataclass(frozen=True)
class Masks:
    """Masks in one folder ("" is the top) of the pictures of another one, or of the same; picture: whose mask the first
    is."""

    folder: str
    beside: str
    masks: Named
    picture: str


@dataclass(frozen=True)
class Summary:
    """What a survey says. Ids stand in lists of at most MAX_NAMED; all counts are exact.

    files, readable: numbers of pictures, masks not among the readable ones. left_out: by the scan, with reasons.
    kinds, modes, bits, orientations, frames, notes: numbers of readable pictures. short_px, long_px: quantiles (0, 25,
    50, 75, 100 %) of the sides.
    ranges: how numbers beyond 8 bits were brought to 8. bands: what these numbers are, also where bands must be named
    before a picture can be made of them. mean, std: of each channel in [0, 1], each picture weighing the same, () when
    pictures differ in channels. grey: pictures whose channels are equal.
    bad: by reason. masks: by folder. causes: the first cause of each reason. suspicious: by suspicion. exact, near:
    groups of ids of equal files, and of nearly equal pictures. mixed: groups of equal files in several classes.
    classes: name -> count. parts: as in `sources.Source`.
    """

    files: int
    readable: int
    bytes: int
    left_out: Mapping[str, int]
    kinds: Mapping[str, int]
    modes: Mapping[str, int]
    bits: Mapping[str, int]
    orientations: Mapping[str, int]
    many_frames: int
    notes: Mapping[str, int]
    short_px: tuple[int, ...]
    long_px: tuple[int, ...]
    ranges: tuple[Range, ...]
    bands: tuple[Band, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    grey: int
    bad: Mapping[str, Named]
    masks: tuple[Masks, ...]
    causes: Mapping[str, str]
    suspicious: Mapping[str, Named]
    exact_copies: int
    exact: tuple[tuple[str, ...], ...]
    near_copies: int
    near: tuple[tuple[str, ...], ...]
    mixed: tuple[tuple[str, ...], ...]
    classes: Mapping[str, int]
    parts: tuple[str, ...]


def summarise(source: Source, records: Records, near: Sequence[tuple[str, ...]]) -> Summary:
    """Add up the records of a source; `near` is from `near_groups`."""
    mean, std = _colour(records)
    short, long = (_quantiles(records, f"{function}(height, width)") for function in ("min", "max"))
    reasons = [reason for (reason,) in _distinct(records, "reason") if reason not in ("", "mask")]
    bad = {reason: _named(records, "reason = ?", reason) for reason in reasons}
    exact, copies, mixed = _exact(records)
    return Summary(
        files=len(records),
        readable=_count(records, "reason = ''"),
        bytes=records.query("SELECT coalesce(sum(size), 0) FROM pictures")[0][0],
        left_out=dict(sorted(source.skip_counts.items())),
        kinds=_counts(records, "kind"),
        modes=_counts(records, "mode"),
        bits=_counts(records, "bits"),
        orientations=_counts(records, "orientation"),
        many_frames=_count(records, "reason = '' AND frames > 1"),
        notes=_notes(records),
        short_px=short,
        long_px=long,
        ranges=_ranges(records),
        bands=_bands(records),
        mean=mean,
        std=std,
        grey=_count(records, "reason = '' AND grey"),
        bad=bad,
        masks=_masks(records),
        causes={reason: next(records.rows("reason = ?", reason, limit=1)).cause for reason in bad},
        suspicious=_suspicious(records, short),
        exact_copies=copies,
        exact=exact,
        near_copies=sum(len(group) - 1 for group in near),
        near=tuple(near[:MAX_NAMED]),
        mixed=mixed,
        classes=_classes(source, records),
        parts=source.parts,
    )


CHOSEN = ("one colour", "duplicate")
"""Reasons of pictures that can be read and are proposed to be left out."""


def propose_skips(records: Records, near: Sequence[tuple[str, ...]]) -> Iterator[SkipEntry]:
    """What to leave out: unreadable pictures, pictures of one colour, and all but the first of equal files; nearly
    equal and other suspicious ones as proposals that are not active.
    """
    for row in records.rows("reason != ''"):
        yield SkipEntry(row.id, row.reason, row.cause)
    first: dict[bytes, str] = {}
    chosen = f"reason = '' AND (suspicions != '[]' OR digest IN (SELECT digest FROM pictures {_TWICE}))"
    for id, digest, text in records.stream(f"SELECT id, digest, suspicions FROM pictures WHERE {chosen} ORDER BY id"):
        suspicions = json.loads(text)
        colour = next((one for one in suspicions if one in ONE_COLOUR), None)
        if colour:
            yield SkipEntry(id, CHOSEN[0], colour)
        elif first.setdefault(digest, id) != id:
            yield SkipEntry(id, CHOSEN[1], f"the same file as {first[digest]}")
        elif suspicions:
            yield SkipEntry(id, "suspicious", ", ".join(suspicions), active=False)
    for group in near:
        for id in group[1:]:
            yield SkipEntry(id, "near duplicate", f"looks like {group[0]}", active=False)


_TWICE = "WHERE reason = '' GROUP BY digest HAVING count(*) > 1"


def _count(records: Records, where: str) -> int:
    return int(records.query(f"SELECT count(*) FROM pictures WHERE {where}")[0][0])


def _distinct(records: Records, field: str) -> list[tuple[str]]:
    return records.query(f"SELECT DISTINCT {field} FROM pictures ORDER BY {field}")


def _counts(records: Records, field: str) -> dict[str, int]:
    rows = records.query(
        f"SELECT {field}, count(*) FROM pictures WHERE reason = '' GROUP BY {field} ORDER BY 2 DESC, 1"
    )
    return {str(value): count for value, count in rows}


def _named(records: Records, where: str, *values: object) -> Named:
    count = int(records.query(f"SELECT count(*) FROM pictures WHERE {where}", *values)[0][0])
    return Named(count, tuple(row.id for row in records.rows(where, *values, limit=MAX_NAMED)))


def _quantiles(records: Records, side: str) -> tuple[int, ...]:
    count = _count(records, "reason = ''")
    if not count:
        return ()
    query = f"SELECT {side} FROM pictures WHERE reason = '' ORDER BY 1 LIMIT 1 OFFSET ?"
    return tuple(int(records.query(query, round(share * (count - 1)))[0][0]) for share in (0, 0.25, 0.5, 0.75, 1))


def _colour(records: Records) -> tuple[tuple[float, ...], tuple[float, ...]]:
    total = square = np.zeros(0)
    count = 0
    for mean_text, square_text in records.stream("SELECT mean, square FROM pictures WHERE reason = '' ORDER BY id"):
        mean, squares = np.array(json.loads(mean_text)), np.array(json.loads(square_text))
        if not count:
            total, square = np.zeros_like(mean), np.zeros_like(mean)
        if mean.shape != total.shape:
            return (), ()
        total, square, count = total + mean, square + squares, count + 1
    if not count:
        return (), ()
    std = np.sqrt(np.maximum(square / count - (total / count) ** 2, 0))
    return tuple(float(one) for one in total / count), tuple(float(one) for one in std)


def _ranges(records: Records) -> tuple[Range, ...]:
    rows = records.query(
        "SELECT rule, mode, count(*), min(low), max(high) FROM pictures "
        "WHERE reason = '' AND rule NOT IN ('', '8 bits', '1 bit') GROUP BY rule, mode ORDER BY 3 DESC, 1, 2"
    )
    return tuple(Range(*row) for row in rows)


def _bands(records: Records) -> tuple[Band, ...]:
    found: dict[tuple[str, int], tuple[int, np.ndarray]] = {}
    for mode, text in records.stream("SELECT mode, bands FROM pictures WHERE bands != '[]' ORDER BY id"):
        for band, numbers in enumerate(json.loads(text)):
            row = np.array(numbers)
            count, known = found.get((mode, band), (0, row * [1, 0, 0, 0, 1]))
            ends = (min(known[0], row[0]), max(known[-1], row[-1]))
            found[mode, band] = count + 1, np.array([ends[0], *(known[1:-1] + row[1:-1]), ends[1]])
    return tuple(
        Band(mode, band, count, *(float(one) for one in row / [1, count, count, count, 1]))
        for (mode, band), (count, row) in sorted(found.items())
    )


def _masks(records: Records) -> tuple[Masks, ...]:
    """By folder of the masks and of their pictures."""
    first = len("mask of ") + 1
    rows = records.query(
        f"SELECT folder(id), folder(substr(cause, {first})), count(*), min(id), substr(cause, {first}) FROM pictures "
        "WHERE reason = 'mask' GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT ?",
        MAX_NAMED,
    )
    found = []
    for folder, beside, count, _, picture in rows:
        ids = records.rows("reason = 'mask' AND folder(id) = ?", folder, limit=MAX_NAMED)
        found.append(Masks(folder, beside, Named(count, tuple(row.id for row in ids)), picture))
    return tuple(found)


def _notes(records: Records) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for (text,) in records.stream("SELECT notes FROM pictures WHERE reason = '' AND notes != '[]'"):
        counted.update(json.loads(text))
    return dict(sorted(counted.items()))


def _suspicious(records: Records, short: tuple[int, ...]) -> dict[str, Named]:
    counts: Counter[str] = Counter()
    names: dict[str, list[str]] = {}
    where = "reason = '' AND suspicions != '[]'"
    for id, text in records.stream(f"SELECT id, suspicions FROM pictures WHERE {where} ORDER BY id"):
        for word in json.loads(text):
            counts[word] += 1
            if counts[word] <= MAX_NAMED:
                names.setdefault(word, []).append(id)
    found = {word: Named(counts[word], tuple(names[word])) for word in sorted(counts)}
    if short:
        thumbnails = _named(records, f"reason = '' AND min(height, width) * {THUMBNAIL} < ?", short[2])
        if thumbnails.count:
            found["thumbnail (below a quarter of the usual size)"] = thumbnails
    return found


def _exact(records: Records) -> tuple[tuple[tuple[str, ...], ...], int, tuple[tuple[str, ...], ...]]:
    """Groups of equal files, the number of copies beyond the first of each, and groups that lie in several classes."""
    sizes = records.query(f"SELECT coalesce(sum(n) - count(*), 0) FROM (SELECT count(*) AS n FROM pictures {_TWICE})")
    groups = []
    query = f"SELECT digest FROM pictures {_TWICE} ORDER BY min(id) LIMIT {MAX_NAMED}"
    for (digest,) in records.query(query):
        rows = records.rows("digest = ? AND reason = ''", digest, limit=MAX_NAMED)
        groups.append(tuple(row.id for row in rows))
    mixed = []
    query = (
        "SELECT digest FROM pictures WHERE reason = '' AND label >= 0 GROUP BY digest "
        f"HAVING count(DISTINCT label) > 1 ORDER BY min(id) LIMIT {MAX_NAMED}"
    )
    for (digest,) in records.query(query):
        rows = records.rows("digest = ? AND reason = ''", digest, limit=MAX_NAMED)
        mixed.append(tuple(row.id for row in rows))
    return tuple(groups), int(sizes[0][0]), tuple(mixed)


def near_groups(records: Records) -> list[tuple[str, ...]]:
    """Groups of ids of nearly equal pictures; of equal files only the first takes part."""
    where = "FROM pictures WHERE reason = '' AND length(hash) > 0 GROUP BY digest ORDER BY 1"
    count = len(records)
    hashes, ids = np.zeros((count, 32), np.uint8), []
    for place, (id, hash) in enumerate(records.stream(f"SELECT min(id), hash {where}")):
        hashes[place] = np.frombuffer(hash, np.uint8)
        ids.append(id)
    groups = group_pairs(list(near_pairs(hashes[: len(ids)])))
    return [tuple(ids[one] for one in group) for group in groups]


def _classes(source: Source, records: Records) -> dict[str, int]:
    """Classes that hold masks alone are none; nor is a single one that then is left."""
    counts = dict(records.query("SELECT label, count(*) FROM pictures WHERE reason = '' GROUP BY label"))
    masks = {label for (label,) in records.query("SELECT DISTINCT label FROM pictures WHERE reason = 'mask'")}
    found = {
        name: counts.get(number, 0)
        for number, name in enumerate(source.classes)
        if number in counts or number not in masks
    }
    return found if len(found) > 1 else {}
