"""The rules of the household: things, places, what can be done with them, and when a goal is reached."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Family = Literal["pick", "look", "clean", "heat", "cool", "pick_two"]
Verb = Literal["go", "open", "close", "take", "put", "clean", "heat", "cool", "use"]

FAMILIES: tuple[Family, ...] = ("pick", "look", "clean", "heat", "cool", "pick_two")
DEVICES: Mapping[Verb, str] = {"clean": "sink", "heat": "microwave", "cool": "fridge", "use": "lamp"}
TREATMENTS: Mapping[Family, Verb] = {"look": "use", "clean": "clean", "heat": "heat", "cool": "cool"}
PLACES = ("desk", "shelf", "table", "counter", "sofa", "bed", "drawer", "cabinet", "safe", "dresser")
OPENABLE = frozenset({"drawer", "cabinet", "safe", "dresser"})
KINDS: Mapping[Family, tuple[str, ...]] = {
    "pick": ("pen", "book", "key", "mug", "apple", "plate", "egg", "bread", "cup", "watch"),
    "look": ("pen", "book", "key", "mug", "cup", "watch"),
    "clean": ("mug", "apple", "plate", "cup"),
    "heat": ("mug", "apple", "egg", "bread"),
    "cool": ("mug", "apple", "egg", "bread", "cup"),
    "pick_two": ("pen", "book", "key", "mug", "apple", "plate", "egg", "bread", "cup", "watch"),
}


@dataclass(frozen=True, slots=True)
class Name:
    """A thing or a place: its kind, and its number among those of its kind, from 1 on."""

    kind: str
    number: int = 1


@dataclass(frozen=True, slots=True)
class Act:
    """Something that can be done; ``name`` is a thing, or with "go", "open", "close" and "use" a place."""

    verb: Verb
    name: Name


@dataclass(frozen=True, slots=True)
class Goal:
    """One of ALFWorld's six kinds of task about things of one kind; ``place`` is where they have to be, if anywhere."""

    family: Family
    kind: str
    place: Name | None

    @property
    def count(self) -> int:
        return 2 if self.family == "pick_two" else 1


@dataclass(slots=True)
class House:
    """Where everything is.

    The agent stands at a place, or at first nowhere; it holds one thing at most.  A closed place shows nothing.
    """

    places: tuple[Name, ...]  # devices last
    things: dict[Name, Name | None]  # thing -> its place, None in the hand; in the order in which they are seen
    openable: frozenset[Name] = frozenset()
    closed: set[Name] = field(default_factory=set)
    at: Name | None = None
    treated: dict[Name, str] = field(default_factory=dict)  # thing -> "clean", "heat" or "cool", the last of them

    def copy(self) -> "House":
        """A house of its own, as this one is now."""
        return replace(self, things=dict(self.things), closed=set(self.closed), treated=dict(self.treated))

    @property
    def held(self) -> Name | None:
        return next((thing for thing, place in self.things.items() if place is None), None)

    def seen(self) -> list[Name]:
        """Things in plain view."""
        if self.at is None or self.at in self.closed:
            return []
        return [thing for thing, place in self.things.items() if place == self.at]

    def possible(self) -> Iterator[Act]:
        """All acts that would change something."""
        for place in self.places:
            if place != self.at:
                yield Act("go", place)
        if (at := self.at) is None:
            return
        if at in self.openable:
            yield Act("open" if at in self.closed else "close", at)
        held = self.held
        if held is None:
            yield from (Act("take", thing) for thing in self.seen())
        elif at.kind in DEVICES.values():
            for verb in ("clean", "heat", "cool"):
                if DEVICES[verb] == at.kind and self.treated.get(held) != verb:
                    yield Act(verb, held)
        elif at not in self.closed:
            yield Act("put", held)
        if at.kind == DEVICES["use"]:
            yield Act("use", at)

    def apply(self, act: Act) -> None:
        """Do one of `possible`."""
        if act.verb == "go":
            self.at = act.name
        elif act.verb == "open":
            self.closed.discard(act.name)
        elif act.verb == "close":
            self.closed.add(act.name)
        elif act.verb == "take":
            self.things[act.name] = None
        elif act.verb == "put":
            self.things[act.name] = self.at
        elif act.verb != "use":
            self.treated[act.name] = act.verb


def reached(goal: Goal, house: House, act: Act) -> bool:
    """Whether a goal is reached, now that ``act`` was done."""
    if goal.family == "look":
        held = house.held
        return act.verb == "use" and held is not None and held.kind == goal.kind
    return len(delivered(goal, house)) >= goal.count


def delivered(goal: Goal, house: House) -> list[Name]:
    """Things that are where a goal wants them, as it wants them."""
    return [
        thing
        for thing, place in house.things.items()
        if place is not None and place == goal.place and thing.kind == goal.kind and as_wanted(goal, house, thing)
    ]


def as_wanted(goal: Goal, house: House, thing: Name) -> bool:
    """Whether a thing was treated as a goal wants it."""
    return goal.family not in ("clean", "heat", "cool") or house.treated.get(thing) == goal.family
