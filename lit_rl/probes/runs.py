"""Answers after reasoning was cut off or given a mistake (arXiv 2602.16154, section 3.2; arXiv 2307.13702)."""

from collections.abc import Sequence
from typing import Literal

from lit_rl.metrics.faithfulness import Answer, mistake_index
from lit_rl.probes.corruptors import Corruptor, Mistake, is_mistake
from lit_rl.probes.items import ProbeItem
from lit_rl.probes.replies import Replier, ReplyRequest
from lit_rl.sampling import SamplingSettings
from lit_rl.verification.traces import Unit, keep

EarlyMode = Literal["force", "continue"]


def early_answers(
    items: Sequence[ProbeItem],
    replier: Replier,
    *,
    grid: Sequence[float],
    unit: Unit,
    mode: EarlyMode,
    cue: str,
    settings: SamplingSettings,
) -> list[list[Answer] | None]:
    """Answers after the first ``keep(n, x)`` of ``n`` units at each point ``x`` of the grid, the untouched one at 1.

    Args:
        items: Untouched replies.
        replier: Samples, all items and points at once.
        grid: Rising fractions, the last of them 1.
        unit: What reasoning is cut into.
        mode: "force" closes the reasoning there and asks for the answer; "continue", as in the authors' code, lets the
            model go on reasoning, which measures something weaker.
        cue: What stands behind the closed reasoning under "force".
        settings: How replies are drawn.

    Returns:
        Of each item; None where there is no reasoning.
    """
    kept = {
        i: [units[: keep(len(units), x)] for x in grid[:-1]]
        for i, item in enumerate(items)
        if (units := item.units(unit))
    }
    starts = [(i, units) for i, prefixes in kept.items() for units in prefixes]
    if mode == "force":
        found = forced_answers(
            [(items[i], units) for i, units in starts], replier, unit=unit, cue=cue, settings=settings
        )
    else:
        found = continued_answers([(items[i], units) for i, units in starts], replier, unit=unit, settings=settings)
    return _at_grid(items, [i for i, _ in starts], found)


def mistaken_answers(
    items: Sequence[ProbeItem],
    replier: Replier,
    corruptor: Corruptor,
    *,
    grid: Sequence[float],
    unit: Unit,
    settings: SamplingSettings,
) -> tuple[list[list[Answer] | None], list[str]]:
    """Answers after a mistake in unit ``min(floor(n x), n - 1)``, which ends what the model goes on from.

    Args:
        items: Untouched replies.
        replier: Samples, all items and points at once.
        corruptor: Makes the mistakes.
        grid: Rising fractions, the last of them 1, where nothing is changed.
        unit: What reasoning is cut into.
        settings: How replies are drawn.

    Returns:
        Of each item the answers, and why there are none: "no_reasoning", or "failed" where the corruptor had no mistake
        for one of the units.
    """
    mistakes = []
    for i, item in enumerate(items):
        units = item.units(unit)
        for x in grid[:-1] if units else ():
            place = mistake_index(len(units), x)
            key = item.key("mistake", place)
            mistakes.append((i, Mistake(item=item, before=tuple(units[:place]), unit=units[place], key=key)))
    corrupted = corruptor.corrupt_all([mistake for _, mistake in mistakes], replier)
    pairs = list(zip(mistakes, corrupted, strict=True))
    failed = {i for (i, mistake), text in pairs if not is_mistake(mistake.unit, text)}
    starts = [(i, [*mistake.before, str(text).strip()]) for (i, mistake), text in pairs if i not in failed]
    found = continued_answers([(items[i], units) for i, units in starts], replier, unit=unit, settings=settings)
    return _at_grid(items, [i for i, _ in starts], found), [
        "failed" if i in failed else "no_reasoning" for i in range(len(items))
    ]


def answers_by_length(
    items: Sequence[ProbeItem], replier: Replier, *, unit: Unit, cue: str, settings: SamplingSettings
) -> list[list[Answer]]:
    """Answers after 0, 1, .. ``n`` units, the last of them that of the untouched run (2307.13702, section 2.3.1)."""
    starts = [
        (i, units[:kept]) for i, item in enumerate(items) for units in [item.units(unit)] for kept in range(len(units))
    ]
    found = forced_answers([(items[i], units) for i, units in starts], replier, unit=unit, cue=cue, settings=settings)
    return [answers or [] for answers in _at_grid(items, [i for i, _ in starts], found)]


Start = tuple[ProbeItem, Sequence[str]]  # an item, and the units its reasoning is to begin with


def forced_answers(
    starts: Sequence[Start], replier: Replier, *, unit: Unit, cue: str, settings: SamplingSettings
) -> list[Answer]:
    """Answers where the reasoning ends with given units."""
    requests = [
        ReplyRequest(
            prompt_ids=item.prompt_ids,
            key=item.key("forced", len(units)),
            opening=item.concluded(units, unit, cue),
        )
        for item, units in starts
    ]
    said = replier.reply(requests, settings)
    return [None if text is None else item.read(cue + text) for (item, _), text in zip(starts, said, strict=True)]


def continued_answers(
    starts: Sequence[Start], replier: Replier, *, unit: Unit, settings: SamplingSettings
) -> list[Answer]:
    """Answers where the model goes on reasoning after given units; None where it does not come to an end."""
    openings = [item.reopened(units, unit) for item, units in starts]
    requests = [
        ReplyRequest(prompt_ids=item.prompt_ids, key=item.key("continued", opening), opening=opening)
        for (item, _), opening in zip(starts, openings, strict=True)
    ]
    said = replier.reply(requests, settings)
    return [
        None if text is None else item.read_reply(opening + text)
        for (item, _), opening, text in zip(starts, openings, said, strict=True)
    ]


def _at_grid(items: Sequence[ProbeItem], owners: Sequence[int], found: Sequence[Answer]) -> list[list[Answer] | None]:
    """Answers by item, with the untouched one at the end; None for items without any."""
    answers: list[list[Answer]] = [[] for _ in items]
    for i, answer in zip(owners, found, strict=True):
        answers[i].append(answer)
    return [[*mine, item.answer] if mine else None for mine, item in zip(answers, items, strict=True)]
