"""Dialogues that the initial student has with its teacher, collected once and then learned from."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from lit_rl.datamodules.dialogue_stream import DialogueStream
from lit_rl.datamodules.didactic import STUDENT, TEACHER, DidacticDataModule
from lit_rl.datamodules.stream import RolloutStream
from lit_rl.demonstrations import TrainTurns, demonstration_rows
from lit_rl.distributed import gather_objects, rank, world_size
from lit_rl.environments.base import Environment
from lit_rl.environments.problems import TaskSource
from lit_rl.environments.q_priming import WRITER, QPrimedDialogue, check_priming
from lit_rl.environments.question_writers import QUESTION_INSTRUCTION
from lit_rl.environments.teachers import TeacherContext
from lit_rl.episodes import Episode, Rollouts
from lit_rl.parties import Party, PolicyParty, ScriptedParty
from lit_rl.recorded_dialogues import (
    RecordedDialogue,
    read_dialogues,
    record,
    vocabulary_of,
    write_dialogues,
)
from lit_rl.rollout import Planned, play
from lit_rl.stream_keys import stream_key

FILE = "dialogues.jsonl"


@dataclass(kw_only=True)
class QPriming:
    """Which turns become questions and who writes them, see `lit_rl.environments.q_priming.QPrimedDialogue`.

    Args:
        writer: A script ``(TeacherContext, key) -> text``, any `Party`, or a `PolicyParty`; None is the student itself,
            sampled as in its own turns.
        decay: A turn without reward becomes a question with probability ``decay ** t``.
        q_index_base: What t is in the first turn.
        no_question_in_last_turn: Leave the last turn alone.
        instruction: For a model that writes.
    """

    writer: Party | PolicyParty | Callable[[TeacherContext, int], str] | None = None
    decay: float = 0.75
    q_index_base: int = 1
    no_question_in_last_turn: bool = False
    instruction: str = QUESTION_INSTRUCTION

    def __post_init__(self) -> None:
        check_priming(self.decay, self.q_index_base, self.instruction)


class CollectedDialogues(DidacticDataModule):
    """Offline social meta-learning: the solved dialogues of the student as it is at first (arXiv 2602.16488, 4.2-4.3).

    They are played once, when training begins, and written to a file; an epoch is one pass over them, shuffled.  A run
    that goes on reads them back: they are never collected anew with a student that has learned since.  The file is of
    use to other runs too (`RecordedDialogues`).

    As published: dialogues of the initial student and teacher, the solved ones, all of the student's turns, one pass.
    Our reading: how many are played and kept.  With ``dialogue: {max_turns: 1}`` it is the single-turn baseline.

    Validation plays dialogues as `DidacticDataModule` does; ``group_size`` is how many are played of each problem.

    Args:
        tasks: Problems.
        teacher: Who corrects.
        num_problems: How many are played, of those not held out; None plays all.
        keep_per_problem: Most dialogues kept of one problem, so that easy ones do not dominate.
        batch_size: Dialogues per batch, over all ranks; a little fewer where that makes batches even.
        train_turns: Learn "all" of the student's turns, or the "final" one of each dialogue.
        train_feedback: Learn to say the teacher's words too (``sft_full`` after arXiv 2602.16066).
        q_priming: Turn wrong attempts into questions; None leaves them.
        file: Where dialogues are written; None is ``dialogues.jsonl`` in the trainer's root folder.
        kwargs: Of `DidacticDataModule`.
    """

    def __init__(
        self,
        tasks: TaskSource,
        teacher: Party | PolicyParty | Callable[[Any, int], str],
        *,
        num_problems: int | None = None,
        keep_per_problem: int = 4,
        batch_size: int = 64,
        train_turns: TrainTurns = "all",
        train_feedback: bool = False,
        q_priming: QPriming | None = None,
        file: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(tasks, teacher, tasks_per_batch=batch_size, batches_per_epoch=1, **kwargs)
        for name, value in (("num_problems", num_problems), ("keep_per_problem", keep_per_problem)):
            if value is not None and value < 1:
                raise ValueError(f"data.{name} is {value}; it must be at least 1.")
        if num_problems is not None and num_problems > self._order.count:
            raise ValueError(
                f"data.num_problems is {num_problems}, but data.tasks ({tasks.name}) has {self._order.count} that are "
                "not held out; take fewer, or null for all."
            )
        self.num_problems = num_problems or self._order.count
        self.keep_per_problem, self.batch_size = keep_per_problem, batch_size
        self.train_turns, self.train_feedback = train_turns, train_feedback
        self.q_priming, self.file = q_priming, file
        self._figures: dict[str, float] = {}

    def path(self) -> Path:
        """The file of this run's dialogues."""
        assert self.trainer is not None
        return Path(self.file) if self.file else Path(self.trainer.default_root_dir) / FILE

    def train_dataloader(self) -> RolloutStream:
        if self._stream is None:
            self._stream = DialogueStream(self._dialogues(), self.batch_size, self._batch, self.seed)
        return self._stream

    # -- which dialogues ---------------------------------------------------------------------------------------

    def _dialogues(self) -> list[RecordedDialogue]:
        """Those of the file if this run has begun to learn, else new ones."""
        module = self._module()
        if module.policy_version:
            return self._read_back(module.policy_version)
        self._check_policy(module.policy)
        dialogues = self._collect_dialogues()
        if rank() == 0 and not self._trial:
            write_dialogues(self.path(), dialogues)
        return dialogues

    def _read_back(self, steps: int) -> list[RecordedDialogue]:
        if not self.path().is_file():
            raise ValueError(
                f"The student has learned for {steps} optimizer steps, but there is no file {self.path()} with what it "
                "learns from: put it back, or start a new run with policy.path set to what this one exported."
            )
        return read_dialogues(self.path())

    def _check_policy(self, policy: Any) -> None:
        if policy.rows_per == "turn":
            raise ValueError(
                "Collected dialogues are learned from in one row each, but the chat template of the policy does not "
                "extend a dialogue turn by turn (rows='turn'); use another model or template."
            )
        prefill = policy.chat.prefill.get(STUDENT)
        if self.q_priming is not None and prefill:
            raise ValueError(
                f"policy.prefill opens every reply of the student with {prefill!r}, so it can ask nothing; leave it "
                "out to use data.q_priming."
            )

    @property
    def _trial(self) -> bool:
        return bool(getattr(self.trainer, "fast_dev_run", False))

    # -- collecting --------------------------------------------------------------------------------------------

    def _collect_dialogues(self) -> list[RecordedDialogue]:
        """Play this rank's problems and share with the others; a trial stops at the first batch of solved ones."""
        start, counts, kept = time.perf_counter(), Counter[str](), list[RecordedDialogue]()
        mine = range(self.num_problems)[rank() :: world_size()]
        at_once = max(1, (1 if self._trial else 8) * self.max_rows // self.group_size)
        for first in range(0, len(mine), at_once):
            kept += self._kept(self._play_problems(mine[first : first + at_once], counts), counts)
            if self._trial and kept:
                break
        gathered = gather_objects((kept, counts))
        dialogues = sorted((d for part, _ in gathered for d in part), key=lambda dialogue: dialogue.episode)
        total = sum((part for _, part in gathered), Counter[str]())
        self._check_count(len(dialogues), total)
        tokens = sum(turn.stop - turn.start for d in dialogues for turn in d.turns if turn.role == "student")
        total |= Counter(kept=len(dialogues), kept_tokens=tokens)
        names = ("played", "given_up", "solved", "respelled", "questions", "sampled_tokens", "kept", "kept_tokens")
        self._figures = {f"collected/{name}": float(total[name]) for name in names}
        self._figures["time/collecting_seconds"] = time.perf_counter() - start
        rank_zero_info(
            f"Played {total['played']} dialogues, of which {total['solved']} were solved and {len(dialogues)} are kept."
        )
        return dialogues

    def _play_problems(self, places: Sequence[int], counts: Counter[str]) -> list[Episode]:
        planned = []
        for place in places:
            task = self._order[place]
            for index in range(place * self.group_size, (place + 1) * self.group_size):
                environment = self._primed_dialogue(task, index)
                planned.append(Planned(environment=environment, index=index, task_id=str(task), group=place))
        key = stream_key(self.seed, "collected")
        played = play(
            planned,
            self._collecting_parties(),
            self._module().policy,
            seed=key,
            max_rows=self.max_rows,
            on_error=self.on_error,
        )
        turns = [turn for episode in played.episodes for turn in episode.turns]
        counts["played"] += len(planned)
        counts["given_up"] += len(played.dropped)
        counts["questions"] += sum(bool(turn.info.get("asked")) for turn in turns)
        counts["sampled_tokens"] += sum(len(turn.completion_ids) for turn in turns)
        return played.episodes

    def _primed_dialogue(self, task: int, index: int) -> Environment:
        dialogue = self._dialogue(self.tasks, task, index, self.feedback, self.dialogue.max_turns)
        options = self.q_priming
        if options is None:
            return dialogue
        return QPrimedDialogue(
            dialogue,
            seed=stream_key(self.seed, "q_priming", index),
            decay=options.decay,
            q_index_base=options.q_index_base,
            no_question_in_last_turn=options.no_question_in_last_turn,
            instruction=options.instruction,
        )

    def _collecting_parties(self) -> dict[str, Party | PolicyParty]:
        student = PolicyParty(adapter=STUDENT, settings=self.student)
        parties: dict[str, Party | PolicyParty] = {STUDENT: student, TEACHER: self.teacher}
        if self.q_priming is not None:
            writer = self.q_priming.writer or student
            parties[WRITER] = writer if isinstance(writer, Party | PolicyParty) else ScriptedParty(writer, WRITER)
        return parties

    def _kept(self, episodes: Sequence[Episode], counts: Counter[str]) -> list[RecordedDialogue]:
        """The first solved dialogues of each problem, without those that ``on_leak="drop"`` gives up."""
        policy, kept, of_problem = self._module().policy, [], Counter[int]()
        vocabulary = vocabulary_of(policy)
        for episode in episodes:
            if episode.stop_reason != "solved" or any(turn.info.get("drop") for turn in episode.turns):
                continue
            counts["solved"] += 1
            if of_problem[episode.group] == self.keep_per_problem:
                continue
            dialogue = record(
                episode,
                {
                    "problem_id": self.tasks[int(episode.task_id)].id,
                    "seed": self.seed,
                    "policy": policy.path if policy.config.tiny is None else "tiny",
                    "teacher": _name(self.teacher),
                    "max_turns": self.dialogue.max_turns,
                    "vocabulary": vocabulary,
                },
                lambda ids: policy.tokenizer.decode(ids, skip_special_tokens=True).strip(),
            )
            counts["respelled"] += dialogue is None
            if dialogue is not None:
                kept.append(dialogue)
                of_problem[episode.group] += 1
        return kept

    def _check_count(self, kept: int, counts: Counter[str]) -> None:
        if not kept and counts["respelled"]:
            raise ValueError(
                f"All {counts['solved']} solved dialogues hold a turn whose text the tokenizer spells in other tokens "
                "than were sampled, so none can be learned from; without data.q_priming, none would be rendered anew."
            )
        if not kept:
            raise ValueError(
                f"The student solved none of {counts['played']} dialogues about {self.num_problems} problems, so there "
                "is nothing to learn from; warm it up first, take easier data.tasks, or raise data.group_size or "
                "data.num_problems."
            )
        if kept < world_size():
            raise ValueError(
                f"Only {kept} solved dialogues are kept, fewer than the {world_size()} processes that are to share "
                "them; raise data.group_size or data.num_problems."
            )

    # -- learning ----------------------------------------------------------------------------------------------

    def _batch(self, number: int, dialogues: Sequence[RecordedDialogue]) -> Rollouts:
        module = self._module()
        rows = demonstration_rows(
            dialogues[rank() :: world_size()],
            module.policy,
            party=STUDENT,
            policy_version=module.policy_version,
            train_turns=self.train_turns,
            train_feedback=self.train_feedback,
        ).to(module.policy.device)
        if number == 0:
            rows.figures |= self._figures
        return rows


def _name(teacher: Party | PolicyParty) -> str:
    if isinstance(teacher, PolicyParty):
        return teacher.adapter or "base"
    script = getattr(teacher, "script", teacher)
    return str(getattr(script, "__name__", type(script).__name__))
