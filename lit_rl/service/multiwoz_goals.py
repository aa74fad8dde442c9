"""How far a booking dialogue of MultiWOZ came, by its goal and dialogue acts: milestones, rule, Inform, Success.

MultiWOZ (Budzianowski et al., arXiv 1810.00278) scores texts in which values are placeholders, with its own script and
database.  The figures here are our reading of the same two questions on dialogue acts; do not compare them with
published ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Slots that a booking cannot do without (gopo.md section 8).
MANDATORY = {"restaurant": ("people", "day", "time"), "hotel": ("people", "day", "stay"), "train": ("people",)}

_OFFERS = ("inform", "recommend", "select", "offerbook", "offerbooked")
_BOOKS = ("book", "offerbooked")
_ENTITY = ("name", "trainid", "car type")
_WITHOUT_ENTITIES = ("police", "hospital")  # there is one of each: to tell about it is to offer it
_UNSAID = ("", "none", "not mentioned", "?")

Database = Mapping[str, Mapping[str, Mapping[str, str]]]  # domain, entity, slot: value; all in small letters


@dataclass(frozen=True, kw_only=True, slots=True)
class Act:
    """One dialogue act of the service, in small letters, its slot spelled as goals spell it."""

    domain: str  # "general" for none
    intent: str
    slot: str
    value: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DomainGoal:
    """What the customer wants of one domain."""

    info: Mapping[str, str]  # constraints
    book: Mapping[str, str]  # of the booking; empty for none
    requested: tuple[str, ...]  # slots to be told


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchange:
    """A turn of the service, and what the customer has said by then."""

    acts: tuple[Act, ...]
    told: Mapping[str, Mapping[str, str]]  # domain, slot: value; constraints
    booking: Mapping[str, Mapping[str, str]]  # domain, slot: value; of bookings
    booked: frozenset[str]  # domains with a booking by the end of the turn


Goal = Mapping[str, DomainGoal]


def milestone_names(goal: Goal) -> list[str]:
    """``DOMAIN.told`` (all constraints), ``.offer``, ``.booked`` and ``.answered`` (all requests), where they apply."""
    names = []
    for domain, wanted in goal.items():
        applies = {"told": wanted.info, "offer": True, "booked": wanted.book, "answered": wanted.requested}
        names += [f"{domain}.{name}" for name, there in applies.items() if there]
    return names


def milestones_by_turn(goal: Goal, exchanges: Sequence[Exchange]) -> list[list[str]]:
    """Names of the milestones that each turn achieves first."""
    found: list[list[str]] = []
    open_names = milestone_names(goal)
    for turn in range(len(exchanges)):
        reached = [name for name in open_names if _reached(name, goal, exchanges[: turn + 1])]
        open_names = [name for name in open_names if name not in reached]
        found.append(reached)
    return found


def broken_booking_rules(exchanges: Sequence[Exchange]) -> list[list[str]]:
    """Of each turn, the mandatory slots of a booking it makes that were neither asked for before nor told."""
    asked: set[tuple[str, str]] = set()
    found = []
    for exchange in exchanges:
        books = {act.domain for act in exchange.acts if act.intent in _BOOKS} & MANDATORY.keys()
        found.append([
            f"{domain}: {slot} before book"
            for domain in sorted(books)
            for slot in MANDATORY[domain]
            if (domain, slot) not in asked and slot not in exchange.booking.get(domain, {})
        ])  # fmt: skip
        asked |= {(act.domain, act.slot) for act in exchange.acts if act.intent == "request"}
    return found


def inform_success(goal: Goal, exchanges: Sequence[Exchange], database: Database | None = None) -> tuple[bool, bool]:
    """Whether the right entities were offered, and whether then all that was asked for was done too.

    Inform: in every domain of the goal something was offered, and with a database the last entity offered there meets
    all constraints.  Success: Inform, all requests answered, and booked what was to be booked.

    Args:
        goal: Of the dialogue.
        exchanges: In order.
        database: See `lit_rl.service.multiwoz.read_database`; None takes any offer for a right one.
    """
    inform = all(_offered_right(domain, wanted, exchanges, database) for domain, wanted in goal.items())
    rest = [name for name in milestone_names(goal) if name.endswith((".booked", ".answered"))]
    return inform, inform and all(_reached(name, goal, exchanges) for name in rest)


def is_said(value: Any) -> bool:
    """Whether a value of a slot is one, "dontcare" included."""
    return isinstance(value, str) and value.strip().lower() not in _UNSAID


def _reached(name: str, goal: Goal, exchanges: Sequence[Exchange]) -> bool:
    domain, kind = name.split(".")
    wanted = goal[domain]
    if kind == "told":
        return wanted.info.keys() <= exchanges[-1].told.get(domain, {}).keys()
    if kind == "booked":
        return any(domain in exchange.booked for exchange in exchanges)
    if kind == "offer":
        return any(_offers(domain, exchange.acts) for exchange in exchanges)
    given = {act.slot for act in _acts_of(domain, exchanges) if act.intent != "request" and is_said(act.value)}
    return set(wanted.requested) <= given


def _offers(domain: str, acts: Iterable[Act]) -> list[str]:
    """Entities offered, by name."""
    mine = [act for act in acts if act.domain == domain and act.intent in _OFFERS]
    if domain in _WITHOUT_ENTITIES:
        return [domain] if mine else []
    return [act.value for act in mine if act.slot in _ENTITY and is_said(act.value)]


def _offered_right(domain: str, wanted: DomainGoal, exchanges: Sequence[Exchange], database: Database | None) -> bool:
    offers = [name for exchange in exchanges for name in _offers(domain, exchange.acts)]
    if not offers or database is None or domain not in database:
        return bool(offers)
    entity = database[domain].get(offers[-1])
    return entity is not None and all(_meets(slot, value, entity) for slot, value in wanted.info.items())


def _meets(slot: str, wanted: str, entity: Mapping[str, str]) -> bool:
    if wanted in ("dontcare", "don't care", "do not care"):
        return True
    if slot == "leaveat":  # times as hh:mm
        return entity.get(slot, "") >= wanted
    if slot == "arriveby":
        return entity.get(slot, "~") <= wanted
    return entity.get(slot) == wanted


def _acts_of(domain: str, exchanges: Sequence[Exchange]) -> list[Act]:
    return [act for exchange in exchanges for act in exchange.acts if act.domain == domain]
