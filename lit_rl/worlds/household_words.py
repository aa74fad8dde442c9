"""How the household speaks: in ALFWorld's manner, or in few words for tiny models."""

from dataclasses import dataclass
from typing import Literal

from lit_rl.worlds.household_rules import Act, Goal, House, Name

Wording = Literal["full", "short"]

_LEARNED = {"clean": "clean", "heat": "hot", "cool": "cold"}
_GOALS = {
    "pick": "put {a_kind} in {place}",
    "look": "look at {a_kind} under the lamp",
    "clean": "put a clean {kind} in {place}",
    "heat": "put a hot {kind} in {place}",
    "cool": "put a cold {kind} in {place}",
    "pick_two": "put two {kind} in {place}",
}
_SHORT_GOALS = {
    "pick": "put {kind} {place}",
    "look": "look {kind}",
    "clean": "clean {kind} {place}",
    "heat": "heat {kind} {place}",
    "cool": "cool {kind} {place}",
    "pick_two": "two {kind} {place}",
}
_ACTS = {
    "go": "go to {name}",
    "open": "open {name}",
    "close": "close {name}",
    "take": "take {name} from {at}",
    "put": "move {name} to {at}",
    "clean": "clean {name} with {at}",
    "heat": "heat {name} with {at}",
    "cool": "cool {name} with {at}",
    "use": "use {name}",
}
_EVENTS = {
    "go": "You arrive at {name}.",
    "open": "You open {name}.",
    "close": "You close {name}.",
    "take": "You pick up {name} from {at}.",
    "put": "You move {name} to {at}.",
    "clean": "You clean {name} using {at}.",
    "heat": "You heat {name} using {at}.",
    "cool": "You cool {name} using {at}.",
    "use": "You turn on {name}.",
}
_STAGES = {
    "find": "find {a_kind}",
    "take": "take the {kind}",
    "look": "look at the {kind} under the lamp",
    "clean": "clean the {kind}",
    "heat": "heat the {kind}",
    "cool": "cool the {kind}",
    "put": "put the {kind} in {place}",
    "drop": "put down the {kind}",
}
NOTHING, SHORT_NOTHING = "Nothing happens.", "nothing happens"


@dataclass(frozen=True, slots=True)
class FullWords:
    """Sentences, with a number behind every name."""

    def task(self, goals: tuple[Goal, ...]) -> str:
        """What is to be done."""
        return " Then ".join(
            _GOALS[goal.family].format(kind=goal.kind, a_kind=_a(goal.kind), place=_numbered(goal.place)) + "."
            for goal in goals
        )

    def act(self, act: Act, at: Name | None) -> str:
        return _ACTS[act.verb].format(name=_numbered(act.name), at=_numbered(at))

    def seen(self, house: House, act: Act | None, begun: bool, done: int, goals: int) -> str:
        return " ".join(filter(None, [self._event(house, act, begun), self._view(house), _progress(done, goals)]))

    def stage(self, verb: str, kind: str, place: Name | None) -> str:
        return _STAGES[verb].format(kind=kind, a_kind=_a(kind), place=_numbered(place))

    def _event(self, house: House, act: Act | None, begun: bool) -> str:
        if not begun:
            places = ", ".join(_numbered(place) for place in house.places)
            return f"You are in the middle of a room. Looking around, you see {places}."
        if act is None:
            return NOTHING
        return _EVENTS[act.verb].format(name=_numbered(act.name), at=_numbered(house.at))

    def _view(self, house: House) -> str:
        held = house.held
        hand = f"You hold {_described(held, house)}." if held else "You hold nothing."
        if house.at is None:
            return hand
        if house.at in house.closed:
            return f"{_numbered(house.at)} is closed. {hand}"
        things = ", ".join(_described(thing, house) for thing in house.seen()) or "nothing"
        return f"At {_numbered(house.at)} you see {things}. {hand}"


@dataclass(frozen=True, slots=True)
class ShortWords:
    """Single words; there is then one place of a kind, and things of a kind that look alike are not told apart."""

    def task(self, goals: tuple[Goal, ...]) -> str:
        places = [goal.place.kind if goal.place else "" for goal in goals]
        return " then ".join(
            _SHORT_GOALS[goal.family].format(kind=goal.kind, place=place)
            for goal, place in zip(goals, places, strict=True)
        )

    def act(self, act: Act, at: Name | None) -> str:
        return f"{act.verb} {act.name.kind}"

    def seen(self, house: House, act: Act | None, begun: bool, done: int, goals: int) -> str:
        parts = [SHORT_NOTHING] if begun and act is None else []
        if house.at is not None:
            things = [_short(thing, house) for thing in house.seen()]
            parts += ["at", house.at.kind, *(["closed"] if house.at in house.closed else things)]
        parts += ["hold", _short(house.held, house) if house.held else "nothing"]
        return " ".join([*parts, *(["done", str(done)] if goals > 1 else [])])

    def stage(self, verb: str, kind: str, place: Name | None) -> str:
        return f"{verb} {kind}"


def _numbered(name: Name | None) -> str:
    return f"{name.kind} {name.number}" if name else "nowhere"


def _described(thing: Name, house: House) -> str:
    state = house.treated.get(thing)
    return f"a {_LEARNED[state]} {_numbered(thing)}" if state else _a(_numbered(thing))


def _a(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _short(thing: Name, house: House) -> str:
    state = house.treated.get(thing)
    return f"{_LEARNED[state]} {thing.kind}" if state else thing.kind


def _progress(done: int, goals: int) -> str:
    return f"{done} of {goals} tasks are done." if goals > 1 else ""
