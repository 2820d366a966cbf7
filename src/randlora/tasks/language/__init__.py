"""Language data: any common form of rows to tokens and the mask of those that are learned.

Begin reading at `task.py`. Nothing here trains: TRL's trainers take the tables as they are.
"""

from randlora.tasks.language.encoding import Encoded, encode
from randlora.tasks.language.forms import FORMS, Form, normalise, recognise
from randlora.tasks.language.loss import Loss
from randlora.tasks.language.mixture import Source, read_sources
from randlora.tasks.language.packing import keeps_apart
from randlora.tasks.language.pairs import encode_preferences
from randlora.tasks.language.pool import Pool, count_leaks, mix
from randlora.tasks.language.preview import Statistics, show_example, statistics
from randlora.tasks.language.samples import Completion, Conversation, Preference, Sample, Text

__all__ = [
    "FORMS",
    "Completion",
    "Conversation",
    "Encoded",
    "Form",
    "Loss",
    "Pool",
    "Preference",
    "Sample",
    "Source",
    "Statistics",
    "Text",
    "count_leaks",
    "encode",
    "encode_preferences",
    "keeps_apart",
    "mix",
    "normalise",
    "read_sources",
    "recognise",
    "show_example",
    "statistics",
]
