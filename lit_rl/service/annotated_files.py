"""Annotated dialogues as JSON lines; the layout is that of `lit_rl.service.annotated`."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from lit_rl.environments.rows import read_rows
from lit_rl.environments.stored_tasks import check_ids
from lit_rl.metrics.engagement import Milestones
from lit_rl.service.annotated import AnnotatedDialogue, AnnotatedTurn

T = TypeVar("T")


def write_annotated(path: str | Path, dialogues: Sequence[AnnotatedDialogue]) -> None:
    """Write JSON lines, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text("".join(json.dumps(dialogue.as_row()) + "\n" for dialogue in dialogues), encoding="utf-8")
    os.replace(unfinished, path)


def read_annotated(
    path: str | Path, *, skills: Sequence[str] | None = None, split: str = "train", subset: str | None = None
) -> list[AnnotatedDialogue]:
    """All dialogues of a data set.

    Args:
        path: A ``.jsonl`` or ``.parquet`` file, or the id of a data set on the hub.
        skills: The pool; None takes any names.
        split: Of a hub data set.
        subset: Of a hub data set that has several.

    Raises:
        ValueError: As `lit_rl.environments.read_rows`, or a row that is no such dialogue, a skill outside the pool, or
            an id that occurs twice, naming file and row.
    """
    rows = read_rows(path, ["dialogue_id", "scenario", "turns", "outcome", "sop_id"], split=split, subset=subset)
    found = []
    for number, row in enumerate(rows, start=1):
        dialogue = _dialogue(row, f"{path}, row {number}")
        for place, turn in enumerate(dialogue.turns, start=1):
            named = {turn.skill, *(turn.chain or ()), *(turn.relevance or ())} - {None}
            if skills is not None and not named <= set(skills):
                raise ValueError(
                    f"{path}, row {number}, turn {place}: it names {sorted(map(str, named - set(skills)))}; the skills "
                    f"are {list(skills)}."
                )
        found.append(dialogue)
    check_ids(
        str(path), ((dialogue.dialogue_id, number) for number, dialogue in enumerate(found, start=1)), "dialogue_id"
    )
    return found


def _dialogue(row: Mapping[str, Any], where: str) -> AnnotatedDialogue:
    scenario = _mapping(row["scenario"], ("goal", "persona", "seed", "milestones"), f"{where}, scenario")
    outcome = _mapping(row["outcome"], ("ordered", "satisfaction"), f"{where}, outcome")
    if not isinstance(row["turns"], list):
        raise ValueError(f"{where}: turns is {str(row['turns'])[:60]}; it must be a list.")
    turns = tuple(_turn(turn, f"{where}, turn {place}") for place, turn in enumerate(row["turns"], start=1))
    stated = scenario.get("milestones")
    return _made(
        AnnotatedDialogue,
        where,
        dialogue_id=str(row["dialogue_id"]),
        goal=_mapping(scenario.get("goal"), None, f"{where}, goal"),
        persona=_mapping(scenario.get("persona") or {}, None, f"{where}, persona"),
        seed=scenario.get("seed", 0),
        turns=turns,
        ordered=outcome.get("ordered"),
        satisfaction=outcome.get("satisfaction"),
        sop_id=str(row["sop_id"]),
        milestones=None if stated is None else _milestones(stated, f"{where}, milestones"),
    )


def _turn(turn: Any, where: str) -> AnnotatedTurn:
    given = _mapping(turn, tuple(f.name for f in fields(AnnotatedTurn)), where)
    # What a file leaves out or has as null is not annotated.
    stated = {name: value for name, value in given.items() if value is not None}
    for name in ("chain", "milestones", "broken_rules"):
        if name in stated:
            if not isinstance(stated[name], list):
                raise ValueError(f"{where}: {name} is {stated[name]!r}; it must be a list of texts.")
            stated[name] = tuple(stated[name])
    if "relevance" in stated:  # Parquet knows no free keys, and has null where a row lacks one
        grades = _mapping(stated["relevance"], None, f"{where}, relevance")
        stated["relevance"] = {skill: grade for skill, grade in grades.items() if grade is not None}
    return _made(AnnotatedTurn, where, **{"role": None, "text": None} | stated)


def _milestones(stated: Any, where: str) -> Milestones:
    given = _mapping(stated, ("weights", "expert_turns"), where)
    parts = {name: _mapping(given.get(name), None, f"{where}.{name}") for name in ("weights", "expert_turns")}
    for name, values in parts.items():
        if not all(isinstance(value, int | float) for value in values.values()):
            raise ValueError(f"{where}.{name}: it is {values}; wanted a number for each milestone.")
    return _made(Milestones, where, **parts)


def _made(make: Callable[..., T], where: str, **given: Any) -> T:
    try:
        return make(**given)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _mapping(value: Any, known: Sequence[str] | None, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: it is {str(value)[:60]}; wanted an object with names.")
    if known is not None and (unknown := sorted(map(str, value.keys() - set(known)))):
        raise ValueError(f"{where}: it has {unknown[0]!r}; the names are {list(known)}.")
    return dict(value)
