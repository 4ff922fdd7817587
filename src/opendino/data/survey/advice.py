"""What a person should do about a survey, in words."""

from __future__ import annotations

from opendino.data.listing import PARTS
from opendino.data.survey.summary import Summary

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OTHER_COLOURS = 0.1
"""A mean or standard deviation farther than this from ImageNet's deserves its own normalisation."""
FEW_PICTURES, MANY_PICTURES = 1_000, 100_000
MOST_FOLDERS = 5
MAX_BAD = 0.01


UNEVEN = 20
"""The largest class has so many times the pictures of the smallest."""
_SPLITS = {part.decode() for part in PARTS}
_MASKS = {"mask", "masks", "ground_truth", "groundtruth", "gt", "label", "labels", "annotations", "segmentation"} | {
    *("depth", "depths", "disparity", "disparities", "disp")
}


def judge(summary: Summary, applied: bool = False, left_out: int = 0) -> str:
    """The state of the pictures in one sentence, for whoever reads nothing else.

    applied: whether nothing is to be left out that the skip list beside the pictures does not know; left_out: readable
    pictures that it does leave out.
    """
    if not summary.readable:
        return "None of these pictures can be read."
    first = []
    if summary.masks and not applied:
        first.append(f"leave out {count_masks(summary):,} masks")
    if count_bad(summary) > MAX_BAD * summary.files and not applied:
        first.append(f"leave out {_pictures(count_bad(summary))} that cannot be read")
    if _odd_folders(summary):
        first.append("choose the right folder")
    if any(one.rule.startswith("measured") for one in summary.ranges):
        first.append("declare the range of the numbers")
    if summary.mixed:
        first.append("mend labels that contradict each other")
    if not first:
        besides = f"; the skip list leaves out {left_out:,} more that can be read" if left_out else ""
        return f"Ready to use: {_pictures(summary.readable - left_out)}{besides}."
    return f"Usable after a few decisions: {', '.join(first)}."


def count_bad(summary: Summary) -> int:
    """Pictures that cannot be read."""
    return sum(named.count for named in summary.bad.values())


def count_masks(summary: Summary) -> int:
    """Masks of other pictures."""
    return sum(one.masks.count for one in summary.masks)


def next_command(summary: Summary, name: str, applied: bool) -> str:
    """What to type next, "" when nothing helps; `name` is the folder, quoted for a shell. applied: as for `judge`."""
    if not summary.readable:
        several = sorted({one.mode: one.band + 1 for one in summary.bands}.values())
        return f"opendino check {name} --bands {' '.join(map(str, range(min(several[0], 3))))}" if several else ""
    if not applied:
        return f"opendino check {name} --apply"
    if summary.readable < FEW_PICTURES:
        return f"opendino try {name} --model MODEL"
    return f"opendino pretrain {name}"


def advise(summary: Summary) -> list[str]:
    """Sentences, the most urgent first."""
    if not summary.readable:
        return [f"No picture can be read. {reason}: {cause}." for reason, cause in summary.causes.items()]
    return [
        *_broken(summary),
        *_left_out(summary),
        *_masks(summary),
        *_odd_folders(summary),
        *_reading(summary),
        *_twice(summary),
        *_recipe(summary),
        *_normalisation(summary),
    ]


def _pictures(count: int, verb: tuple[str, str] | None = None) -> str:
    """ "1 picture", "2,000 pictures"; with a verb in its two forms: "1 picture is"."""
    words = f"{count:,} picture" if count == 1 else f"{count:,} pictures"
    return words if verb is None else f"{words} {verb[count != 1]}"


def _odd_folders(summary: Summary) -> list[str]:
    """First-level folders are taken for classes; some names say that they are not."""
    names = {name.lower(): name for name in summary.classes}
    splits, masks = ([names[one] for one in sorted(kind & set(names))] for kind in (_SPLITS, _MASKS))
    said = []
    if sum(part.lower().rstrip("0123456789") in _SPLITS for part in summary.parts) > 1:
        said.append(
            f"The folders {', '.join(summary.parts)} are named as parts of a data set and not taken for classes. Give "
            f"one of them, such as DIR/{summary.parts[-1]}: else nothing is scored, and a test is learned from, too."
        )
    if splits:
        said.append(
            f"The folders {', '.join(splits)} are named as parts of a data set, yet stand where classes stand. For "
            f"scores give one of them, such as DIR/{splits[-1]}; else a test's pictures are learned from, too."
        )
    if masks and not summary.masks:
        lying = _pictures(sum(summary.classes[name] for name in masks), ("lies", "lie"))
        said.append(f"{lying} in {', '.join(masks)}: if these are masks or depth maps, leave them out.")
    return said


def _broken(summary: Summary) -> list[str]:
    said = []
    bad = count_bad(summary)
    if bad:
        share = bad / summary.files
        words = f"{bad:,} of {_pictures(summary.files)} cannot be read ({share:.2%}); the skip list leaves them out."
        if share > MAX_BAD:
            words += " Training bears ten, or 1 % of many; with the list it never meets them."
        said.append(words)
    if "unsupported" in summary.bad:
        said.append(f"Unsupported: {summary.causes['unsupported']}.")
    colours = sum(named.count for word, named in summary.suspicious.items() if word.startswith("one colour"))
    if colours:
        said.append(
            f"{_pictures(colours, ('has', 'have'))} one colour and nothing to teach; the skip list leaves them out."
        )
    return said


_HINTS = {
    "pointer of large-file storage": "run `git lfs pull` for the pictures themselves",
    "link to a folder": "--follow enters them",
    "denied": "change their rights",
    "video": "give videos to `opendino track`, or cut them into frames",
}


def _left_out(summary: Summary) -> list[str]:
    """What the scan left out and a person may want in."""
    found = [(why, hint) for why, hint in _HINTS.items() if why in summary.left_out]
    return [f"Left out: {summary.left_out[why]:,} {why}; {hint}." for why, hint in found]


def _masks(summary: Summary) -> list[str]:
    said = []
    for one in summary.masks[:MOST_FOLDERS]:
        where = f"in {one.folder or 'the folder itself'}"
        whose = f"pictures in {one.beside}" if one.beside not in ("", one.folder) else "other pictures"
        said.append(
            f"{_pictures(one.masks.count, ('is', 'are'))} masks, {where}: of few values, with the names and sizes of "
            f"{whose} (such as {one.masks.ids[0]} of {one.picture}). The skip list leaves them out."
        )
    if more := len(summary.masks) - MOST_FOLDERS:
        said += [f"Masks lie in {more} more folders."] if more > 0 else []
    return said


def _reading(summary: Summary) -> list[str]:
    said = []
    measured = [one for one in summary.ranges if one.rule.startswith("measured")]
    if measured:
        count = sum(one.count for one in measured)
        alike = {one.mode for one in measured}
        said.append(
            f"{_pictures(count, ('holds', 'hold'))} numbers without a stated range; each was stretched by itself, so "
            "equal numbers look different in different pictures. "
            + (
                f'Declare one range for all: {{"value_range": [{min(one.low for one in measured):.6g}, '
                f"{max(one.high for one in measured):.6g}]}}, or what you know better, in opendino-reading.json "
                "beside them (--value-range LOW HIGH tries it)."
                if len(alike) == 1
                else f"They are of {len(alike)} types ({', '.join(sorted(alike))}), which no one range fits: give each "
                "type a folder and an opendino-reading.json of its own."
            )
        )
    sensors = [one for one in summary.ranges if " of 16 bits" in one.rule]
    if sensors:
        count = sum(one.count for one in sensors)
        high = max(one.high for one in sensors)
        words = ", ".join(sorted({one.rule.partition(",")[0] for one in sensors}))
        said.append(
            f"{_pictures(count, ('uses', 'use'))} only the lower part of 16 bits ({words}); if one sensor made them "
            f'all, declare {{"value_range": [0, {high:g}]}} in opendino-reading.json.'
        )
    if fill := summary.suspicious.get("fill value not declared"):
        said.append(
            f"{_pictures(fill.count, ('holds', 'hold'))} a lonely extreme number, which was taken for 'not measured'; "
            'if it is, declare it as {"nodata": NUMBER} in opendino-reading.json.'
        )
    turned = sum(count for number, count in summary.orientations.items() if number != "1")
    if turned:
        said.append(
            f"{_pictures(turned, ('is', 'are'))} turned by their EXIF orientation. Boxes and masks must be "
            "of the turned picture: compare their width and height with the table of sizes."
        )
    return said


def _twice(summary: Summary) -> list[str]:
    said = []
    if summary.exact_copies:
        said.append(f"{summary.exact_copies:,} copies of others; the skip list keeps the first of each.")
    if summary.near_copies:
        said.append(
            f"{_pictures(summary.near_copies, ('looks', 'look'))} nearly like another one: proposals in the skip list, "
            "not left out, since frames of one video are alike by nature. Never let them fall on both sides of a test."
        )
    if summary.mixed:
        said.append(
            f"{_pictures(len(summary.mixed), ('stands', 'stand'))} in several classes: some labels must be wrong."
        )
    return said


def _recipe(summary: Summary) -> list[str]:
    count, short = summary.readable, summary.short_px[2]
    said = []
    if count < FEW_PICTURES:
        said.append(
            f"{_pictures(count, ('is', 'are'))} few: released weights will serve better than learning from scratch."
        )
    elif count < MANY_PICTURES:
        said.append(f"{count:,} pictures: `opendino pretrain` with the recipe small learns from them on one machine.")
    else:
        said.append(f"{count:,} pictures are enough to learn from scratch; expect hours to days on a graphics card.")
    if short < 64:
        said.append(f"The usual short side is {short} px: small pictures hold little, and crops must be small too.")
    elif short > 1024:
        said.append(f"The usual short side is {short} px: crops see a small part; cut tiles if details matter.")
    if summary.parts:
        return said
    if not summary.classes:
        said.append("No class folders: k-NN scores need labels, neighbours are shown instead.")
        return said
    low = [name for name, count in summary.classes.items() if count < 5]
    if low:
        said.append(f"Classes of fewer than 5 pictures: {len(low):,}, such as {low[0]}; scores on them mean little.")
    fewest, most = min(summary.classes.values()), max(summary.classes.values())
    if most > UNEVEN * max(fewest, 1):
        said.append(f"Classes are uneven, {fewest:,} to {most:,} pictures: look at scores by class, not at their mean.")
    return said


def _normalisation(summary: Summary) -> list[str]:
    if len(summary.mean) != 3:
        return [] if summary.mean else ["Pictures differ in their number of channels: declare bands for all."]
    if summary.grey == summary.readable:
        said = ["All pictures are grey: colour changes of the augmentation do nothing, brightness and contrast do."]
    else:
        said = []
    pairs = zip((*summary.mean, *summary.std), (*IMAGENET_MEAN, *IMAGENET_STD), strict=True)
    mean, std = (" ".join(f"{one:.3f}" for one in values) for values in (summary.mean, summary.std))
    if max(abs(ours - theirs) for ours, theirs in pairs) > OTHER_COLOURS:
        said.append(
            f"Colours differ from ImageNet's. When learning from scratch: --data.mean {mean} --data.std {std}. "
            "Released weights keep the normalisation on their card."
        )
    else:
        said.append(f"Colours are near ImageNet's (mean {mean}, std {std}): the default normalisation fits.")
    return said
