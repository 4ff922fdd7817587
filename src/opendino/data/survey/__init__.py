"""A survey of pictures: each is measured once, kept on disk, and summed up in words; the room behind `opendino check`.

`measure` looks at one picture, `records` keeps what was seen (SQLite), `take` goes over a source and goes on where it
was killed, `duplicates` finds equal and nearly equal pictures, `summary` adds up, `advice` says what to do.
"""

from opendino.data.survey.advice import advise, judge, next_command
from opendino.data.survey.records import Records
from opendino.data.survey.summary import CHOSEN, Summary, near_groups, propose_skips, summarise
from opendino.data.survey.take import take_survey

__all__ = [
    "CHOSEN",
    "Records",
    "Summary",
    "advise",
    "judge",
    "near_groups",
    "next_command",
    "propose_skips",
    "summarise",
    "take_survey",
]
