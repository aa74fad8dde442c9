"""ToyShop as a world to serve in, and its scenarios (gopo.md section 10)."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from lit_rl.service.sop import Procedure
from lit_rl.service.toy_shop import (
    NUM_NEEDS,
    OBJECTIONS,
    PATIENCE,
    RECOMMEND,
    Objection,
    ShopGoal,
    ShopState,
    milestones_of,
    step,
    toy_shop_procedure,
)
from lit_rl.service.toy_shop_plans import expert_plan, relevance
from lit_rl.service.toy_shop_words import ITEMS, REPLIES, cue_after, item_named, opening_cue
from lit_rl.service.world import ServiceStep, ServiceWorld
from lit_rl.stream_keys import stream_key


class ToyShop:
    """One customer in the shop; a `ServiceWorld <lit_rl.service.world.ServiceWorld>`.

    The facts of a step are ``item`` (named by a recommendation, or None) and ``patience`` (left).
    """

    def __init__(self, goal: ShopGoal, procedure: Procedure, seed: int = 0):
        self.goal, self.procedure = goal, procedure
        self.milestones = milestones_of(goal)
        self.scenario: Mapping[str, Any] = {
            "goal": {"need": goal.need, "item": ITEMS[goal.need], "objection": goal.objection},
            "persona": {"patience": goal.patience},
            "seed": seed,
        }
        self.opening = opening_cue()
        self.state = ShopState(goal.patience)

    def relevance(self) -> Mapping[str, int]:
        return relevance(expert_plan(self.state, self.goal))

    def reference(self, skill: str) -> str | None:
        return REPLIES[skill].format(item=ITEMS[self.goal.need])

    def step(self, skill: str | None, reply: str, ok: bool) -> ServiceStep:
        before, item = self.state, item_named(reply) if skill == RECOMMEND else None
        taken = step(before, self.goal, skill, item, ok)
        self.state = taken.state
        cue = None
        if taken.ended is None:
            cue = cue_after(skill, before, self.state, self.goal.need, effect=taken.effect, reply_ok=ok)
        return ServiceStep(
            engagement=taken.engagement,
            effect=taken.effect,
            milestones=taken.milestones,
            ended=taken.ended,
            success=taken.ended == "ordered",
            cue=cue,
            facts={"item": None if item is None else ITEMS[item], "patience": self.state.patience},
        )


class ServiceScenarios:
    """Hidden goals of ToyShop's customers: needs and objections in equal shares, in an order that the seed fixes.

    Args:
        size: Number of scenarios; each dozen has every need with every objection once.
        seed: Of the order.
        objections: Those that occur.
        patience: Turns until a customer leaves.
        procedure: Other rules than S1 to S6, over the same skills; the path of a YAML file.

    Raises:
        ValueError: An option is out of range, or the procedure has other skills.
    """

    name = "ToyShop"

    def __init__(
        self,
        size: int = 96,
        seed: int = 0,
        *,
        objections: Sequence[Objection] = OBJECTIONS,
        patience: int = PATIENCE,
        procedure: str | None = None,
    ):
        if size < 1:
            raise ValueError(f"ServiceScenarios.size is {size}; it must be at least 1.")
        if not objections or len(set(objections)) != len(objections):
            raise ValueError(
                f"ServiceScenarios.objections is {list(objections)}; give different ones of {list(OBJECTIONS)}."
            )
        self.seed, self.size = seed, size
        self.procedure = toy_shop_procedure()
        if procedure is not None:
            skills, self.procedure = self.procedure.skills, Procedure.from_yaml(procedure)
            if set(self.procedure.skills) != set(skills):
                raise ValueError(f"{procedure} is about {list(self.procedure.skills)}; ToyShop has {list(skills)}.")
        self._goals = [ShopGoal(need, objection, patience) for objection in objections for need in range(NUM_NEEDS)]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> ServiceWorld:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return ToyShop(self.goal(index), self.procedure, seed=index)

    def goal(self, index: int) -> ShopGoal:
        """The hidden goal of a scenario."""
        block, place = divmod(index, len(self._goals))
        order = list(range(len(self._goals)))
        Random(stream_key(self.seed, self.name, block)).shuffle(order)
        return self._goals[order[place]]
