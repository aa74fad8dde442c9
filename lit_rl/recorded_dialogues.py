"""Solved dialogues kept as they were sampled: token for token, on disk and as training rows."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lit_rl.demonstrations import TargetRow
from lit_rl.environments.rows import read_rows
from lit_rl.episodes import Episode, Turn
from lit_rl.policy import Policy


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedTurn:
    """What one party said, and where in the row it stands: ``input_ids[start:stop]``, the end of turn if sampled."""

    role: str  # "student" or "teacher"
    exchange: int
    text: str
    start: int
    stop: int
    kind: str | None = None  # of the student's turns: answer, question, ...
    answer: str | None = None
    correct: bool | None = None
    replaced_by_question: bool | None = None
    leak: bool | None = None  # of the teacher's


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedDialogue:
    """One solved dialogue in the student's own view.

    Attributes:
        problem_id: Of the task source.
        episode: Its number among the dialogues played.
        seed: Of the run that played it.
        policy: The student: folder or hub id of its model.
        teacher: Name of the script or model that taught.
        max_turns: Turns the student was allowed.
        solve_turn: 0-based.
        vocabulary: Fingerprint of tokenizer and chat template, without which the ids mean nothing.
        input_ids: The whole row.
        turns: In order.
    """

    problem_id: str
    episode: int
    seed: int
    policy: str
    teacher: str
    max_turns: int
    solve_turn: int
    vocabulary: str
    input_ids: tuple[int, ...]
    turns: tuple[RecordedTurn, ...]

    def row(self, policy: Policy, party: str) -> TargetRow:
        """The row as sampled, with the student's turns as targets.

        Raises:
            ValueError: The policy has another tokenizer or chat template.
        """
        if self.vocabulary != vocabulary_of(policy):
            raise ValueError(
                f"Dialogue {self.episode} (problem {self.problem_id}) was sampled by {self.policy} with another "
                f"tokenizer or chat template than {policy.path} has; collect dialogues anew with this policy."
            )
        exchanges = [-1] * len(self.input_ids)
        targets, feedback = [False] * len(exchanges), [False] * len(exchanges)
        for turn in self.turns:
            for place in range(turn.start, turn.stop):
                exchanges[place] = turn.exchange
                targets[place], feedback[place] = turn.role == "student", turn.role == "teacher"
        return TargetRow(f"dialogue {self.episode}", list(self.input_ids), targets, feedback, exchanges)


def vocabulary_of(policy: Policy) -> str:
    """Fingerprint of what gives token ids their meaning."""
    facts = [sorted(policy.tokenizer.get_vocab().items()), policy.tokenizer.chat_template]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def record(episode: Episode, facts: Mapping[str, Any], decode: Any) -> RecordedDialogue | None:
    """The last row of a solved episode's student; None if that is not what was sampled, token for token.

    A row that was rendered anew, as after a question took an attempt's place, holds earlier turns as the template
    spells their text.  Where that differs from the ids sampled, the dialogue is not to be learned from.

    Args:
        episode: Solved; a dialogue with parties "student", "teacher" and perhaps "question_writer".
        facts: Further fields of the record.
        decode: ``ids -> text``, for what was heard.
    """
    questions = {t.exchange: t for t in episode.turns if t.info.get("asked")}
    taken = [turn for turn in episode.turns_of("student") if turn.exchange not in questions]
    sampled = {turn.exchange: turn for turn in taken}
    first = max(i for i, turn in enumerate(taken) if turn.new_row)
    ids: list[int] = []
    turns: list[RecordedTurn] = []
    epilogue = [turn for turn in episode.turns if turn.stop_reason == "epilogue"]
    for turn in [*taken[first:], *epilogue]:
        for span in turn.heard:
            heard = turn.prompt_ids[span.start : span.stop]
            start, stop = len(ids) + span.start, len(ids) + span.stop
            if span.party != "student":
                turns.append(_taught(episode, span.exchange, decode(heard), start, stop))
            elif span.exchange in questions:
                turns.append(_asked(questions[span.exchange], decode(heard), start, stop))
            else:
                said = sampled[span.exchange].completion_ids
                place = _place_of(said, heard)
                if place is None:
                    return None
                turns.append(_said(sampled[span.exchange], start + place))
        ids += turn.prompt_ids
        if turn.stop_reason != "epilogue":
            turns.append(_said(turn, len(ids)))
        ids += turn.completion_ids
    if {turn.exchange for turn in turns if turn.role == "student"} != sampled.keys() | questions.keys():
        return None  # an empty turn has no place in a row rendered anew
    return RecordedDialogue(
        episode=episode.index,
        solve_turn=taken[-1].exchange,
        input_ids=tuple(ids),
        turns=tuple(turns),
        **facts,
    )


def _place_of(said: Sequence[int], heard: Sequence[int]) -> int | None:
    """Where the sampled ids stand in a rendered turn, which may begin with a prefill and end with an end of turn."""
    for after in (0, 1):
        start = len(heard) - after - len(said)
        if start >= 0 and list(heard[start : start + len(said)]) == list(said):
            return start
    return None


def _said(turn: Turn, start: int) -> RecordedTurn:
    info = {name: turn.info.get(name) for name in ("kind", "answer", "correct")}
    return RecordedTurn(
        role="student", exchange=turn.exchange, text=turn.text, start=start, stop=start + len(turn.completion_ids),
        replaced_by_question=False, **info,
    )  # fmt: skip


def _asked(turn: Turn, text: str, start: int, stop: int) -> RecordedTurn:
    info = {name: turn.info.get(name) for name in ("kind", "answer", "correct")}
    return RecordedTurn(
        role="student", exchange=turn.exchange, text=text, start=start, stop=stop, replaced_by_question=True, **info
    )


def _taught(episode: Episode, exchange: int, text: str, start: int, stop: int) -> RecordedTurn:
    leak = any(
        turn.info.get("leak") and turn.info.get("heard")
        for turn in episode.turns
        if turn.party == "teacher" and turn.exchange == exchange
    )
    return RecordedTurn(role="teacher", exchange=exchange, text=text, start=start, stop=stop, leak=leak)


# -- files -----------------------------------------------------------------------------------------------------


def write_dialogues(path: str | Path, dialogues: Sequence[RecordedDialogue]) -> None:
    """Write JSON lines, whole or not at all; another file of that name is kept as ``previous-<name>``."""
    path, data = Path(path), _lines(dialogues)
    if path.exists():
        if path.read_bytes() == data:
            return
        os.replace(path, path.with_name(f"previous-{path.name}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(scratch, 0o644)  # mkstemp makes it private
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def read_dialogues(path: str | Path) -> list[RecordedDialogue]:
    """All dialogues of a file that `write_dialogues` wrote.

    Raises:
        ValueError: No such file, an empty one, or a row that is no such dialogue, naming file and row.
    """
    names = [field.name for field in fields(RecordedDialogue)]
    found = []
    for number, row in enumerate(read_rows(path, names), start=1):
        try:
            turns = tuple(RecordedTurn(**turn) for turn in row["turns"])
            found.append(RecordedDialogue(**{**row, "input_ids": tuple(row["input_ids"]), "turns": turns}))
        except TypeError as error:
            raise ValueError(f"{path}, row {number}: it is no recorded dialogue ({error}).") from error
    return found


def fingerprint(dialogues: Sequence[RecordedDialogue]) -> str:
    """Equal for equal dialogues in equal order."""
    return hashlib.sha256(_lines(dialogues)).hexdigest()[:16]


def _lines(dialogues: Sequence[RecordedDialogue]) -> bytes:
    return b"".join(json.dumps(asdict(dialogue)).encode() + b"\n" for dialogue in dialogues)
