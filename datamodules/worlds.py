"""Online episodes in worlds, with a plan or without: a row a turn, and beside it what credit needs."""

from collections.abc import Sequence
from typing import Any

import torch

from lit_rl.datamodules.alone import AloneDataModule
from lit_rl.datamodules.online import at_least_one
from lit_rl.datamodules.world_rows import TurnReader, act_extras, plan_extras, row_turns
from lit_rl.environments.plan_execute import KeepMismatch, PlanExecuteEpisode, PlanExecuteState
from lit_rl.environments.world_episode import AGENT, ActEpisode, WorldEpisode
from lit_rl.environments.world_prompts import WorldPrompts
from lit_rl.episodes import Rollouts
from lit_rl.keep_reads import fill_keep_reads
from lit_rl.rollout import Planned
from lit_rl.sampling import SamplingSettings
from lit_rl.value_reads import fill_read_values, prompt_values
from lit_rl.worlds.base import WorldSource
from lit_rl.worlds.limits import TimeLimited

WORLD = "world"
CONDITIONS = (WORLD, f"{WORLD}_greedy")


class WorldDataModule(AloneDataModule):
    """Episodes in worlds; each turn is a row with a prompt of its own.

    Beside the usual fields a batch has the ``extras`` of `lit_rl.datamodules.world_rows`; in training, of a module with
    value heads, also ``value_<head>`` of the policy that played and, where the module's ``needs_next_values`` asks for
    it, ``value_next``: in the last row of an episode that a limit cut off the value of the prompt that would follow.
    Where its ``needs_keep_reads`` asks for them, ``value_keep`` and ``switch_prob`` (see `lit_rl.keep_reads`).

    Args:
        worlds: To train in.
        validation_worlds: To validate in; None holds out the last ``num_validation_tasks`` of ``worlds``.
        plan: Replies have switch, subgoal and action; False for an action alone.
        prompts: How prompts are written.
        max_turns: A limit beside the worlds' own.
        on_keep_mismatch: What KEEP with another subgoal leads to, see `PlanExecuteState`.
        strict_actions: A turn whose action is not admissible is invalid.
        refuse_cjk: A reply with Chinese, Japanese or Korean characters is invalid.
        train_eos: The end-of-turn token belongs to the action.
        include_tags: The tags belong to their blocks.
        step_seconds: Limit of one step of a world; what hangs longer fails as ``on_error`` says.  None has no limits.
        reset_seconds: The same for the beginning of an episode.
        party: Who acts; the trained party of the method.
        group_size: Episodes of every world; 1 is enough where values are the baseline.
        student: How the agent samples in training.
        evaluation: How it samples in validation; None takes temperature 0.4, as published.
        fit_conditions: What is validated while training: "world", "world_greedy".
        conditions: What ``lit-rl validate`` and ``test`` play.
        kwargs: Of `OnlineDataModule`; a task is a world.
    """

    known = CONDITIONS

    def __init__(
        self,
        worlds: WorldSource,
        *,
        validation_worlds: WorldSource | None = None,
        plan: bool = True,
        prompts: WorldPrompts | None = None,
        max_turns: int | None = None,
        on_keep_mismatch: KeepMismatch = "carry",
        strict_actions: bool = False,
        refuse_cjk: bool = False,
        train_eos: bool = True,
        include_tags: bool = True,
        step_seconds: float | None = 60.0,
        reset_seconds: float = 300.0,
        party: str = AGENT,
        group_size: int = 1,
        student: SamplingSettings | None = None,
        evaluation: SamplingSettings | None = None,
        fit_conditions: Sequence[str] = (WORLD,),
        conditions: Sequence[str] = CONDITIONS,
        **kwargs: Any,
    ):
        student = student or SamplingSettings(max_tokens=512)
        super().__init__(
            worlds,
            party=party,
            fit_conditions=fit_conditions,
            conditions=conditions,
            validation_tasks=validation_worlds,
            group_size=group_size,
            student=student,
            evaluation=evaluation or SamplingSettings(temperature=0.4, max_tokens=student.max_tokens),
            **kwargs,
        )
        at_least_one(max_turns=max_turns)
        for option, seconds in (("step_seconds", step_seconds), ("reset_seconds", reset_seconds)):
            if seconds is not None and not seconds > 0:
                raise ValueError(f"data.{option} is {seconds}; it must be above 0.")
        if not plan and (on_keep_mismatch != "carry" or not train_eos or not include_tags):
            raise ValueError(
                "data.on_keep_mismatch, train_eos and include_tags are about plans; set data.plan to true."
            )
        self.plan = plan
        self.train_eos, self.include_tags = train_eos, include_tags
        self.step_seconds, self.reset_seconds = step_seconds, reset_seconds
        self._options: dict[str, Any] = {"prompts": prompts, "party": party, "max_turns": max_turns}
        self._options |= {"strict_actions": strict_actions, "refuse_cjk": refuse_cjk}
        if plan:
            self._options["on_keep_mismatch"] = PlanExecuteState(on_keep_mismatch).on_keep_mismatch
        self._reader: TurnReader | None = None

    # -- collecting --------------------------------------------------------------------------------------------

    def play_training(self, planned: list[Planned]) -> Rollouts:
        rollouts, module = super().play_training(planned), self._module()
        if len(module.policy.value_heads):
            party = getattr(module, "value_party", self.party)
            fill_read_values(rollouts, module.policy, party=party, token_budget=module.micro_batch_tokens)
            _without_subgoals(rollouts)
            if getattr(module, "needs_next_values", False):
                self._fill_next_values(rollouts, planned, party)
            if getattr(module, "needs_keep_reads", False):
                self._fill_keep_reads(rollouts, party)
        return rollouts

    def episode(self, source: Any, task: int) -> WorldEpisode:
        world = source[task]
        if self.step_seconds is not None:
            world = TimeLimited(world, step_seconds=self.step_seconds, reset_seconds=self.reset_seconds)
        return (PlanExecuteEpisode if self.plan else ActEpisode)(world, **self._options)

    def play_alone(self, planned: list[Planned], label: str, settings: SamplingSettings) -> Rollouts:
        rollouts = super().play_alone(planned, label, settings)
        rollouts.extras |= self._extras(rollouts, self._module().policy)
        return rollouts

    def _extras(self, rollouts: Rollouts, policy: Any) -> dict[str, torch.Tensor]:
        if not self.plan:
            return act_extras(rollouts, self.party)
        if self._reader is None:
            self._reader = TurnReader(policy, self.party, train_eos=self.train_eos, include_tags=self.include_tags)
        return plan_extras(rollouts, self.party, self._reader)

    def _fill_keep_reads(self, rollouts: Rollouts, value_party: str) -> None:
        if not self.plan:
            raise ValueError("switch='gain' compares keeping a subgoal with a new one; set data.plan to true.")
        module = self._module()
        fill_keep_reads(
            rollouts,
            row_turns(rollouts, self.party),
            module.policy,
            party=self.party,
            value_party=value_party,
            token_budget=module.micro_batch_tokens,
        )

    def _fill_next_values(self, rollouts: Rollouts, planned: Sequence[Planned], party: str) -> None:
        """The switch head (or the one there is) on the prompt after an episode that was cut off."""
        module = self._module()
        policy = module.policy
        worlds = {plan.index: plan.environment for plan in planned if isinstance(plan.environment, WorldEpisode)}
        head = next(head for head in ("switch", "high", "low") if head in policy.value_heads)
        cut = [episode for episode in rollouts.episodes if episode.truncated]
        asks = [worlds[episode.index].ask() for episode in cut]
        prompts = [policy.chat.opening(self.party, ask.messages, ask.role).ids for ask in asks]
        values = prompt_values(policy, prompts, party=party, head=head, token_budget=module.micro_batch_tokens)
        last_row = {index: row for row, index in enumerate(rollouts.episode_ids.tolist())}
        filled = torch.zeros(len(rollouts), device=values.device)
        filled[[last_row[episode.index] for episode in cut]] = values
        rollouts.extras["value_next"] = filled


def _without_subgoals(rollouts: Rollouts) -> None:
    """Where a reply states no subgoal the low-level baseline is what is known before: ``value_switch``.

    hiper.md 5.1 reads the low head there too, at a position where it is hardly ever trained: what it says of the few
    malformed replies is noise that their advantages are made of.
    """
    extras = rollouts.extras
    if {"value_low", "value_switch", "subgoal_mask"} <= extras.keys():
        stated = extras["subgoal_mask"].any(1)
        extras["value_low"] = torch.where(stated, extras["value_low"], extras["value_switch"])
