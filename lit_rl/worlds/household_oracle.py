"""Somebody who knows how to keep house: looks for things place by place, and knows only what the agent can see."""

from typing import NamedTuple

from lit_rl.worlds.household_rules import DEVICES, TREATMENTS, Act, Goal, House, Name, as_wanted, delivered


class Stage(NamedTuple):
    """A stage of a goal, the kind of thing and perhaps the place it is about, and the next act in it."""

    verb: str
    kind: str
    place: Name | None
    act: Act


def next_stage(goal: Goal, house: House) -> Stage:
    """What to do now for a goal that is not reached.

    Things are searched in the order of the places, from where the agent stands, round and round: what to do next
    depends on nothing but what is seen now.
    """
    held = house.held
    if held is None:
        return _fetch(goal, house)
    if held.kind != goal.kind:
        return Stage("drop", held.kind, None, _put_down(held, house))
    if goal.family == "look" or not as_wanted(goal, house, held):
        return Stage(goal.family, goal.kind, None, _treat(goal, held, house))
    assert goal.place is not None
    return Stage("put", goal.kind, goal.place, _reach(goal.place, house) or Act("put", held))


def _fetch(goal: Goal, house: House) -> Stage:
    done = delivered(goal, house)
    for thing in house.seen():
        if thing.kind == goal.kind and thing not in done:
            return Stage("take", goal.kind, None, Act("take", thing))
    act = Act("open", house.at) if house.at is not None and house.at in house.closed else Act("go", _following(house))
    return Stage("find", goal.kind, None, act)


def _following(house: House) -> Name:
    """The place to look at next."""
    ordinary = [place for place in house.places if place.kind not in DEVICES.values()]
    return ordinary[(ordinary.index(house.at) + 1) % len(ordinary)] if house.at in ordinary else ordinary[0]


def _reach(place: Name, house: House) -> Act | None:
    """The next act on the way to an open place; None once there."""
    if house.at != place:
        return Act("go", place)
    return Act("open", place) if place in house.closed else None


def _treat(goal: Goal, held: Name, house: House) -> Act:
    verb = TREATMENTS[goal.family]
    device = next(place for place in house.places if place.kind == DEVICES[verb])
    return _reach(device, house) or Act(verb, device if verb == "use" else held)


def _put_down(held: Name, house: House) -> Act:
    here = house.at
    ordinary = here is not None and here.kind not in DEVICES.values()
    place = here if here is not None and ordinary else _following(house)
    return _reach(place, house) or Act("put", held)
