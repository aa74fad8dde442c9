"""What is logged of listeners, as sums and counts: figures of several batches and ranks add up."""

from collections.abc import Iterable, Sequence

from lit_rl.listeners.execution import Execution, Place
from lit_rl.verification.traces import split_units

Sums = dict[str, tuple[float, float]]


def execution_sums(executions: Sequence[Execution], rewards: Sequence[float]) -> Sums:
    """Sums and counts by name of figure.

    * ``listener_match``: share of the agreement there could be, ``r_match / (m k)``; ``held_out_match`` likewise.
    * ``listener_match/LISTENER/FRACTION``: share of the replies agreed with, those without an answer included.
    * ``empty_prefix_match/LISTENER`` and ``prefix_lift/LISTENER``: agreement of who hears the question alone, and how
      much more there is with a beginning, over the replies that were listened to.
    * ``early_answer_share/FRACTION``: beginnings that give the answer away.
    * ``none_share/speaker`` and ``none_share/LISTENER``: replies and continuations without a readable answer;
      ``no_room_share/LISTENER``, ``failed_share/LISTENER``: those the context did not hold, and those given up.
    * ``empty_trace_share``, ``short_trace_share``: replies that thought nothing, and that were too short to cut.
    * ``trace_lines``: lines of a reasoning.
    * ``zero_variance_groups``: share of the groups of several replies that were all paid alike.
    """
    sums: Sums = {}
    for execution in executions:
        for name, total, count in (*_of_speaker(execution), *_of_agreement(execution), *_of_control(execution)):
            _add(sums, name, float(total), count)
    for name, total in _of_groups(executions, rewards):
        _add(sums, name, total)
    return sums


def added(parts: Iterable[Sums]) -> Sums:
    """Sums of several batches or ranks as one."""
    sums: Sums = {}
    for part in parts:
        for name, (total, count) in part.items():
            _add(sums, name, total, count)
    return sums


def means(sums: Sums) -> dict[str, float]:
    """Sum by count of each figure that anything was counted of."""
    return {name: total / count for name, (total, count) in sorted(sums.items()) if count}


_Parts = list[tuple[str, float, float]]


def _of_speaker(execution: Execution) -> _Parts:
    reasoning, cut = execution.trace.reasoning, bool(execution.cells or execution.failed)
    empty = not reasoning.strip()
    parts: _Parts = [
        ("none_share/speaker", execution.answer is None, 1),
        ("empty_trace_share", empty, 1),
        ("short_trace_share", execution.answer is not None and not cut and not empty, 1),
        ("trace_lines", len(split_units(reasoning)), 1),
    ]
    leaks = {cell.place.fraction: cell.leak for cell in execution.cells if cell.place.fraction}
    return parts + [(f"early_answer_share/{fraction:g}", leak, 1) for fraction, leak in leaks.items()]


def _of_agreement(execution: Execution) -> _Parts:
    matched = {cell.place for cell in execution.cells if cell.match}
    parts: _Parts = []
    for place in execution.places:
        if place.fraction:
            total = "held_out_match" if place.held_out else "listener_match"
            agreed = place in matched
            parts += [(total, agreed, 1), (f"listener_match/{place.listener}/{place.fraction:g}", agreed, 1)]
    for place in (*(cell.place for cell in execution.cells), *execution.failed):
        parts.append((f"failed_share/{place.listener}", place in execution.failed, 1))
    for cell in execution.cells:
        if cell.place.fraction:
            parts.append((f"none_share/{cell.place.listener}", cell.answer is None, 1))
            parts.append((f"no_room_share/{cell.place.listener}", cell.stop_reason == "no_room", 1))
    return parts


def _of_control(execution: Execution) -> _Parts:
    """Each copy of a listener beside itself without a beginning."""
    control = {_who(cell.place): float(cell.match) for cell in execution.cells if cell.place.fraction == 0}
    parts: _Parts = []
    for who, alone in control.items():
        with_beginning = [float(c.match) for c in execution.cells if _who(c.place) == who and c.place.fraction]
        parts.append((f"empty_prefix_match/{who[0]}", alone, 1))
        if with_beginning:
            parts.append((f"prefix_lift/{who[0]}", sum(with_beginning) / len(with_beginning) - alone, 1))
    return parts


def _of_groups(executions: Sequence[Execution], rewards: Sequence[float]) -> list[tuple[str, float]]:
    groups: dict[tuple[int | str, ...], list[float]] = {}
    for execution, reward in zip(executions, rewards, strict=True):
        groups.setdefault(execution.spoken.group, []).append(reward)
    return [("zero_variance_groups", float(min(g) == max(g))) for g in groups.values() if len(g) > 1]


def _who(place: Place) -> tuple[str, int]:
    return place.listener, place.copy


def _add(sums: Sums, name: str, total: float, count: float = 1.0) -> None:
    before = sums.get(name, (0.0, 0.0))
    sums[name] = before[0] + total, before[1] + count
