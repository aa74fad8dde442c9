"""MultiWOZ 2.x as annotated dialogues: dialogue acts become skills, goals become milestones (gopo.md section 8).

Read is the layout of ``data.json`` of MultiWOZ 2.1 (arXiv 1907.01669): by dialogue its ``goal`` and its ``log``,
customer and service in turn, each with ``text``, ``metadata`` (the belief state, of turns of the service) and
``dialog_act``.  2.0 has the acts in a file of their own.  The mapping and the milestones are our reading.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_rl.metrics.engagement import Milestones
from lit_rl.service.annotated import AnnotatedDialogue, AnnotatedTurn
from lit_rl.service.multiwoz_goals import (
    MANDATORY,
    Act,
    Database,
    DomainGoal,
    Exchange,
    Goal,
    broken_booking_rules,
    inform_success,
    is_said,
    milestone_names,
    milestones_by_turn,
)

SOP_ID = "multiwoz: request every mandatory booking slot before book"
DOMAINS = ("restaurant", "hotel", "attraction", "train", "taxi", "hospital", "police")

# The main skill of a turn with several acts comes first: what moves the dialogue on.
SKILLS = (
    "book", "no_offer", "offer_book", "select", "recommend", "request", "inform", "greet", "bye", "reqmore",
)  # fmt: skip

_SKILL_OF_INTENT = {
    "book": "book", "offerbooked": "book", "nooffer": "no_offer", "nobook": "no_offer", "offerbook": "offer_book",
    "select": "select", "recommend": "recommend", "request": "request", "inform": "inform", "greet": "greet",
    "bye": "bye", "welcome": "bye", "reqmore": "reqmore",
}  # fmt: skip

# Acts spell slots in their own way; goals as the database does.
_SLOTS = {
    "addr": "address", "arrive": "arriveby", "car": "car type", "depart": "departure", "dest": "destination",
    "fee": "entrance fee", "id": "trainid", "leave": "leaveat", "open": "openhours", "post": "postcode",
    "price": "pricerange", "ref": "reference", "ticket": "price",
}  # fmt: skip


class MultiWOZ:
    """The dialogues of a MultiWOZ file, in its order.

    A turn of the service carries out the first of its skills in the order of ``SKILLS``; all of them are its chain,
    with grades 3, 2, 1, 1 ...  ``sop_state`` names the domain that can be booked and the mandatory slots known, such
    as ``hotel:people+day``.  All milestones weigh alike, and the human who served is the expert: a milestone never
    achieved has the last turn.  Nobody annotated engagement; score with ``engagement_weight=0``.

    Args:
        path: ``data.json``.
        acts: A file with the acts of the service by dialogue and turn, as 2.0 has it; None reads them from ``path``.
        ids: A file with one id per line, such as ``testListFile.json``; None takes all dialogues.
        database: Folder with ``hotel_db.json`` and so on, for Inform; None takes any offer for a right one.

    Raises:
        ValueError: A missing file, no JSON, or a dialogue in another layout, naming file, dialogue and turn.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        acts: str | Path | None = None,
        ids: str | Path | None = None,
        database: str | Path | None = None,
    ):
        self.name = str(path)
        stored = _object(_json(path), str(path))
        chosen = list(stored) if ids is None else _lines(ids)
        missing = [id for id in chosen if id not in stored]
        if missing or not chosen:
            raise ValueError(
                f"{ids or path}: {missing[0]!r} is not in {path}." if missing else f"{path} has no dialogues."
            )
        apart = None if acts is None else _object(_json(acts), str(acts))
        self._database = None if database is None else read_database(database)
        self._goals: list[Goal] = []
        self._exchanges: list[list[Exchange]] = []
        self._dialogues: list[AnnotatedDialogue] = []
        for id in chosen:
            self._add(id, _object(stored[id], f"{path}, {id}"), _acts_apart(apart, id, str(acts)))

    def __len__(self) -> int:
        return len(self._dialogues)

    def __getitem__(self, index: int) -> AnnotatedDialogue:
        return self._dialogues[index]

    def inform_success(self, index: int) -> tuple[bool, bool]:
        """`lit_rl.service.multiwoz_goals.inform_success` of a dialogue as the human served it."""
        return inform_success(self._goals[index], self._exchanges[index], self._database)

    def _add(self, id: str, dialogue: dict[str, Any], apart: Mapping[str, Any] | None) -> None:
        where = f"{self.name}, {id}"
        goal, log = _goal(dialogue.get("goal"), where), dialogue.get("log")
        if not isinstance(log, list) or len(log) < 2:
            raise ValueError(
                f"{where}: 'log' is {str(log)[:60]}; wanted turns of customer and service, one after another."
            )
        pairs = [(_entry(log, i, where), _entry(log, i + 1, where)) for i in range(0, len(log) - 1, 2)]
        exchanges, domain = [], ""
        for number, (_, service) in enumerate(pairs, start=1):
            place = f"{where}, turn {2 * number - 1}"
            stated = service.get("dialog_act") if apart is None else apart.get(str(number))
            read = _acts(stated, domain, place)
            domain = next((act.domain for act in read if act.domain in MANDATORY), domain)
            exchanges.append(_exchange(read, _object(service.get("metadata"), f"{place}, metadata")))
        self._goals.append(goal)
        self._exchanges.append(exchanges)
        texts = [(customer["text"], service["text"]) for customer, service in pairs]
        self._dialogues.append(_annotated(id, dialogue["goal"], goal, exchanges, texts))


def read_database(folder: str | Path) -> Database:
    """Entities of each domain by name (trains by number), in small letters; police and taxi have none to choose from.

    Raises:
        ValueError: No such file in ``folder``, or an entity without a name.
    """
    found: dict[str, dict[str, dict[str, str]]] = {}
    for domain, key in {"restaurant": "name", "hotel": "name", "attraction": "name", "train": "trainid"}.items():
        file = Path(folder) / f"{domain}_db.json"
        plain = [{name.lower(): str(value).lower() for name, value in entity.items()} for entity in _json(file)]
        if not all(key in entity for entity in plain):
            raise ValueError(f"{file}: an entity has no {key!r}; wanted a list of those of MultiWOZ 2.x.")
        found[domain] = {entity[key]: entity for entity in plain}
    return found


def skills_of(acts: Sequence[Act]) -> tuple[str, ...]:
    """Skills of a turn, the main one first.

    Example:
        >>> hotel = {"domain": "hotel", "slot": "area", "value": "?"}
        >>> skills_of([Act(intent="inform", **hotel), Act(intent="request", **hotel)])
        ('request', 'inform')
    """
    named = {_SKILL_OF_INTENT[act.intent] for act in acts}
    return tuple(skill for skill in SKILLS if skill in named)


def _annotated(
    id: str, stated: Mapping[str, Any], goal: Goal, exchanges: Sequence[Exchange], texts: Sequence[tuple[str, str]]
) -> AnnotatedDialogue:
    reached, broken = milestones_by_turn(goal, exchanges), broken_booking_rules(exchanges)
    turns, domain = [], ""
    for turn, ((heard, said), exchange) in enumerate(zip(texts, exchanges, strict=True)):
        chain = skills_of(exchange.acts)
        turns.append(AnnotatedTurn(role="customer", text=heard))
        turns.append(
            AnnotatedTurn(
                role="service",
                text=said,
                skill=chain[0] if chain else None,
                chain=chain or None,
                relevance={skill: max(1, 3 - place) for place, skill in enumerate(chain)} or None,
                milestones=tuple(reached[turn]),
                sop_state=_state(domain, exchange),
                broken_rules=tuple(broken[turn]),
            )
        )
        domain = next((act.domain for act in exchange.acts if act.domain in MANDATORY), domain)
    names = milestone_names(goal)
    first = {name: turn for turn, found in enumerate(reached, start=1) for name in found}
    expert = {name: first.get(name, len(exchanges)) for name in names}
    milestones = Milestones(weights=dict.fromkeys(names, 1 / len(names)), expert_turns=expert)
    booked = [domain for domain, wanted in goal.items() if wanted.book]
    return AnnotatedDialogue(
        dialogue_id=id,
        goal={name: stated[name] for name in goal},
        turns=tuple(turns),
        ordered=bool(booked) and all(f"{domain}.booked" in first for domain in booked),
        sop_id=SOP_ID,
        milestones=milestones,
    )


def _state(domain: str, exchange: Exchange) -> str:
    known = [slot for slot in MANDATORY.get(domain, ()) if slot in exchange.booking.get(domain, {})]
    return f"{domain}:{'+'.join(known)}" if domain else "start"


# -- the layout ------------------------------------------------------------------------------------------------


def _goal(stated: Any, where: str) -> Goal:
    found = {}
    for domain, wanted in _object(stated, f"{where}, goal").items():
        if domain in DOMAINS and wanted:
            parts = _object(wanted, f"{where}, goal of {domain}")
            found[domain] = DomainGoal(
                info=_values(parts.get("info", {})),
                book=_values(parts.get("book", {})),
                requested=tuple(name.lower() for name in parts.get("reqt", [])),
            )
    if not found:
        raise ValueError(f"{where}: the goal has none of the domains {list(DOMAINS)}.")
    return found


def _acts(stated: Any, domain: str, where: str) -> tuple[Act, ...]:
    """Acts of a turn; those of "Booking" belong to the domain spoken of."""
    if stated == "No Annotation":
        return ()
    found = []
    given = _object(stated, f"{where}, dialog_act")
    spoken = [name.split("-")[0].lower() for name in given]
    domain = next((name for name in spoken if name in MANDATORY), domain)
    for name, slots in given.items():
        owner, _, intent = name.lower().partition("-")
        booking = owner == "booking"
        if intent not in _SKILL_OF_INTENT:
            raise ValueError(f"{where}: the act {name!r} is none we know; intents are {sorted(_SKILL_OF_INTENT)}.")
        intent = "offerbook" if booking and intent == "inform" else intent
        for slot, value in slots or [["none", "none"]]:
            spelled = _slot(domain if booking else owner, slot.lower())
            act_domain = domain if booking else owner
            found.append(Act(domain=act_domain, intent=intent, slot=spelled, value=str(value).lower()))
    return tuple(found)


def _slot(domain: str, slot: str) -> str:
    if domain == "train" and slot == "time":
        return "duration"
    if domain in ("train", "attraction") and slot == "price":
        return slot
    return _SLOTS.get(slot, slot)


def _exchange(acts: tuple[Act, ...], metadata: Mapping[str, Any]) -> Exchange:
    states = {domain: state for domain, state in metadata.items() if domain in DOMAINS}
    booked = {domain for domain, state in states.items() if state.get("book", {}).get("booked")}
    booked |= {act.domain for act in acts if act.intent in ("book", "offerbooked") and act.slot == "reference"}
    return Exchange(
        acts=acts,
        told={domain: _values(state.get("semi", {})) for domain, state in states.items()},
        booking={domain: _values(state.get("book", {})) for domain, state in states.items()},
        booked=frozenset(booked),
    )


def _values(slots: Mapping[str, Any]) -> dict[str, str]:
    """Slots that have a value, in small letters; flags and lists of bookings are none."""
    return {name.lower(): value.lower() for name, value in slots.items() if is_said(value)}


def _entry(log: Sequence[Any], place: int, where: str) -> dict[str, Any]:
    entry = _object(log[place], f"{where}, turn {place}")
    if not isinstance(entry.get("text"), str):
        raise ValueError(f"{where}, turn {place}: there is no 'text' in it; it has {sorted(entry)}.")
    return entry


def _acts_apart(stored: Mapping[str, Any] | None, id: str, name: str) -> Mapping[str, Any] | None:
    if stored is None:
        return None
    key = id if id in stored else id.removesuffix(".json")
    return _object(stored.get(key), f"{name}, {key}")


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: it is {str(value)[:60]}; wanted an object with names, as MultiWOZ 2.1 has it.")
    return value


def _json(path: str | Path) -> Any:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"There is no file {path}; give one of a MultiWOZ 2.x download.")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def _lines(path: str | Path) -> list[str]:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"There is no file {path}; give one with an id per line.")
    return file.read_text(encoding="utf-8").split()
