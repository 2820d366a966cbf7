"""Requests for a table, a room or a ride in everyday words, and the same as JSON: made here, all different."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from randlora.files import write_atomically

SYSTEM = "Turn the request into JSON."

_PLACES = (
    "Luigi's",
    "the Blue Door",
    "Chez Marie",
    "Hotel Astoria",
    "the airport",
    "Harbour Inn",
    "Sakura",
    "the museum",
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
_THINGS = {
    "table": ("a table at {place}", "something to eat at {place}", "dinner at {place}"),
    "room": ("a room at {place}", "a bed at {place}", "somewhere to sleep at {place}"),
    "ride": ("a taxi to {place}", "a ride to {place}", "a car to {place}"),
}
_ACTIONS = {
    "book": ("Please book", "I need", "Could you get me", "We would like", "Can I have"),
    "cancel": ("Please cancel", "We no longer need", "Forget about", "I don't want"),
}
_ORDERS = (
    "{action} {thing} for {people} {when}.",
    "{action} {thing} {when}, {people} of us.",
    "{when_first}: {action_lower} {thing} for {people}.",
    "For {people}, {when}: {action_lower} {thing}!",
)


@dataclass(frozen=True)
class Booking:
    """A request and what it means.

    Attributes:
        words: The request.
        meaning: The JSON that stands for it, on one line.
    """

    words: str
    meaning: str

    def messages(self) -> list[dict[str, str]]:
        """The conversation: what is asked, and the answer."""
        return [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": self.words},
            {"role": "assistant", "content": self.meaning},
        ]


def make_bookings(count: int, seed: int) -> list[Booking]:
    """Requests that are all different, drawn by the seed.

    Args:
        count: How many.
        seed: The same seed makes the same requests everywhere.
    """
    draw = random.Random(seed)  # noqa: S311 - repeatable, nothing secret
    found: dict[str, Booking] = {}
    while len(found) < count:
        booking = _one(draw)
        found.setdefault(booking.words, booking)
    return list(found.values())


def write_bookings(folder: Path, *, train: int, test: int, seed: int = 0) -> tuple[Path, Path]:
    """Write `train.jsonl` and `test.jsonl`, which have no request in common.

    Args:
        folder: Where to; it is made.
        train: Number of requests to train on.
        test: Number of requests to test on.
        seed: Of the draw.

    Returns:
        The two files.
    """
    made = make_bookings(train + test, seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "train.jsonl", folder / "test.jsonl"
    for path, part in zip(paths, (made[:train], made[train:]), strict=True):
        lines = [json.dumps({"messages": booking.messages()}) for booking in part]
        write_atomically(path, "\n".join(lines) + "\n")
    return paths


def _one(draw: random.Random) -> Booking:
    kind, action = draw.choice(list(_THINGS)), draw.choice(list(_ACTIONS))
    place, day, hour, people = draw.choice(_PLACES), draw.choice(_DAYS), draw.randint(1, 11), draw.randint(1, 8)
    evening = draw.random() < 0.5
    clock = draw.choice((f"at {hour} {'pm' if evening else 'am'}", f"at {hour + 12 * evening}:00"))
    when = draw.choice((f"on {day} {clock}", f"{clock} on {day}"))
    verb = draw.choice(_ACTIONS[action])
    words = draw.choice(_ORDERS).format(
        action=verb,
        action_lower=verb if verb.startswith("I ") else verb[0].lower() + verb[1:],
        thing=draw.choice(_THINGS[kind]).format(place=place),
        people=draw.choice((str(people), _NUMBERS[people - 1])),
        when=when,
        when_first=when[0].upper() + when[1:],
    )
    meaning = {
        "do": action,
        "what": kind,
        "where": place,
        "day": day[:3],
        "hour": hour + 12 * evening,
        "people": people,
    }
    return Booking(words, json.dumps(meaning))
