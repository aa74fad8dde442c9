"""What happened: `Turn` and `Episode`, in the token ids that were sampled and inserted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Heard:
    """A span of a turn's ``prompt_ids`` that another party said, its end-of-turn token included."""

    party: str
    exchange: int
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One party's turn, in the token ids of that party's own view of the episode."""

    party: str
    exchange: int
    text: str
    prompt_ids: list[int] = field(default_factory=list)  # inserted since this party's last turn (all, if ``new_row``)
    completion_ids: list[int] = field(default_factory=list)  # exactly as sampled; empty for parties we do not sample
    log_probs: list[float] = field(default_factory=list)  # one per completion token, of the distribution sampled from
    constraint: str | None = None
    constraint_states: list[int] = field(default_factory=list)  # one per completion token if constrained
    heard: tuple[Heard, ...] = ()
    new_row: bool = False  # ``prompt_ids`` starts a training row of its own
    reward: float = 0.0
    stop_reason: str = "said"
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.log_probs) != len(self.completion_ids):
            raise ValueError(
                f"{self.party}: {len(self.completion_ids)} completion_ids, {len(self.log_probs)} log_probs. Give one "
                "per sampled token; tokens of the environment belong in the next turn's prompt_ids."
            )
        if self.constraint is not None and len(self.constraint_states) != len(self.completion_ids):
            raise ValueError(
                f"{self.party}: {len(self.completion_ids)} completion_ids, {len(self.constraint_states)} "
                "constraint_states. A constrained turn has one state per sampled token."
            )


@dataclass(kw_only=True, slots=True)
class Episode:
    """One finished episode: every turn in the order taken."""

    index: int  # number of the episode in the run; with the run's seed it fixes all sampling noise
    task_id: str
    group: int  # episodes of one task share it
    seed: int
    turns: list[Turn] = field(default_factory=list)
    stop_reason: str = ""
    terminated: bool = False
    truncated: bool = False
    info: dict[str, Any] = field(default_factory=dict)

    def turns_of(self, party: str) -> list[Turn]:
        """The turns ``party`` really took, in order (an epilogue is not one)."""
        return [turn for turn in self.turns if turn.party == party and turn.stop_reason != "epilogue"]
