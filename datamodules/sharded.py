"""Conversations in which a user tells a task in parts: how a student deals with what it does not know yet."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import lightning as L

from lit_rl.datamodules.order import run_seed
from lit_rl.datamodules.played import attached_module, played_rollouts
from lit_rl.datamodules.stream import RolloutStream
from lit_rl.distributed import rank, world_size
from lit_rl.environments import USER_INSTRUCTION, ShardedDialogue, ShardedSource, max_messages, scripted_user
from lit_rl.environments.sharded import STUDENT, USER, Classifier
from lit_rl.episodes import Rollouts
from lit_rl.parties import Party, PolicyParty, ScriptedParty
from lit_rl.rollout import Planned, play
from lit_rl.sampling import SamplingSettings
from lit_rl.stream_keys import stream_key

PARTIES = (STUDENT, USER)
CONDITIONS = ("sharded", "full")


class ShardedDataModule(L.LightningDataModule):
    """The underspecified evaluation of arXiv 2505.06120, for ``lit-rl validate``, ``test`` and ``predict``.

    Every task is played ``runs`` times.  The module logs accuracy by turn and, of each condition, the figures of
    `lit_rl.metrics.ConversationSummary`.  It has nothing to train on.

    Args:
        tasks: Tasks and their parts.
        user: Who tells them: a script ``(UserContext, key) -> text``, any `Party`, or a `PolicyParty`, such as the
            frozen base; None is the tasks' own script, which needs no model.
        num_tasks: The first so many tasks; None plays all.
        runs: Conversations about each task, 10 as published.
        evaluation: How the student samples; None takes temperature 0.7 and top-p 0.95.  Conditions that end in
            "_greedy" take the likeliest token.
        conditions: "sharded", and "full": the whole task told at once, answered in one turn.  Each also with "_greedy".
        student_instruction: Opens the student's first message, see `lit_rl.environments.ShardedDialogue`.
        user_instruction: For a model that plays the user.
        classifier: ``(problem, utterance, attempt) -> class`` of a reply; None takes rules.
        max_rows: Conversations sampled at once.
        on_error: When the user or a verifier raises: "stop" the run, or "drop" the conversation and count it.
        seed: Of all sampling noise; None takes that of ``seed_everything``.

    Raises:
        ValueError: An option is unknown or out of range, or there is no task.
    """

    def __init__(
        self,
        tasks: ShardedSource,
        *,
        user: Party | PolicyParty | Callable[[Any, int], str] | None = None,
        num_tasks: int | None = None,
        runs: int = 10,
        evaluation: SamplingSettings | None = None,
        conditions: Sequence[str] = CONDITIONS,
        student_instruction: str | None = None,
        user_instruction: str = USER_INSTRUCTION,
        classifier: Classifier | None = None,
        max_rows: int = 256,
        on_error: Literal["stop", "drop"] = "stop",
        seed: int | None = None,
    ):
        super().__init__()
        for name in conditions:
            if name.removesuffix("_greedy") not in CONDITIONS:
                raise ValueError(f"data.conditions has {name!r}; known are {list(CONDITIONS)}, each also as X_greedy.")
        if not conditions:
            raise ValueError(f"data.conditions is empty; name some of {list(CONDITIONS)}.")
        if len(tasks) == 0:
            raise ValueError(f"data.tasks ({tasks.name}) is empty; there is nothing to play.")
        self.num_tasks = len(tasks) if num_tasks is None else num_tasks
        for option, value in (("num_tasks", self.num_tasks), ("runs", runs), ("max_rows", max_rows)):
            if value < 1:
                raise ValueError(f"data.{option} is {value}; it must be at least 1.")
        if self.num_tasks > len(tasks):
            raise ValueError(f"data.num_tasks is {num_tasks}, but {tasks.name} has {len(tasks)} tasks.")
        self.tasks, self.runs, self.conditions = tasks, runs, tuple(conditions)
        self.evaluation = evaluation or SamplingSettings(temperature=0.7, top_p=0.95)
        self.rules: dict[str, Any] = {
            "student_instruction": student_instruction,
            "user_instruction": user_instruction,
            "classifier": classifier,
        }
        self.max_rows, self.on_error, self.seed = max_rows, on_error, run_seed(seed)
        user = scripted_user if user is None else user
        self.user: Party | PolicyParty = user if isinstance(user, Party | PolicyParty) else ScriptedParty(user, USER)
        ShardedDialogue(tasks[0], tasks, **self.rules)  # raises if an instruction lacks something

    # -- Lightning's hooks -------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        self.check_use(stage, None)

    def check_use(self, stage: str, module: Any) -> None:
        """Raise ValueError if it is to be trained on."""
        if stage == "fit":
            raise ValueError(
                "data is a ShardedDataModule, which only evaluates; run `lit-rl validate`, or train on others."
            )

    def val_dataloader(self) -> list[RolloutStream]:
        return [self._evaluation_stream(condition) for condition in self.conditions]

    def test_dataloader(self) -> list[RolloutStream]:
        return self.val_dataloader()

    def predict_dataloader(self) -> list[RolloutStream]:
        return [self._evaluation_stream(self.conditions[0])]

    # -- collecting --------------------------------------------------------------------------------------------

    def _evaluation_stream(self, condition: str) -> RolloutStream:
        """All tasks of this rank under one condition; all runs of a task in one batch."""
        tasks = range(self.num_tasks)[rank() :: world_size()]
        if not tasks:
            raise ValueError(
                f"There are {self.num_tasks} tasks for {world_size()} processes; raise data.num_tasks so that each "
                "has one."
            )
        per_batch = max(1, self.max_rows // self.runs)
        whole = condition.removesuffix("_greedy") == "full"
        turns = 1 if whole else max(max_messages(len(self.tasks[task].shards)) for task in range(self.num_tasks))

        def collect(number: int) -> Rollouts:
            planned = [
                self._planned(task, run, whole)
                for task in tasks[number * per_batch : (number + 1) * per_batch]
                for run in range(self.runs)
            ]
            return self._play(planned, condition, turns)

        return RolloutStream(collect, -(-len(tasks) // per_batch), repeat=True)

    def _planned(self, task: int, run: int, whole: bool) -> Planned:
        problem = self.tasks[task].whole() if whole else self.tasks[task]
        return Planned(
            environment=ShardedDialogue(problem, self.tasks, **self.rules),
            index=task * self.runs + run,
            task_id=problem.id,
            group=task,
        )

    def _play(self, planned: list[Planned], condition: str, turns: int) -> Rollouts:
        module, settings = attached_module(self.trainer), self.evaluation
        if condition.endswith("_greedy"):
            settings = SamplingSettings(temperature=0.0, max_tokens=settings.max_tokens)
        played = play(
            planned,
            {STUDENT: PolicyParty(adapter=STUDENT, settings=settings), USER: self.user},
            module.policy,
            seed=stream_key(self.seed, condition),
            max_rows=self.max_rows,
            on_error=self.on_error,
        )
        return played_rollouts(
            played, module, settings, trained=[STUDENT], parties=PARTIES, label=condition, turns=turns
        )
