"""Demonstrations to warm up on: stored dialogues, or the right answers of a task source."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import lightning as L

from lit_rl.datamodules.order import ShuffledOrder, run_seed
from lit_rl.datamodules.passes import held_out_pass, training_places
from lit_rl.datamodules.stream import RolloutStream
from lit_rl.demonstrations import Demonstration, TrainTurns, demonstration_rows
from lit_rl.environments import Problem, TaskSource, TeacherContext, read_rows
from lit_rl.environments.base import Message
from lit_rl.environments.teacher_words import RETRY
from lit_rl.episodes import Rollouts
from lit_rl.recorded_dialogues import RecordedDialogue, read_dialogues
from lit_rl.stream_keys import stream_key


class DemonstrationSource(Protocol):
    """Demonstrations by index, the same for every run."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Demonstration: ...


class StoredDialogues:
    """Dialogues from local JSONL or Parquet files or a Hugging Face data set.

    Args:
        path: A ``.jsonl`` or ``.parquet`` file, or a hub id.
        messages: Column with a list of ``{"role", "content"}``.
        split: Of a hub data set.

    Raises:
        ValueError: Missing or empty file, or a row without the column, naming file and row.
    """

    def __init__(self, path: str, messages: str = "messages", split: str = "train"):
        self.path = path
        self.rows = [row[messages] for row in read_rows(path, [messages], split=split)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Demonstration:
        try:
            messages = tuple(Message(m["role"], m["content"]) for m in self.rows[index])
            return Demonstration(f"{self.path}, row {index + 1}", messages)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path}, row {index + 1}: a message is not {{'role': ..., 'content': ...}} ({error})."
            ) from error


class RecordedDialogues:
    """Dialogues that a run with `CollectedDialogues` wrote, trained on in the very token ids they were sampled in.

    Args:
        path: The file, by default ``dialogues.jsonl`` in the folder of that run.

    Raises:
        ValueError: Missing or empty file, or a row that is no recorded dialogue, naming file and row.
    """

    def __init__(self, path: str):
        self.dialogues = read_dialogues(path)

    def __len__(self) -> int:
        return len(self.dialogues)

    def __getitem__(self, index: int) -> RecordedDialogue:
        return self.dialogues[index]


class RightAnswers:
    """Dialogues made of a task source: the problem, perhaps wrong attempts, then the right answer.

    Wrong attempts are answers of other problems, so most are far off.  Where messages drawn at random follow them, a
    model learns (with ``train_turns="final"``) to answer the question in any turn, not to use feedback; a teacher's
    words show what they mean, but of near misses, which are what a student makes, there are few.

    Args:
        tasks: Problems with short answers.
        answer_format: The reply, with ``{answer}`` in it.
        wrong_attempts: Most wrong attempts before the right one; each number from 0 on is equally likely.
        feedback: What may follow a wrong attempt; or a teacher's script, whose words then follow.
        repeats: Demonstrations of each problem, which differ in their wrong attempts.
        seed: Of the wrong attempts.
    """

    def __init__(
        self,
        tasks: TaskSource,
        answer_format: str = "ans {answer}",
        wrong_attempts: int = 0,
        feedback: Sequence[str] | Callable[[Any, int], str] = (RETRY,),
        repeats: int = 1,
        seed: int = 0,
    ):
        if "{answer}" not in answer_format:
            raise ValueError(f"RightAnswers.answer_format is {answer_format!r}; it must contain {{answer}}.")
        if wrong_attempts < 0:
            raise ValueError(f"RightAnswers.wrong_attempts is {wrong_attempts}; it must be 0 or more.")
        if repeats < 1:
            raise ValueError(f"RightAnswers.repeats is {repeats}; it must be at least 1.")
        if not callable(feedback) and (isinstance(feedback, str) or not feedback):
            raise ValueError(f"RightAnswers.feedback is {feedback!r}; give a list of at least one message.")
        self.tasks, self.answer_format, self.wrong_attempts = tasks, answer_format, wrong_attempts
        self.feedback, self.repeats, self.seed = feedback, repeats, seed

    def __len__(self) -> int:
        return len(self.tasks) * self.repeats

    def __getitem__(self, index: int) -> Demonstration:
        if not 0 <= index < len(self):
            raise IndexError(index)
        problem = self.tasks[index % len(self.tasks)]
        messages = [Message("user", problem.prompt)]
        for number, wrong in enumerate(self._wrong_answers(index, problem.gold)):
            said, key = self._said(wrong), stream_key(self.seed, index, "feedback", number)
            messages += [said, Message("user", self._heard(problem, said.content, number, key), "teacher", number)]
        return Demonstration(problem.id, (*messages, self._said(problem.gold)))

    def _heard(self, problem: Problem, said: str, turn: int, key: int) -> str:
        if callable(self.feedback):
            attempt = self.tasks.verify(problem, said)
            return self.feedback(TeacherContext(problem, attempt, (), turn, said), key)
        return self.feedback[key % len(self.feedback)]

    def _said(self, answer: str) -> Message:
        return Message("assistant", self.answer_format.format(answer=answer))

    def _wrong_answers(self, index: int, gold: str) -> list[str]:
        count = stream_key(self.seed, index, "count") % (self.wrong_attempts + 1)
        others = [stream_key(self.seed, index, number) % len(self.tasks) for number in range(count)]
        return [answer for answer in (self.tasks[other].gold for other in others) if answer != gold]


class DemonstrationDataModule(L.LightningDataModule):
    """Batches of demonstrations for `SupervisedFineTuning`, in an order that depends on the seed alone.

    Args:
        demonstrations: What to imitate.
        num_validation: Demonstrations at the end of the source that are held out.
        batch_size: Demonstrations per batch, over all ranks.
        batches_per_epoch: None takes one pass over the demonstrations.
        party: Whose replies they are.
        train_turns: Learn "all" replies, or the "final" one of each dialogue.
        train_feedback: Learn to say what the party heard from others too (of recorded dialogues, the teacher's words).
        seed: Of the order; None takes that of ``seed_everything``.
    """

    def __init__(
        self,
        demonstrations: DemonstrationSource | RecordedDialogues,
        *,
        num_validation: int = 0,
        batch_size: int = 64,
        batches_per_epoch: int | None = None,
        party: str = "student",
        train_turns: TrainTurns = "all",
        train_feedback: bool = False,
        seed: int | None = None,
    ):
        super().__init__()
        self.count = len(demonstrations) - num_validation
        if self.count < batch_size:
            raise ValueError(
                f"data.demonstrations has {len(demonstrations)} rows, of which {num_validation} are held out; that is "
                f"less than one batch of {batch_size}."
            )
        self.demonstrations, self.num_validation, self.batch_size = demonstrations, num_validation, batch_size
        self.batches_per_epoch = batches_per_epoch or self.count // batch_size
        self.party, self.train_turns, self.train_feedback = party, train_turns, train_feedback
        self._order = ShuffledOrder(self.count, run_seed(seed))
        self._stream: RolloutStream | None = None

    def train_dataloader(self) -> RolloutStream:
        if self._stream is None:
            self._stream = RolloutStream(self._training_batch, self.batches_per_epoch)
        return self._stream

    def val_dataloader(self) -> list[RolloutStream]:
        if not self.num_validation:
            return []
        held_out = range(self.count, self.count + self.num_validation)
        return [held_out_pass(held_out, self.batch_size, self._rows)]

    def _training_batch(self, number: int) -> Rollouts:
        return self._rows([self._order[place] for place in training_places(number, self.batch_size)])

    def _rows(self, indices: Sequence[int]) -> Rollouts:
        module: Any = self.trainer.lightning_module if self.trainer is not None else None
        if module is None or module.policy is None:
            raise RuntimeError("Demonstrations need a policy's tokenizer: attach a module with a loaded `policy`.")
        rows = demonstration_rows(
            [self.demonstrations[index] for index in indices],
            module.policy,
            party=self.party,
            policy_version=module.policy_version,
            train_turns=self.train_turns,
            train_feedback=self.train_feedback,
        )
        return rows.to(module.policy.device)
