"""An agent that says in every turn whether it keeps its subgoal, which one it has, and what it does (HiPER)."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from lit_rl.environments.base import Outcome, Reply
from lit_rl.environments.world_episode import WorldEpisode
from lit_rl.verification.plan_execute import PlanExecute, parse_plan_execute
from lit_rl.worlds.base import World

KeepMismatch = Literal["carry", "trust_text"]


@dataclass(slots=True)
class PlanExecuteState:
    """The subgoal from turn to turn.

    A turn begins a segment (``boundary``) if it is the first, or says SWITCH and a subgoal.  A malformed turn leaves
    the subgoal as it is.

    Args:
        on_keep_mismatch: What a turn that says KEEP and another subgoal leads to.  "carry" (after the paper): the old
            one stays; "trust_text" (after the authors' code): the new one is current, without beginning a segment.

    Raises:
        ValueError: ``on_keep_mismatch`` is unknown.
    """

    on_keep_mismatch: KeepMismatch = "carry"
    subgoal: str | None = None
    turns: int = 0

    def __post_init__(self) -> None:
        if self.on_keep_mismatch not in get_args(KeepMismatch):
            raise ValueError(
                f"PlanExecuteState.on_keep_mismatch is {self.on_keep_mismatch!r}; use one of "
                f"{list(get_args(KeepMismatch))}."
            )

    def step(self, parsed: PlanExecute) -> tuple[bool, bool]:
        """Take a turn: ``(boundary, keep_mismatch)``, the latter never in the first turn.

        A mismatch is against the subgoal that the prompt showed (our reading; the authors compare with the text of the
        turn before, which under "carry" may never have been current).
        """
        first, written = self.turns == 0, parsed.subgoal
        boundary = first or (parsed.switch and bool(written))
        mismatch = bool(not first and not parsed.switch and written and self.subgoal and written != self.subgoal)
        if written and (boundary or self.on_keep_mismatch == "trust_text"):
            self.subgoal = written
        self.turns += 1
        return boundary, mismatch


class PlanExecuteEpisode(WorldEpisode):
    """`WorldEpisode` with a plan: replies have the three blocks of `lit_rl.verification.plan_execute`.

    As published: the subgoal is carried from turn to turn and shown in the next prompt, literally ``None`` before the
    first turn, which always begins a segment.

    Beside `WorldEpisode`'s, a turn's ``info`` holds what penalties and credit are made of: ``switch`` (the reply says
    SWITCH), ``subgoal`` (current from this turn on, "" before there is one), ``boundary`` and ``keep_mismatch``.  No
    penalty is in the rewards.

    Args:
        world: A new one.
        on_keep_mismatch: See `PlanExecuteState`.
        kwargs: Of `WorldEpisode`.
    """

    plans = True

    def __init__(self, world: World, *, on_keep_mismatch: KeepMismatch = "carry", **kwargs: Any):
        super().__init__(world, **kwargs)
        self.state = PlanExecuteState(on_keep_mismatch)

    def act(self, reply: Reply) -> Outcome:
        parsed = parse_plan_execute(reply.text, refuse_cjk=self.refuse_cjk)
        boundary, mismatch = self.state.step(parsed)
        self.subgoal = self.state.subgoal
        facts = {"switch": parsed.switch, "subgoal": self.subgoal or "", "boundary": boundary}
        return self._step(parsed.action, parsed.valid, {**facts, "keep_mismatch": mismatch})
