"""What served dialogues are worth, and what rules they broke: one record per dialogue, and their means.

A score that can rise through broken rules says nothing alone: whoever reports TSE here reports violations beside it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_rl.metrics.engagement import Milestones, check_tse_options, tse
from lit_rl.metrics.expert_skills import Gain, check_esndcg_options, check_turn_options, dialogue_esndcg, esndcg

# Sums over dialogues; figures that are undefined for some have a count of their own.
_SUMS = (
    "dialogues", "tse", "tse_compliant", "orders", "violated", "violations", "turns",
    "esndcg", "with_esndcg", "gre", "with_gre",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedDialogue:
    """A dialogue as its turns of the service.

    Attributes:
        turns: Facts of each, by name: ``milestones`` (names of those achieved), ``engagement`` in [0, 1],
            ``broken_rules``, ``skill`` and ``chain`` (the skill executed and all planned; None and empty if the plan
            was none), ``relevance`` (grade by skill; empty where no expert graded), ``ok`` (the reply carried the skill
            out), and where replies are rated ``gre`` in [0, 1] or None.  Further facts do not matter.
        milestones: Of its task.
        ordered: Whether the dialogue ended in what the business wants.
    """

    turns: Sequence[Mapping[str, Any]]
    milestones: Milestones
    ordered: bool


class ServiceFigures(NamedTuple):
    """What one dialogue came to."""

    tse: float
    tse_compliant: float
    esndcg: float | None  # None if no turn is graded
    gre: float | None  # mean over the rated turns; None if none is
    violations: int  # rules broken, over all turns
    turns: int
    ordered: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceScoring:
    """How dialogues are scored (gopo.md sections 4 and 7).

    Args:
        lateness_discount: Of TSE, for each turn that a milestone is late.
        engagement_weight: Of TSE.
        cutoff: Places of a chain that ESNDCG counts.
        gain: Of ESNDCG.
        gamma: Of ESNDCG, discount per turn.
        undefined: What a turn without grades counts as in ESNDCG; None leaves it out.

    Raises:
        ValueError: An option out of range.
    """

    lateness_discount: float = 0.9
    engagement_weight: float = 0.5
    cutoff: int = 3
    gain: Gain = "exponential"
    gamma: float = 1.0
    undefined: float | None = None

    def __post_init__(self) -> None:
        check_tse_options(self.lateness_discount, self.engagement_weight)
        check_esndcg_options(self.cutoff, self.gain)
        check_turn_options(self.gamma, self.undefined)

    def turn_esndcg(self, dialogue: ServedDialogue) -> list[float | None]:
        """ESNDCG of each turn; None where it is undefined."""
        return [esndcg(turn["chain"], turn["relevance"], cutoff=self.cutoff, gain=self.gain) for turn in dialogue.turns]

    def figures(self, dialogue: ServedDialogue) -> ServiceFigures:
        """What a dialogue came to.

        Raises:
            ValueError: As `lit_rl.metrics.engagement.tse` and `lit_rl.metrics.expert_skills.esndcg`.
        """
        achieved = [turn["milestones"] for turn in dialogue.turns]
        engagement = [turn["engagement"] for turn in dialogue.turns]
        broken = [bool(turn["broken_rules"]) for turn in dialogue.turns]
        score = partial(
            tse,
            achieved,
            engagement,
            dialogue.milestones,
            lateness_discount=self.lateness_discount,
            engagement_weight=self.engagement_weight,
        )
        rated = [turn["gre"] for turn in dialogue.turns if turn.get("gre") is not None]
        return ServiceFigures(
            tse=score(),
            tse_compliant=score(broken=broken),
            esndcg=dialogue_esndcg(self.turn_esndcg(dialogue), gamma=self.gamma, undefined=self.undefined),
            gre=math.fsum(rated) / len(rated) if rated else None,
            violations=sum(len(turn["broken_rules"]) for turn in dialogue.turns),
            turns=len(dialogue.turns),
            ordered=dialogue.ordered,
        )


class ServiceSummary(Metric):
    """Means over served dialogues, accumulated over batches and ranks (torchmetrics).

    Args:
        skills: All skills; what is executed is counted for each.
        scoring: How dialogues are scored; None takes the defaults.
        kwargs: Of torchmetrics' ``Metric``.

    Raises:
        ValueError: No skill, or one twice.
    """

    full_state_update = False

    sums: Tensor
    executed: Tensor
    planned: Tensor

    def __init__(self, skills: Sequence[str], scoring: ServiceScoring | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if not skills or len(set(skills)) < len(skills):
            raise ValueError(f"ServiceSummary.skills is {list(skills)}; give all skills, each once.")
        self.skills, self.scoring = tuple(skills), scoring or ServiceScoring()
        self.add_state("sums", torch.zeros(len(_SUMS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("executed", torch.zeros(len(skills), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("planned", torch.zeros(len(skills), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, dialogues: Sequence[ServedDialogue]) -> None:
        """Add dialogues.

        Raises:
            ValueError: A skill that is not among ``skills``, or as `ServiceScoring.figures`.
        """
        for dialogue in dialogues:
            self.sums += _sums(self.scoring.figures(dialogue)).to(self.sums.device)
            for turn in dialogue.turns:
                if turn["skill"] is not None:
                    place = self._place(turn["skill"])
                    self.planned[place] += 1
                    self.executed[place] += bool(turn["ok"])

    def compute(self) -> dict[str, Tensor]:
        """Float64 numbers by name, NaN where undefined.

        * ``tse``, ``tse_compliant``, ``esndcg``, ``gre``: means over the dialogues for which they are defined, in
          [0, 1].
        * ``orders``: share of the dialogues that ended in an order.
        * ``dialogues_with_violation``: share of them in which a rule was broken; ``violations_per_turn``: rules broken
          over all turns.
        * ``turns``: mean number; ``dialogues``: how many there are.
        * ``execution``: share of the planned turns whose reply carried the skill out, and ``execution/<skill>`` of the
          turns of each skill.
        """
        sums = dict(zip(_SUMS, self.sums.unbind(), strict=True))
        count = sums["dialogues"]
        shares = (self.executed.double() / self.planned).unbind()
        return {
            "tse": sums["tse"] / count,
            "tse_compliant": sums["tse_compliant"] / count,
            "esndcg": sums["esndcg"] / sums["with_esndcg"],
            "gre": sums["gre"] / sums["with_gre"],
            "orders": sums["orders"] / count,
            "dialogues_with_violation": sums["violated"] / count,
            "violations_per_turn": sums["violations"] / sums["turns"],
            "turns": sums["turns"] / count,
            "dialogues": count,
            "execution": self.executed.sum().double() / self.planned.sum(),
            **{f"execution/{skill}": share for skill, share in zip(self.skills, shares, strict=True)},
        }

    def _place(self, skill: str) -> int:
        if skill not in self.skills:
            raise ValueError(f"A turn has the skill {skill!r}; ServiceSummary.skills is {list(self.skills)}.")
        return self.skills.index(skill)


def _sums(figures: ServiceFigures) -> Tensor:
    """One dialogue's part, float64 in the order of ``_SUMS``."""
    parts = {
        "dialogues": 1,
        "tse": figures.tse,
        "tse_compliant": figures.tse_compliant,
        "orders": figures.ordered,
        "violated": figures.violations > 0,
        "violations": figures.violations,
        "turns": figures.turns,
        "esndcg": figures.esndcg or 0.0,
        "with_esndcg": figures.esndcg is not None,
        "gre": figures.gre or 0.0,
        "with_gre": figures.gre is not None,
    }
    return torch.tensor([float(parts[name]) for name in _SUMS], dtype=torch.float64)
