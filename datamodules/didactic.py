"""Online dialogues between a student that is trained and a teacher that knows the answer."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import torch

from lit_rl.datamodules.stream import RolloutStream
from lit_rl.distributed import is_distributed, rank
from lit_rl.environments import DidacticDialogue, Problem, TaskSource
from lit_rl.episodes import Rollouts
from lit_rl.noise import stream_key
from lit_rl.parties import Party, PolicyParty, ScriptedParty
from lit_rl.policy import Policy
from lit_rl.rollout import Planned, fill_reference, play
from lit_rl.sampling import SamplingSettings

STUDENT, TEACHER = "student", "teacher"
PARTIES = (STUDENT, TEACHER)
Feedback = Literal["teacher", "retry", "shuffled", "resample"]
CONDITIONS = ("teacher", "retry", "shuffled", "resample")


@dataclass(kw_only=True)
class Dialogue:
    """The rules of one dialogue, see `lit_rl.environments.DidacticDialogue`."""

    max_turns: int = 4
    on_leak: Literal["resample", "flag", "drop"] = "resample"
    wrong_attempt_penalty: float = 0.0
    question_cost: float = 0.0
    student_instruction: str | None = None


class DidacticDataModule(L.LightningDataModule):
    """Rollouts of a student with a teacher, played with the policy as it is now.

    Args:
        tasks: Problems to train on.
        teacher: Who corrects: a script ``(TeacherContext, key) -> text``, any `Party`, or a `PolicyParty`.
        validation_tasks: Problems to validate on; None holds out the last ``num_validation_tasks`` of ``tasks``.
        num_validation_tasks: Problems per validation.
        tasks_per_batch: Problems per training batch, over all ranks.
        group_size: Dialogues per problem.
        batches_per_epoch: Training batches per epoch.
        student: How the student samples in training.
        evaluation: How it samples in validation; conditions that end in "_greedy" take the likeliest token.
        validation_group_size: Dialogues per problem in validation.
        dialogue: Rules of the dialogue.
        feedback: What the student hears in training: "teacher", or a control of arXiv 2606.30774: "retry" (a fixed
            message), "shuffled" (the teacher's words about another problem), "resample" (no history).
        validation_turns: Turns in validation; None takes ``dialogue.max_turns``.
        fit_conditions: What is validated while training.
        conditions: What ``lit-rl validate`` and ``test`` play: "teacher" and the controls, each also with "_greedy".
        max_rows: Dialogues sampled at once.
        on_error: When a teacher or verifier raises: "stop" the run, or "drop" the dialogue and count it.
        seed: Of task order and all sampling noise.
    """

    def __init__(
        self,
        tasks: TaskSource,
        teacher: Any,
        *,
        validation_tasks: TaskSource | None = None,
        num_validation_tasks: int = 128,
        tasks_per_batch: int = 32,
        group_size: int = 8,
        batches_per_epoch: int = 100,
        student: SamplingSettings | None = None,
        evaluation: SamplingSettings | None = None,
        validation_group_size: int = 1,
        dialogue: Dialogue | None = None,
        feedback: Feedback = "teacher",
        validation_turns: int | None = None,
        fit_conditions: Sequence[str] = ("teacher",),
        conditions: Sequence[str] = (*CONDITIONS, "teacher_greedy"),
        max_rows: int = 256,
        on_error: Literal["stop", "drop"] = "stop",
        seed: int = 0,
    ):
        super().__init__()
        for name in (*fit_conditions, *conditions):
            if name.removesuffix("_greedy") not in CONDITIONS:
                raise ValueError(f"data.conditions has {name!r}; known are {list(CONDITIONS)}, each also as X_greedy.")
        if len(tasks) == 0:
            raise ValueError(f"data.tasks ({tasks.name}) is empty; there is nothing to train on.")
        for option, value in (("tasks_per_batch", tasks_per_batch), ("group_size", group_size)):
            if value < 1:
                raise ValueError(f"data.{option} is {value}; it must be at least 1.")
        self.tasks, self.validation_tasks = tasks, validation_tasks
        self.num_validation_tasks, self.tasks_per_batch, self.group_size = (
            num_validation_tasks,
            tasks_per_batch,
            group_size,
        )
        self.batches_per_epoch = batches_per_epoch
        self.student = student or SamplingSettings()
        self.student.check_trainable()
        self.evaluation = evaluation or SamplingSettings(
            temperature=0.7, top_p=0.95, max_tokens=self.student.max_tokens
        )
        self.validation_group_size, self.dialogue, self.feedback = (
            validation_group_size,
            dialogue or Dialogue(),
            feedback,
        )
        self.validation_turns = validation_turns or self.dialogue.max_turns
        self.fit_conditions, self.conditions = tuple(fit_conditions), tuple(conditions)
        self.max_rows, self.on_error, self.seed = max_rows, on_error, seed
        self.teacher: Party | PolicyParty = (
            teacher if isinstance(teacher, Party | PolicyParty) else ScriptedParty(teacher, TEACHER)
        )
        self._stream: RolloutStream | None = None
        self._orders: dict[int, list[int]] = {}
        self._split()

    def _split(self) -> None:
        """Task indices to train and to validate on; held-out tasks share no id with the training tasks."""
        if self.validation_tasks is not None:
            source, count = self.validation_tasks, min(self.num_validation_tasks, len(self.validation_tasks))
            self._validation = [(source, i) for i in range(count)]
            self._training = list(range(len(self.tasks)))
            return
        kept = len(self.tasks) - self.num_validation_tasks
        if kept < 1:
            raise ValueError(
                f"data.tasks ({self.tasks.name}) has {len(self.tasks)} tasks and data.num_validation_tasks holds out "
                f"{self.num_validation_tasks}; none is left to train on. Hold out fewer, or give data.validation_tasks."
            )
        self._training = list(range(kept))
        self._validation = [(self.tasks, i) for i in range(kept, len(self.tasks))]

    # -- Lightning's hooks -------------------------------------------------------------------------------------

    def train_dataloader(self) -> RolloutStream:
        """The one stream of the run; its place in the task order is in the checkpoint."""
        if self._stream is None:
            self._stream = RolloutStream(self._collect_training, self.batches_per_epoch)
        return self._stream

    def val_dataloader(self) -> list[RolloutStream]:
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        return self._evaluation_streams(self.fit_conditions if fitting else self.conditions)

    def test_dataloader(self) -> list[RolloutStream]:
        return self._evaluation_streams(self.conditions)

    def predict_dataloader(self) -> list[RolloutStream]:
        return self._evaluation_streams(self.conditions[:1])

    def ceiling(self) -> list[float] | None:
        """Best accuracy by turn that any student can reach, where the task knows it."""
        known = getattr(self.tasks, "ceiling", None)
        return None if known is None else known(self.validation_turns)

    # -- collecting --------------------------------------------------------------------------------------------

    def _collect_training(self, number: int) -> Rollouts:
        """Batch ``number``: this rank's share of the tasks, whole groups."""
        first = number * self.tasks_per_batch
        planned = [
            Planned(
                environment=self._dialogue(self.tasks, task, index, self.feedback, self.dialogue.max_turns),
                index=index,
                task_id=str(task),
                group=place,
            )
            for place in self._share(range(first, first + self.tasks_per_batch))
            for task in [self._task_at(place)]
            for index in range(place * self.group_size, (place + 1) * self.group_size)
        ]
        return self._play(planned, "train", self.student, reference=True)

    def _task_at(self, place: int) -> int:
        """Task number ``place`` of the run: every pass over the tasks is a permutation of its own."""
        epoch, offset = divmod(place, len(self._training))
        if epoch not in self._orders:
            generator = torch.Generator().manual_seed(stream_key(self.seed, "order", epoch) >> 1)
            self._orders = {epoch: torch.randperm(len(self._training), generator=generator).tolist()}
        return self._training[self._orders[epoch][offset]]

    def _share(self, places: range) -> range:
        """Every rank plays its own contiguous part, so that the union is what one process would play."""
        world = torch.distributed.get_world_size() if is_distributed() else 1
        if len(places) % world:
            raise ValueError(
                f"data.tasks_per_batch is {len(places)}, which {world} ranks cannot share evenly; use a multiple."
            )
        part = len(places) // world
        return places[rank() * part : (rank() + 1) * part]

    def _evaluation_streams(self, conditions: Sequence[str]) -> list[RolloutStream]:
        return [self._evaluation_stream(condition) for condition in conditions]

    def _evaluation_stream(self, condition: str) -> RolloutStream:
        tasks = self._validation[rank() :: torch.distributed.get_world_size() if is_distributed() else 1]
        per_batch = max(1, self.max_rows // self.validation_group_size)
        batches = -(-len(tasks) // per_batch)
        settings = self.evaluation
        if condition.endswith("_greedy"):
            settings = SamplingSettings(temperature=0.0, max_tokens=settings.max_tokens)

        def collect(number: int) -> Rollouts:
            planned = []
            for offset in range(number * per_batch, min((number + 1) * per_batch, len(tasks))):
                source, task = tasks[offset]
                for member in range(self.validation_group_size):
                    index = task * self.validation_group_size + member
                    feedback = condition.removesuffix("_greedy")
                    environment = self._dialogue(source, task, index, feedback, self.validation_turns)
                    planned.append(Planned(environment=environment, index=index, task_id=str(task), group=task))
            return self._play(planned, condition, settings, reference=False)

        return RolloutStream(collect, batches)

    def _dialogue(self, source: TaskSource, task: int, index: int, feedback: str, turns: int) -> DidacticDialogue:
        problem = source[task]
        other: Problem | None = None
        if feedback == "shuffled":
            other = self._another(source, problem, index)
        rules = self.dialogue
        return DidacticDialogue(
            problem,
            source,
            max_turns=turns,
            feedback=feedback,
            shuffled_problem=other,
            on_leak=rules.on_leak,
            wrong_attempt_penalty=rules.wrong_attempt_penalty,
            question_cost=rules.question_cost,
            student_instruction=rules.student_instruction,
        )

    def _another(self, source: TaskSource, problem: Problem, index: int) -> Problem:
        """A problem with another answer, the same for every run."""
        for attempt in range(100):
            other = source[stream_key(self.seed, "other", index, attempt) % len(source)]
            if other.gold != problem.gold:
                return other
        raise ValueError(f"data.conditions has 'shuffled', but the tasks of {source.name} all have one answer.")

    def _play(self, planned: list[Planned], label: str, settings: SamplingSettings, *, reference: bool) -> Rollouts:
        module = self._module()
        policy: Policy = module.policy
        parties = {STUDENT: PolicyParty(adapter=STUDENT, settings=settings), TEACHER: self.teacher}
        played = play(
            planned,
            parties,
            policy,
            seed=stream_key(self.seed, label),
            max_rows=self.max_rows,
            on_error=self.on_error,
        )
        start = time.perf_counter()
        rollouts = Rollouts.from_episodes(
            played.episodes,
            trained=[STUDENT],
            parties=PARTIES,
            pad_id=policy.tokenizer.pad_token_id or 0,
            policy_version=module.policy_version,
            label=label,
            temperature=settings.temperature,
            min_exchanges=self.dialogue.max_turns if label == "train" else self.validation_turns,
            constraint_offsets=policy.constraints.offsets if policy.constraints else None,
        ).to(policy.device)
        if reference and module.needs_reference:
            fill_reference(rollouts, policy, token_budget=module.micro_batch_tokens)
        seconds = played.seconds + time.perf_counter() - start
        sampled = float(rollouts.loss_mask.sum())
        rollouts.figures |= {
            f"{label}/dropped_episodes": float(len(played.dropped)),
            "time/sampling_seconds": seconds,
            "time/sampling_tokens_per_second": sampled / seconds,
        }
        return rollouts

    def _module(self) -> Any:
        module = getattr(self.trainer, "lightning_module", None)
        if module is None or getattr(module, "policy", None) is None:
            raise RuntimeError("Rollouts need a policy: attach a module with a loaded `policy` before collecting.")
        return module
