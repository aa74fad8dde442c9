"""Online dialogues between a student that is trained and a teacher that knows the answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import lightning as L
import torch

from lit_rl.datamodules.order import ShuffledOrder, run_seed
from lit_rl.datamodules.played import attached_module, played_rollouts
from lit_rl.datamodules.stream import RolloutStream
from lit_rl.distributed import rank, world_size
from lit_rl.environments import TEACHER_INSTRUCTION, DidacticDialogue, Problem, TaskSource
from lit_rl.environments.base import Environment
from lit_rl.environments.self_correction import FalseCriticism, SelfCorrection
from lit_rl.environments.teacher_words import RETRY
from lit_rl.episodes import Rollouts
from lit_rl.parties import Party, PolicyParty, ScriptedParty
from lit_rl.rollout import Planned, Played, fill_reference, play
from lit_rl.sampling import SamplingSettings
from lit_rl.stream_keys import stream_key

STUDENT, TEACHER, CRITIC = "student", "teacher", "critic"
PARTIES = (STUDENT, TEACHER)
Feedback = Literal["teacher", "retry", "shuffled", "resample"]
CONDITIONS = ("teacher", "retry", "shuffled", "resample")
SELF_CORRECTION = ("self_crit", "self_crit_base", "shuffled_crit")
KNOWN_CONDITIONS = (*CONDITIONS, *SELF_CORRECTION, "false_criticism")
_Place = tuple[TaskSource, int, int]  # source, number of the task in it, number of the episode


@dataclass(kw_only=True)
class Dialogue:
    """The rules of one dialogue, see `lit_rl.environments.DidacticDialogue`."""

    max_turns: int = 4
    on_leak: Literal["resample", "flag", "drop"] = "resample"
    wrong_attempt_penalty: float = 0.0
    question_cost: float = 0.0
    student_instruction: str | None = None
    teacher_instruction: str = TEACHER_INSTRUCTION
    accept_message: str | None = None


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
        evaluation: How it samples in validation; None takes temperature 0.7 and top-p 0.95.  Conditions that end in
            "_greedy" take the likeliest token.
        validation_group_size: Dialogues per problem in validation.
        dialogue: Rules of the dialogue.
        feedback: What the student hears in training: "teacher", or a control of arXiv 2606.30774: "retry" (a fixed
            message), "shuffled" (the teacher's words about another problem), "resample" (no history).
        validation_turns: Turns in validation; None takes ``dialogue.max_turns``.
        fit_conditions: What is validated while training.
        conditions: What ``lit-rl validate`` and ``test`` play, each also with "_greedy": "teacher" and the controls;
            without any teacher "self_crit" (the student's own critiques), "self_crit_base" (those of the base, adapters
            off) and "shuffled_crit" (the student's own of an attempt at another problem), all three with the noise of
            "teacher" and to the last attempt, whatever a verifier says; "false_criticism" (of the solving attempt).
        max_critique_tokens: Longest critique of the student's own; None takes its ``max_tokens``.
        max_rows: Dialogues sampled at once.
        on_error: When a teacher or verifier raises: "stop" the run, or "drop" the dialogue and count it.
        seed: Of task order and all sampling noise; None takes that of ``seed_everything``.
    """

    def __init__(
        self,
        tasks: TaskSource,
        teacher: Party | PolicyParty | Callable[[Any, int], str],
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
        max_critique_tokens: int | None = None,
        max_rows: int = 256,
        on_error: Literal["stop", "drop"] = "stop",
        seed: int | None = None,
    ):
        super().__init__()
        for name in (*fit_conditions, *conditions):
            if name.removesuffix("_greedy") not in KNOWN_CONDITIONS:
                raise ValueError(
                    f"data.conditions has {name!r}; known are {list(KNOWN_CONDITIONS)}, each also as X_greedy."
                )
        if len(tasks) == 0:
            raise ValueError(f"data.tasks ({tasks.name}) is empty; there is nothing to train on.")
        for option, value in (
            ("num_validation_tasks", num_validation_tasks),
            ("tasks_per_batch", tasks_per_batch),
            ("group_size", group_size),
            ("validation_group_size", validation_group_size),
            ("max_rows", max_rows),
            ("max_critique_tokens", max_critique_tokens),
        ):
            if value is not None and value < 1:
                raise ValueError(f"data.{option} is {value}; it must be at least 1.")
        self.tasks, self.tasks_per_batch, self.group_size = tasks, tasks_per_batch, group_size
        self.batches_per_epoch, self.validation_group_size = batches_per_epoch, validation_group_size
        self.student = student or SamplingSettings()
        self.student.check_trainable()
        short = self.student.max_tokens
        self.evaluation = evaluation or SamplingSettings(temperature=0.7, top_p=0.95, max_tokens=short)
        self.dialogue, self.feedback = dialogue or Dialogue(), feedback
        self.validation_turns = validation_turns or self.dialogue.max_turns
        self.fit_conditions, self.conditions = tuple(fit_conditions), tuple(conditions)
        self.max_critique_tokens = max_critique_tokens
        self.max_rows, self.on_error, self.seed = max_rows, on_error, run_seed(seed)
        self.teacher: Party | PolicyParty = (
            teacher if isinstance(teacher, Party | PolicyParty) else ScriptedParty(teacher, TEACHER)
        )
        self.held_out, training = _hold_out(tasks, validation_tasks, num_validation_tasks)
        self._order = ShuffledOrder(training, self.seed)
        self._stream: RolloutStream | None = None

    # -- Lightning's hooks -------------------------------------------------------------------------------------

    def train_dataloader(self) -> RolloutStream:
        """The one stream of the run; its place in the task order is in the checkpoint."""
        if self._stream is None:
            self._stream = RolloutStream(self._collect_training, self.batches_per_epoch)
        return self._stream

    def val_dataloader(self) -> list[RolloutStream]:
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        return [self._evaluation_stream(c) for c in (self.fit_conditions if fitting else self.conditions)]

    def test_dataloader(self) -> list[RolloutStream]:
        return [self._evaluation_stream(condition) for condition in self.conditions]

    def predict_dataloader(self) -> list[RolloutStream]:
        return [self._evaluation_stream(self.conditions[0])]

    def ceiling(self) -> list[float] | None:
        """Best accuracy by turn that any student can reach, where the task knows it."""
        known = getattr(self.tasks, "ceiling", None)
        return None if known is None else known(self.validation_turns)

    # -- collecting --------------------------------------------------------------------------------------------

    def _collect_training(self, number: int) -> Rollouts:
        """Batch ``number``: this rank's share of the tasks, whole groups."""
        first = number * self.tasks_per_batch
        planned = []
        for place in _share(range(first, first + self.tasks_per_batch)):
            task = self._order[place]
            for index in range(place * self.group_size, (place + 1) * self.group_size):
                dialogue = self._dialogue(self.tasks, task, index, self.feedback, self.dialogue.max_turns)
                planned.append(Planned(environment=dialogue, index=index, task_id=str(task), group=place))
        rollouts = self._play(planned, "train", self.student, self.dialogue.max_turns)
        module = self._module()
        if module.needs_reference:
            fill_reference(rollouts, module.policy, token_budget=module.micro_batch_tokens)
        return rollouts

    def _evaluation_stream(self, condition: str) -> RolloutStream:
        """All held-out tasks of this rank under one condition."""
        tasks = self.held_out[rank() :: world_size()]
        if not tasks:
            raise ValueError(
                f"There are {len(self.held_out)} validation tasks for {world_size()} processes; raise "
                "data.num_validation_tasks so that each has one."
            )
        if condition.startswith("self_crit_base") and not self._module().policy.parties:
            raise ValueError("data.conditions has 'self_crit_base', which needs policy.adapters that can be off.")
        per_batch = max(1, self.max_rows // self.validation_group_size)

        def collect(number: int) -> Rollouts:
            places = [
                (source, task, index)
                for source, task in tasks[number * per_batch : (number + 1) * per_batch]
                for index in range(task * self.validation_group_size, (task + 1) * self.validation_group_size)
            ]
            return self._evaluated(places, condition)

        return RolloutStream(collect, -(-len(tasks) // per_batch), repeat=True)

    def _evaluated(self, places: Sequence[_Place], condition: str) -> Rollouts:
        feedback, settings = condition.removesuffix("_greedy"), self.evaluation
        if condition != feedback:
            settings = SamplingSettings(temperature=0.0, max_tokens=settings.max_tokens)
        noise = condition.replace(feedback, TEACHER) if feedback in SELF_CORRECTION else condition
        critiques: dict[int, list[str]] = {}
        if feedback == "shuffled_crit":
            critiques = self._critiques_elsewhere(places, noise, settings)
        planned = []
        for source, task, index in places:
            world = self._world(source, task, index, feedback, critiques.get(index, [RETRY]))
            planned.append(Planned(environment=world, index=index, task_id=str(task), group=task))
        return self._play(planned, condition, settings, self.validation_turns, noise)

    def _critiques_elsewhere(
        self, places: Sequence[_Place], noise: str, settings: SamplingSettings
    ) -> dict[int, list[str]]:
        """For each dialogue what the student says of its own attempts at another problem."""
        planned = []
        for source, task, index in places:
            elsewhere = self._self_correction(self._another(source, source[task], index), source, STUDENT)
            planned.append(Planned(environment=elsewhere, index=index, task_id=str(task), group=task))
        found = {}
        for episode in self._let_speak(planned, noise, settings).episodes:
            critiques = [turn.text for turn in episode.turns if turn.info.get("critique")]
            found[episode.index] = critiques or [RETRY]
        return found

    def _world(self, source: TaskSource, task: int, index: int, feedback: str, critiques: list[str]) -> Environment:
        if feedback == "false_criticism":
            return FalseCriticism(self._dialogue(source, task, index, TEACHER, self.validation_turns), RETRY)
        if feedback not in SELF_CORRECTION:
            return self._dialogue(source, task, index, feedback, self.validation_turns)
        critic = CRITIC if feedback == "self_crit_base" else STUDENT
        given = critiques if feedback == "shuffled_crit" else None
        return self._self_correction(source[task], source, critic, given)

    def _self_correction(
        self, problem: Problem, source: TaskSource, critic: str, critiques: list[str] | None = None
    ) -> SelfCorrection:
        return SelfCorrection(
            problem,
            source,
            max_turns=self.validation_turns,
            critic=critic,
            critiques=critiques,
            accept_message=self.dialogue.accept_message,
            max_critique_tokens=self.max_critique_tokens,
            student_instruction=self.dialogue.student_instruction,
        )

    def _dialogue(self, source: TaskSource, task: int, index: int, feedback: str, turns: int) -> DidacticDialogue:
        problem = source[task]
        other = self._another(source, problem, index) if feedback == "shuffled" else None
        rules: dict[str, Any] = asdict(self.dialogue) | {"max_turns": turns}
        return DidacticDialogue(problem, source, feedback=feedback, shuffled_problem=other, **rules)

    def _another(self, source: TaskSource, problem: Problem, index: int) -> Problem:
        """A problem with another answer, the same for every run."""
        for attempt in range(100):
            other = source[stream_key(self.seed, "other", index, attempt) % len(source)]
            if other.gold != problem.gold:
                return other
        raise ValueError(f"data.conditions has 'shuffled', but the tasks of {source.name} all have one answer.")

    def _let_speak(self, planned: list[Planned], noise: str, settings: SamplingSettings) -> Played:
        parties: dict[str, Party | PolicyParty] = {
            STUDENT: PolicyParty(adapter=STUDENT, settings=settings),
            TEACHER: self.teacher,
            CRITIC: PolicyParty(adapter=None, settings=settings),
        }
        return play(
            planned,
            parties,
            self._module().policy,
            seed=stream_key(self.seed, noise),
            max_rows=self.max_rows,
            on_error=self.on_error,
        )

    def _play(
        self, planned: list[Planned], label: str, settings: SamplingSettings, turns: int, noise: str | None = None
    ) -> Rollouts:
        played = self._let_speak(planned, noise or label, settings)
        rollouts = played_rollouts(
            played, self._module(), settings, trained=[STUDENT], parties=PARTIES, label=label, turns=turns
        )
        rollouts.figures[f"{label}/leaking_dialogues"] = float(_forget_leaks(rollouts))
        if (counts := getattr(self.teacher, "figures", None)) is not None:  # of requests: not the same after a resume
            rollouts.figures |= {f"time/teacher_{name}": value for name, value in counts().items()}
        return rollouts

    def _module(self) -> Any:
        return attached_module(self.trainer)


def _hold_out(tasks: TaskSource, others: TaskSource | None, count: int) -> tuple[list[tuple[TaskSource, int]], int]:
    """Tasks to validate on, and how many of ``tasks``, from the first on, are left to train on."""
    if others is not None:
        return [(others, i) for i in range(min(count, len(others)))], len(tasks)
    kept = len(tasks) - count
    if kept < 1:
        raise ValueError(
            f"data.tasks ({tasks.name}) has {len(tasks)} tasks and data.num_validation_tasks holds out {count}; none "
            "is left to train on. Hold out fewer, or give data.validation_tasks."
        )
    return [(tasks, i) for i in range(kept, len(tasks))], kept


def _forget_leaks(rollouts: Rollouts) -> int:
    """Learn nothing from dialogues marked by ``on_leak="drop"``, whose rewards stay in their group's statistics.

    Returns:
        How many dialogues heard the answer from the teacher.
    """
    leaks: dict[int, list[Mapping[str, Any]]] = {}
    for episode in rollouts.episodes:
        for turn in episode.turns:
            if turn.info.get("leak") and turn.info.get("heard"):
                leaks.setdefault(episode.index, []).append(turn.info)
    dropped = [index for index, infos in leaks.items() if any(info.get("drop") for info in infos)]
    if dropped:
        rows = torch.isin(rollouts.episode_ids, torch.tensor(dropped, device=rollouts.episode_ids.device))
        rollouts.loss_mask[rows] = False
        rollouts.old_log_probs[rows] = 0.0
    return len(leaks)


def _share(places: range) -> range:
    """Every rank plays its own contiguous part, so that the union is what one process would play."""
    if len(places) % world_size():
        raise ValueError(
            f"data.tasks_per_batch is {len(places)}, which {world_size()} ranks cannot share evenly; use a multiple."
        )
    part = len(places) // world_size()
    return places[rank() * part : (rank() + 1) * part]
