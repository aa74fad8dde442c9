"""Listeners continue the beginnings of what a speaker thought: who agrees with the speaker's own answer."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from lit_rl.listeners.base import Continuation, Listener, ListenRequest
from lit_rl.listeners.leaks import LeakSearch, gives_away, without_tags
from lit_rl.listeners.pool import ListenerPool, check_listener_fractions
from lit_rl.listeners.spoken import Spoken
from lit_rl.stream_keys import stream_key
from lit_rl.verification.labels import extract_label, same_label
from lit_rl.verification.traces import FRACTIONS, UNITS, ShortTrace, ThinkTags, Trace, Unit, prefixes, split_trace

Unclosed = Literal["none", "parse"]


@dataclass(frozen=True, kw_only=True)
class ExecutionRules:
    """How replies are cut, continued and compared; see `lit_rl.callbacks.ListenerExecution`."""

    fractions: Sequence[float] = FRACTIONS
    unit: Unit = "line"
    short_trace: ShortTrace = "refine"
    unclosed: Unclosed = "none"
    empty_prefix: bool = True
    leak_search: LeakSearch = "parser"
    tags: ThinkTags = field(default_factory=ThinkTags)

    def __post_init__(self) -> None:
        check_listener_fractions(self.fractions)
        for name, value, known in (
            ("unit", self.unit, UNITS),
            ("short_trace", self.short_trace, get_args(ShortTrace)),
            ("unclosed", self.unclosed, get_args(Unclosed)),
            ("leak_search", self.leak_search, get_args(LeakSearch)),
        ):
            if value not in known:
                raise ValueError(f"ListenerExecution: {name} is {value!r}; use one of {list(known)}.")


@dataclass(frozen=True, slots=True)
class Place:
    """One continuation of a reply: whose, of which copy of a listener, and from where; fraction 0 is no beginning."""

    listener: str
    copy: int
    held_out: bool
    fraction: float

    @property
    def rewarded(self) -> bool:
        """Whether agreement here is paid for."""
        return not self.held_out and self.fraction > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What one listener made of one beginning."""

    place: Place
    answer: str | None  # label the continuation ends with
    match: bool  # with the speaker's own answer, which None never is
    leak: bool  # the beginning gives the speaker's answer away
    stop_reason: str  # of the continuation


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """One reply and what all listeners made of it."""

    spoken: Spoken
    trace: Trace
    answer: str | None  # the speaker's own
    places: tuple[Place, ...]  # where it may be agreed with
    cells: tuple[Cell, ...] = ()  # one per place, or none where there is no answer or nothing to cut
    failed: tuple[Place, ...] = ()  # given up by the listener, and left out of the two above for the whole group


@dataclass(frozen=True, slots=True)
class _Question:
    """A request, and the reply and place it is about."""

    reply: int
    place: Place
    listener: Listener
    prefix: str
    request: ListenRequest


def execute(spoken: Sequence[Spoken], pool: ListenerPool, rules: ExecutionRules, seed: int) -> list[Execution]:
    """Let a pool listen to replies; every listener is asked once, for all of them.

    A continuation that a listener gave up is left out, for all replies of its group: their rewards stay comparable, and
    nobody is paid less because a server failed.

    Args:
        spoken: Replies.
        pool: Listeners that are attached.
        rules: How.
        seed: Of the run.
    """
    opened = [_opened(reply, pool, rules, seed) for reply in spoken]
    questions = [q for i, execution in enumerate(opened) for q in _questions(i, execution, pool, rules, seed)]
    heard = _ask(questions)
    cells: list[list[Cell]] = [[] for _ in spoken]
    for question in questions:
        said = heard[question.listener.name, question.request]
        cells[question.reply].append(_cell(question, opened[question.reply], said, rules))
    return _without_failures([replace(e, cells=tuple(row)) for e, row in zip(opened, cells, strict=True)])


def _opened(spoken: Spoken, pool: ListenerPool, rules: ExecutionRules, seed: int) -> Execution:
    trace = split_trace(spoken.reply, rules.tags)
    places = [
        Place(seat.listener.name, seat.copy, not seat.rewarded, fraction)
        for seat in pool.seats(seed, *spoken.group)
        for fraction in [*pool.fractions_of(seat.listener, rules.fractions), *([0.0] if rules.empty_prefix else [])]
    ]
    answer = _label(trace.answer_section, spoken) if trace.closed else None
    return Execution(spoken=spoken, trace=trace, answer=answer, places=tuple(places))


def _questions(
    number: int, execution: Execution, pool: ListenerPool, rules: ExecutionRules, seed: int
) -> list[_Question]:
    """What all listeners are asked about a reply: nothing where no agreement is possible."""
    fractions = sorted({place.fraction for place in execution.places if place.fraction})
    found = prefixes(execution.trace.reasoning, fractions, rules.unit, rules.short_trace)
    if execution.answer is None or not found:
        return []
    beginnings = dict(zip(fractions, found, strict=True)) | {0.0: ""}
    listeners = {listener.name: listener for listener in pool.everybody}
    questions = []
    for place in execution.places:
        spoken, listener, prefix = execution.spoken, listeners[place.listener], beginnings[place.fraction]
        # The question alone is the same for all its replies: one answer serves them.
        whose = spoken.identity if place.fraction else ("nothing", spoken.question)
        key = stream_key(seed, "listener", *whose, place.listener, place.copy, f"{place.fraction:g}")
        request = ListenRequest(spoken.question, without_tags(prefix, rules.tags, listener.tags), key)
        questions.append(_Question(number, place, listener, prefix, request))
    return questions


def _ask(questions: Sequence[_Question]) -> dict[tuple[str, ListenRequest], Continuation]:
    """Every listener's continuations; requests that are equal to the key are made once."""
    listeners: dict[str, Listener] = {}
    requests: dict[str, dict[ListenRequest, None]] = {}
    for question in questions:
        listeners[question.listener.name] = question.listener
        requests.setdefault(question.listener.name, {})[question.request] = None
    heard: dict[tuple[str, ListenRequest], Continuation] = {}
    for name, listener in listeners.items():
        asked = list(requests[name])
        said = listener.continue_(asked)
        if len(said) != len(asked):
            raise ValueError(
                f"Listener {name!r} gave {len(said)} continuations of {len(asked)} prefixes; give one each, in order."
            )
        heard |= {(name, request): continuation for request, continuation in zip(asked, said, strict=True)}
    return heard


def _cell(question: _Question, execution: Execution, said: Continuation, rules: ExecutionRules) -> Cell:
    spoken = execution.spoken
    _, close, section = said.text.partition(question.listener.tags.close)
    if not close and rules.unclosed == "parse":
        section = said.text
    answer = _label(section, spoken) if section else None
    assert execution.answer is not None
    return Cell(
        place=question.place,
        answer=answer,
        match=same_label(answer, execution.answer),
        leak=gives_away(question.prefix, execution.answer, spoken, rules.leak_search),
        stop_reason=said.stop_reason,
    )


def _without_failures(executions: Sequence[Execution]) -> list[Execution]:
    failed = {(e.spoken.group, c.place) for e in executions for c in e.cells if c.stop_reason == "failed"}
    if not failed:
        return list(executions)
    return [
        replace(
            e,
            places=tuple(place for place in e.places if (e.spoken.group, place) not in failed),
            cells=tuple(cell for cell in e.cells if (e.spoken.group, cell.place) not in failed),
            failed=tuple(cell.place for cell in e.cells if cell.stop_reason == "failed"),
        )
        for e in executions
    ]


def _label(text: str, spoken: Spoken) -> str | None:
    return extract_label(text, spoken.labels, spoken.aliases, spoken.options)
