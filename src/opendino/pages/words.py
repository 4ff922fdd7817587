"""How pages say lengths of time and units, and which colour a verdict has."""

TONES = {
    "learning": "good",
    "past best": "warn",
    "no gain": "warn",
    "collapsed": "bad",
    "uniform": "bad",
    "broken": "bad",
}
"""Style class of a verdict by its kind; all others are neutral."""


def duration(seconds: float) -> str:
    """Seconds in words: 40 s, 12 min, 3 h 20 min, 2 days 4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = round(minutes / 60)
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} days {hours % 24} h"


def unit_words(unit: str) -> str:
    """ "images", "queries"."""
    return f"{unit[:-1]}ies" if unit.endswith("y") else f"{unit}s"
