"""ToyShop's rules as a pure function: a small shop with hidden customers and an early-coupon trap (gopo.md section 10).

The environment is ours; GOPO's own customer service data could not be had.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from lit_rl.metrics.engagement import Milestones
from lit_rl.service.sop import Procedure

GREET, ASK_NEED, RECOMMEND, ANSWER_POLICY = "greet", "ask_need", "recommend", "answer_policy"
HANDLE_TRUST, OFFER_COUPON, CLOSE, HANDOFF = "handle_trust", "offer_coupon", "close", "handoff"

Objection = Literal["none", "price", "trust"]
OBJECTIONS: tuple[Objection, ...] = get_args(Objection)
NUM_NEEDS = 4
PATIENCE = 8


@dataclass(frozen=True, slots=True)
class ShopGoal:
    """What is hidden: a customer.

    Raises:
        ValueError: A need or objection that does not exist, or no patience at all.
    """

    need: int  # which item would be right
    objection: Objection = "none"
    patience: int = PATIENCE  # turns until the customer leaves

    def __post_init__(self) -> None:
        if not 0 <= self.need < NUM_NEEDS or self.objection not in OBJECTIONS or self.patience < 1:
            raise ValueError(
                f"{self}: need must be in 0..{NUM_NEEDS - 1}, objection one of {list(OBJECTIONS)}, patience at least 1."
            )


@dataclass(frozen=True, slots=True)
class ShopState:
    """What has happened; all but ``patience`` can be known from the dialogue."""

    patience: int
    greeted: bool = False
    need_known: bool = False
    recommended: bool = False
    objection_seen: Objection | None = None  # None until it is revealed
    resolved: bool = False
    coupon_used: bool = False
    policy_told: bool = False
    ordered: bool = False


Ended = Literal["ordered", "handoff", "left"]


@dataclass(frozen=True, slots=True)
class ShopStep:
    """What a turn led to."""

    state: ShopState
    engagement: float  # of the customer, in [0, 1]
    effect: bool  # whether the skill did what it is for
    milestones: tuple[str, ...] = ()
    ended: Ended | None = None


# Milestone -> the flag it stands for, and its weight.
_MILESTONES = {"need": "need_known", "recommendation": "recommended", "resolution": "resolved", "order": "ordered"}
_WEIGHTS = {"need": 0.15, "recommendation": 0.25, "resolution": 0.20, "order": 0.40}

# Skill -> engagement where it has an effect.
_ENGAGEMENT = {
    GREET: 0.5,
    ASK_NEED: 0.6,
    RECOMMEND: 0.8,
    ANSWER_POLICY: 0.3,
    HANDLE_TRUST: 0.8,
    OFFER_COUPON: 1.0,
    CLOSE: 1.0,
    HANDOFF: 0.0,
}


def toy_shop_procedure() -> Procedure:
    """Rules S1 to S6 and the replies, from the file beside this one."""
    return Procedure.from_yaml(Path(__file__).with_name("toy_shop.yaml"))


def milestones_of(goal: ShopGoal) -> Milestones:
    """Weights of the milestones and the turns at which an expert achieves them."""
    objects = goal.objection != "none"
    turns = {"need": 2, "recommendation": 3, "resolution": 4 if objects else 3, "order": 6 if objects else 5}
    return Milestones(weights=_WEIGHTS, expert_turns=turns)


def step(state: ShopState, goal: ShopGoal, skill: str | None, item: int | None, reply_ok: bool) -> ShopStep:
    """One turn of the service.

    Every turn costs one unit of patience; a reply that breaks its constraint, a wrong or premature recommendation and a
    premature closing cost another.  Nothing is forbidden here: that is the procedure's part.

    Args:
        state: Before the turn.
        goal: Of this customer.
        skill: What was done; None if the plan named no skill, which has no effect.
        item: The item that the reply names, if it names one.
        reply_ok: Whether the reply kept to its constraint.

    Raises:
        ValueError: An unknown skill.
    """
    if skill is not None and skill not in _ENGAGEMENT:
        raise ValueError(f"ToyShop has no skill {skill!r}; its skills are {list(_ENGAGEMENT)}.")
    after = _changed(state, goal, skill, item) if skill is not None and reply_ok else None
    cost = 1 + (skill is not None and (not reply_ok or (after is None and _annoys(state, skill))))
    new = replace(state if after is None else after, patience=state.patience - cost)
    ended: Ended | None = "left" if new.patience <= 0 else None
    if after is not None and skill in (CLOSE, HANDOFF):
        ended = "ordered" if skill == CLOSE else "handoff"
    return ShopStep(
        state=new,
        engagement=_ENGAGEMENT[skill] if skill is not None and after is not None else 0.0,
        effect=after is not None,
        milestones=tuple(name for name, flag in _MILESTONES.items() if getattr(new, flag) and not getattr(state, flag)),
        ended=ended,
    )


def _changed(state: ShopState, goal: ShopGoal, skill: str, item: int | None) -> ShopState | None:
    """The state with the skill's effect, or None if it has none."""
    match skill:
        case "greet" if not state.greeted:
            return replace(state, greeted=True)
        case "ask_need" if not state.need_known:
            return replace(state, need_known=True)
        case "recommend" if state.need_known and not state.recommended and item == goal.need:
            settled = goal.objection == "none"
            return replace(state, recommended=True, objection_seen=goal.objection, resolved=settled)
        case "answer_policy" if not state.policy_told:
            return replace(state, policy_told=True)
        case "handle_trust" if _objects(state, "trust"):
            return replace(state, resolved=True)
        case "offer_coupon" if not state.coupon_used:
            return replace(state, coupon_used=True, resolved=state.resolved or _objects(state, "price"))
        case "close" if state.recommended and state.resolved and state.policy_told:
            return replace(state, ordered=True)
        case "handoff":
            return state
    return None


def _objects(state: ShopState, objection: Objection) -> bool:
    return state.objection_seen == objection and not state.resolved


def _annoys(state: ShopState, skill: str) -> bool:
    """Whether doing this in vain costs patience of its own; recommending once more does not."""
    return skill == CLOSE or (skill == RECOMMEND and not state.recommended)
