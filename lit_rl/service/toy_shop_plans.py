"""ToyShop's plans: what an expert would do, what a plan comes to, and the best plan there is (gopo.md section 11)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lit_rl.metrics.engagement import tse
from lit_rl.service.sop import Procedure
from lit_rl.service.toy_shop import (
    ANSWER_POLICY,
    ASK_NEED,
    CLOSE,
    GREET,
    HANDLE_TRUST,
    HANDOFF,
    OFFER_COUPON,
    RECOMMEND,
    Ended,
    ShopGoal,
    ShopState,
    milestones_of,
    step,
)


@dataclass(frozen=True, slots=True)
class PlanRun:
    """A plan and what it led to, if every reply is right and names the right item."""

    plan: tuple[str, ...] = ()
    engagement: tuple[float, ...] = ()
    milestones: tuple[tuple[str, ...], ...] = ()  # achieved at each turn
    broken_rules: tuple[tuple[str, ...], ...] = ()  # at each turn
    ended: Ended | None = None

    def tse(self, goal: ShopGoal, *, compliant: bool = False) -> float:
        """TSE as `lit_rl.metrics.engagement.tse` has it by default."""
        broken = [bool(rules) for rules in self.broken_rules] if compliant else None
        return tse(self.milestones, self.engagement, milestones_of(goal), broken=broken)


def expert_plan(state: ShopState, goal: ShopGoal) -> tuple[str, ...]:
    """What somebody who knows the customer would do from here on, to the end.

    Everything in the order of the milestones' turns; if the order has become impossible, the milestones that are left,
    and then the customer is handed over.
    """
    plan = [] if state.greeted else [GREET]
    plan += [] if state.need_known else [ASK_NEED]
    plan += [] if state.recommended else [RECOMMEND]
    if not state.resolved and goal.objection == "price" and state.coupon_used:
        return (*plan, HANDOFF)
    if not state.resolved and goal.objection != "none":
        plan.append(OFFER_COUPON if goal.objection == "price" else HANDLE_TRUST)
    return (*plan, *(() if state.policy_told else (ANSWER_POLICY,)), CLOSE)


def relevance(plan: Sequence[str]) -> dict[str, int]:
    """Grades of the skills as an expert annotates them in hindsight: 3 for the next, 2 and 1 for the two after it.

    All others have grade 0.

    Example:
        >>> relevance(["ask_need", "recommend", "offer_coupon", "answer_policy"])
        {'ask_need': 3, 'recommend': 2, 'offer_coupon': 1}
    """
    return dict(zip(plan, (3, 2, 1), strict=False))


def run_plan(goal: ShopGoal, plan: Sequence[str], procedure: Procedure) -> PlanRun:
    """Follow a plan until it or the dialogue is over."""
    search = _Search(goal, procedure)
    node = search.root
    for skill in plan:
        if node.run.ended:
            break
        node = search.after(node, skill)
    return node.run


def best_plan(
    goal: ShopGoal, procedure: Procedure, *, compliant: bool = True, max_turns: int = 7
) -> tuple[PlanRun, float]:
    """The plan with the highest TSE, and that TSE, found by trying all.

    The mean over `OBJECTIONS <lit_rl.service.toy_shop.OBJECTIONS>` of the best compliant TSE is the bound of what
    training can reach under hard masks.

    Args:
        goal: The customer.
        procedure: Whose rules count.
        compliant: Only plans that break no rule.  Otherwise all, scored by the plain TSE, which does not mind.
        max_turns: Longest plan.
    """
    search = _Search(goal, procedure)
    best, most = PlanRun(), -1.0
    layer = [search.root]
    for turn in range(1, max_turns + 1):
        # Plans that agree in everything that still counts are one: only the order of the past differs.
        merged: dict[tuple[object, ...], _Node] = {}
        for node in layer:
            for skill in procedure.admissible(node.sop_state) if compliant else procedure.skills:
                after = search.after(node, skill)
                merged.setdefault(after.key(), after)
        over = [node for node in merged.values() if node.run.ended or turn == max_turns]
        for node in over:
            if (score := node.run.tse(goal)) > most:
                best, most = node.run, score
        layer = [node for node in merged.values() if not node.run.ended]
    return best, most


@dataclass(frozen=True, slots=True)
class _Node:
    state: ShopState
    sop_state: int
    run: PlanRun
    reached: Mapping[str, int]  # milestone -> turn

    def key(self) -> tuple[object, ...]:
        total = round(sum(self.run.engagement), 6)
        return (self.state, self.sop_state, total, self.run.ended, tuple(self.reached.items()))


class _Search:
    def __init__(self, goal: ShopGoal, procedure: Procedure):
        self.goal, self.procedure = goal, procedure
        self.root = _Node(ShopState(goal.patience), 0, PlanRun(), {})

    def after(self, node: _Node, skill: str) -> _Node:
        run, done = node.run, step(node.state, self.goal, skill, self.goal.need, True)
        turn = len(run.plan) + 1
        return _Node(
            done.state,
            self.procedure.next(node.sop_state, skill) if done.effect else node.sop_state,
            PlanRun(
                (*run.plan, skill),
                (*run.engagement, done.engagement),
                (*run.milestones, done.milestones),
                (*run.broken_rules, self.procedure.broken_rules(node.sop_state, skill)),
                done.ended,
            ),
            {**node.reached, **dict.fromkeys(done.milestones, turn)},
        )
