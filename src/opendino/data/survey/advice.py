"""What a person should do about a survey, in words."""

from __future__ import annotations

from opendino.data.survey.summary import Summary

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OTHER_COLOURS = 0.1
"""A mean or standard deviation farther than this from ImageNet's deserves its own normalisation."""
FEW_PICTURES, MANY_PICTURES = 1_000, 100_000
MAX_BAD = 0.01


def advise(summary: Summary) -> list[str]:
    """Sentences, the most urgent first."""
    if not summary.readable:
        return ["No picture can be read. Look at the reasons below before anything else."]
    return [
        *_broken(summary),
        *_reading(summary),
        *_twice(summary),
        *_recipe(summary),
        *_normalisation(summary),
    ]


def _broken(summary: Summary) -> list[str]:
    said = []
    bad = sum(named.count for named in summary.bad.values())
    if bad:
        share = bad / summary.files
        words = f"{bad:,} of {summary.files:,} pictures cannot be read ({share:.2%}); the skip list leaves them out."
        if share > MAX_BAD:
            words += " Training bears ten, or 1 % of many; with the list it never meets them."
        said.append(words)
    if "unsupported" in summary.bad:
        said.append(f"Unsupported: {summary.causes['unsupported']}.")
    colours = sum(named.count for word, named in summary.suspicious.items() if word.startswith("one colour"))
    if colours:
        said.append(f"{colours:,} pictures are of one colour and teach nothing; the skip list leaves them out.")
    return said


def _reading(summary: Summary) -> list[str]:
    said = []
    measured = [one for one in summary.ranges if one.rule.startswith("measured")]
    if measured:
        count = sum(one.count for one in measured)
        low, high = min(one.low for one in measured), max(one.high for one in measured)
        said.append(
            f"{count:,} pictures hold numbers without a stated range; each was stretched by itself, so equal numbers "
            "look different in different pictures. Declare one range for all, beside them in opendino-reading.json: "
            f'{{"value_range": [{low:.6g}, {high:.6g}]}}, or what you know better.'
        )
    sensors = [one for one in summary.ranges if " of 16 bits" in one.rule]
    if sensors:
        count = sum(one.count for one in sensors)
        high = max(one.high for one in sensors)
        words = ", ".join(sorted({one.rule.partition(",")[0] for one in sensors}))
        said.append(
            f"{count:,} pictures use only the lower part of 16 bits ({words}); if one sensor made them all, declare "
            f'{{"value_range": [0, {high:g}]}} in opendino-reading.json.'
        )
    if fill := summary.suspicious.get("fill value not declared"):
        said.append(
            f"{fill.count:,} pictures hold a lonely extreme number, which was taken for 'not measured'; if it is, "
            'declare it as {"nodata": NUMBER} in opendino-reading.json.'
        )
    turned = sum(count for number, count in summary.orientations.items() if number != "1")
    if turned:
        said.append(
            f"{turned:,} pictures are turned by their EXIF orientation. Boxes and masks drawn on them must be of the "
            "turned picture: compare their width and height with the table of sizes."
        )
    return said


def _twice(summary: Summary) -> list[str]:
    said = []
    if summary.exact_copies:
        said.append(f"{summary.exact_copies:,} files are copies of others; the skip list keeps the first of each.")
    if summary.near_copies:
        said.append(
            f"{summary.near_copies:,} pictures look nearly like another one. They are proposals in the skip list, not "
            "left out: frames of one video are alike by nature. Never let them fall on both sides of a test."
        )
    if summary.mixed:
        said.append(f"{len(summary.mixed):,} pictures stand in several classes: some of these labels must be wrong.")
    return said


def _recipe(summary: Summary) -> list[str]:
    count, short = summary.readable, summary.short_px[2]
    said = []
    if count < FEW_PICTURES:
        said.append(f"{count:,} pictures are few: released weights will serve better than learning from scratch.")
    elif count < MANY_PICTURES:
        said.append(f"{count:,} pictures: `opendino pretrain` with the recipe small learns from them on one machine.")
    else:
        said.append(f"{count:,} pictures are enough to learn from scratch; expect hours to days on a graphics card.")
    if short < 64:
        said.append(f"The usual short side is {short} px: small pictures hold little, and crops must be small too.")
    elif short > 1024:
        said.append(f"The usual short side is {short} px: crops see a small part; cut tiles if details matter.")
    if not summary.classes:
        said.append("No class folders: k-NN scores need labels, neighbours are shown instead.")
    elif min(summary.classes.values()) < 5:
        low = [name for name, count in summary.classes.items() if count < 5]
        said.append(f"{len(low)} classes have fewer than 5 pictures: scores on them mean little.")
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
