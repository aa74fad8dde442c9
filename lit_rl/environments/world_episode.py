"""One agent in a world: every turn a prompt of its own, a reply, a step."""

import math
from collections.abc import Mapping
from typing import Any

from lit_rl.environments.base import Ask, Message, Outcome, Reply
from lit_rl.environments.world_prompts import WorldPrompts, WorldView
from lit_rl.verification.plan_execute import parse_action
from lit_rl.worlds.base import Observation, Step, World, WorldFailure, admitted

AGENT = "agent"


class WorldEpisode:
    """What episodes around a `World` share: prompts, steps and how they end.

    A turn is a row: each prompt restarts the agent's conversation.  A turn's ``info`` holds what the world says about
    it, ``observation`` (what the agent saw before), ``action`` (as the world knows it), ``admissible`` (whether it was
    one of the actions listed; true where none are) and ``valid``.  An inadmissible action is still taken: the world
    says that nothing happens.

    Args:
        world: A new one.
        prompts: How prompts are written.
        party: Who acts.
        max_turns: A limit beside the world's own; None for none.
        strict_actions: A turn whose action is not admissible is invalid (our option).
        refuse_cjk: A reply with Chinese, Japanese or Korean characters is invalid.

    Raises:
        ValueError: ``max_turns`` below 1.
    """

    plans = False

    def __init__(
        self,
        world: World,
        *,
        prompts: WorldPrompts | None = None,
        party: str = AGENT,
        max_turns: int | None = None,
        strict_actions: bool = False,
        refuse_cjk: bool = False,
    ):
        if max_turns is not None and max_turns < 1:
            raise ValueError(f"{type(self).__name__}.max_turns is {max_turns}; it must be at least 1, or None.")
        self.world, self.prompts, self.party, self.max_turns = world, prompts or WorldPrompts(), party, max_turns
        self.strict_actions, self.refuse_cjk = strict_actions, refuse_cjk
        self.history: list[tuple[str, str]] = []  # one pair a turn
        self.observation = Observation("")
        self.subgoal: str | None = None  # of whoever plans

    def begin(self) -> Outcome:
        self.observation = self.world.reset()
        return Outcome(ask=self.ask())

    def act(self, reply: Reply) -> Outcome:
        action, valid = parse_action(reply.text, refuse_cjk=self.refuse_cjk)
        return self._step(action, valid, {})

    def close(self) -> None:
        """Let go of the world; whoever plays the episode calls this however it ends."""
        self.world.close()

    def ask(self) -> Ask:
        """What the agent is asked next, or would be asked if a limit had not cut the episode off."""
        view = WorldView(
            task=self.world.task,
            observation=self.observation.text,
            admissible=self.observation.admissible,
            history=self.history,
            subgoal=self.subgoal,
        )
        prompt = Message("user", self.prompts.render(view, plan=self.plans))
        return Ask(party=self.party, messages=(prompt,), exchange=len(self.history), restart=True)

    def _step(self, said: str, valid: bool, facts: Mapping[str, Any]) -> Outcome:
        """Take an action that the agent wrote."""
        seen, known = self.observation, admitted(said, self.observation.admissible)
        admissible = known is not None or (not seen.admissible and bool(said))
        action = said if known is None else known
        info = {**facts, "observation": seen.text, "action": action, "admissible": admissible}
        info["valid"] = valid and (admissible or not self.strict_actions)
        step = checked(self.world.step(action), self.world)
        self.history.append((seen.text, action))
        self.observation = step.observation
        return self._after(step, {**step.info, **info})

    def _after(self, step: Step, info: dict[str, Any]) -> Outcome:
        rewards = {self.party: step.reward}
        late = len(self.history) == self.max_turns
        if not (step.terminated or step.truncated or late):
            return Outcome(ask=self.ask(), rewards=rewards, info=info)
        if step.terminated:
            solved = step.info.get("success", step.reward > 0)
            return Outcome(rewards=rewards, info=info, stop_reason="solved" if solved else "failed", terminated=True)
        reason = "time_limit" if step.truncated else "max_turns"
        return Outcome(rewards=rewards, info=info, stop_reason=reason, truncated=True)


class ActEpisode(WorldEpisode):
    """An agent that acts without saying a plan: ``<action>go to shelf 1</action>``; the flat baseline."""


def checked(step: Step, world: World) -> Step:
    """The step; raises `WorldFailure` if its reward is no finite number."""
    if not math.isfinite(step.reward):
        raise WorldFailure(f"{type(world).__name__} paid {step.reward} for a step; rewards must be finite numbers.")
    return step
