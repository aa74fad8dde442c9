"""What an oracle does in a world, with the subgoals it has, as demonstrations: the warm start of an agent."""

from collections.abc import Iterator

from lit_rl.demonstrations import Demonstration
from lit_rl.environments.base import Message, Reply
from lit_rl.environments.plan_execute import PlanExecuteEpisode
from lit_rl.environments.world_episode import AGENT, ActEpisode, WorldEpisode
from lit_rl.environments.world_prompts import WorldPrompts
from lit_rl.verification.plan_execute import render_plan_execute
from lit_rl.worlds.base import AdvisedWorld, WorldSource


class WorldDemonstrations:
    """Each turn of the oracle's episodes, one demonstration each, in the prompts of a rollout.

    The oracle says SWITCH where a stage of its way begins and KEEP inside it; the first turn is a SWITCH.  All
    episodes are played when the first demonstration is asked for.

    Args:
        worlds: Worlds with an oracle.
        prompts: How prompts are written; the same as in training.
        first_task: Number of the first task that is shown.
        num_tasks: Tasks that are shown; None takes all from ``first_task`` on.
        plan: Replies have a plan; False for `ActEpisode`.

    Raises:
        ValueError: No such tasks, or worlds without an oracle.
    """

    def __init__(
        self,
        worlds: WorldSource,
        *,
        prompts: WorldPrompts | None = None,
        first_task: int = 0,
        num_tasks: int | None = None,
        plan: bool = True,
    ):
        stop = len(worlds) if num_tasks is None else first_task + num_tasks
        if not 0 <= first_task < stop <= len(worlds):
            raise ValueError(
                f"WorldDemonstrations: first_task {first_task} and num_tasks {num_tasks} leave none of the "
                f"{len(worlds)} tasks of {worlds.name}, or go beyond them."
            )
        self.worlds, self.prompts, self.plan = worlds, prompts or WorldPrompts(), plan
        self.tasks = range(first_task, stop)
        self._made: list[Demonstration] = []

    def __len__(self) -> int:
        return len(self._demonstrations())

    def __getitem__(self, index: int) -> Demonstration:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._demonstrations()[index]

    def _demonstrations(self) -> list[Demonstration]:
        if not self._made:
            self._made = [turn for task in self.tasks for turn in self._episode(task)]
        return self._made

    def _episode(self, task: int) -> Iterator[Demonstration]:
        world = self.worlds[task]
        if not isinstance(world, AdvisedWorld):
            raise ValueError(
                f"WorldDemonstrations: {self.worlds.name} has no oracle; its worlds need a method advice()."
            )
        kind = PlanExecuteEpisode if self.plan else ActEpisode
        episode: WorldEpisode = kind(world, prompts=self.prompts)
        outcome = episode.begin()
        while (ask := outcome.ask) is not None:
            said = self._said(world, episode.subgoal)
            reply = Message("assistant", said, AGENT, ask.exchange)
            yield Demonstration(f"{self.worlds.name} {task}, turn {ask.exchange + 1}", (*ask.messages, reply))
            outcome = episode.act(Reply(text=said))

    def _said(self, world: AdvisedWorld, subgoal: str | None) -> str:
        advice = world.advice()
        if not self.plan:
            return f"<action>{advice.action}</action>"
        return render_plan_execute(advice.subgoal != subgoal, advice.subgoal, advice.action)
