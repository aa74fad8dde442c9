"""Pairs of whole service dialogues with one customer, of which one came to more (GOPO, arXiv 2602.15854)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lit_rl.datamodules.order import ShuffledOrder, run_seed
from lit_rl.datamodules.passes import check_share, held_out_pass, rank_share, training_places
from lit_rl.datamodules.played import attached_module
from lit_rl.datamodules.service_dialogues import ServiceDialogues, ServiceForm, Teller
from lit_rl.datamodules.stream import RolloutStream
from lit_rl.episodes import Episode, Rollouts
from lit_rl.metrics.reply_quality import ReplyRater, RuleRater
from lit_rl.metrics.service import ServiceScoring
from lit_rl.objectives.joint_reward import FixedWeights, joint_reward
from lit_rl.objectives.trajectory_preference import preference_pairs
from lit_rl.policy import Policy
from lit_rl.preferences import fill_target_reference
from lit_rl.service.dialogue import RESPONDER
from lit_rl.service.rated import rated


@dataclass(frozen=True, kw_only=True, slots=True)
class DialoguePair:
    """Two dialogues of one scenario.

    Attributes:
        chosen: The one that came to more.
        rejected: The other one.
        returns: What they came to, in that order.
    """

    chosen: Episode
    rejected: Episode
    returns: tuple[float, float]


class TrajectoryPreferenceDataModule(L.LightningDataModule):
    """Batches of whole pairs for `OfflineGOPO`, in an order that depends on the seed alone.

    Every dialogue of a pair is a row of the planner, which the preference is about, and one of the responder, whose
    replies are targets that weigh as much as they are worth (GRE).  As published: the planner learns from goal
    preferences over whole dialogues.  Our reading: how pairs are made.

    Beside the usual fields of supervised rows a batch has, of each row's dialogue, ``extras["chosen"]``, bool ``(B,)``,
    and ``extras["dialogue_return"]``, float32 ``(B,)``.  The rows of a pair share ``group_ids``.

    Args:
        dialogues: Several of a scenario.  Without successes among them nobody can learn what success is.
        form: How dialogues are worded and masked; two levels.
        weights: Of TSE, ESNDCG and GRE in what a dialogue comes to; None takes the defaults.
        violation_coef: Taken off for rules broken, over the turns; of use where masks let them be broken.
        min_gap: Least difference of a pair.
        rater: Of replies, for GRE; None goes by rules.
        scoring: Of dialogues; None takes the defaults.
        num_validation_scenarios: The last scenarios, whose pairs are held out.
        batch_size: Pairs per batch, over all ranks.
        batches_per_epoch: None takes one pass over the pairs.
        seed: Of the order and of what is random in dialogues; None takes that of ``seed_everything``.

    Raises:
        ValueError: Options out of range; when training begins, a data set without pairs.
    """

    def __init__(
        self,
        dialogues: ServiceDialogues,
        *,
        form: ServiceForm | None = None,
        weights: FixedWeights | None = None,
        violation_coef: float = 0.0,
        min_gap: float = 0.02,
        rater: ReplyRater | None = None,
        scoring: ServiceScoring | None = None,
        num_validation_scenarios: int = 0,
        batch_size: int = 16,
        batches_per_epoch: int | None = None,
        seed: int | None = None,
    ):
        super().__init__()
        form = form or ServiceForm()
        if form.mode != "two_level":
            raise ValueError(
                f"data.form.mode is {form.mode!r}; preferences are about plans, so it must be 'two_level'."
            )
        if batch_size < 1 or (batches_per_epoch is not None and batches_per_epoch < 1):
            raise ValueError(
                f"data.batch_size is {batch_size} and data.batches_per_epoch {batches_per_epoch}; both are at least 1."
            )
        if not min_gap >= 0 or not 0 <= violation_coef < math.inf:
            raise ValueError(
                f"data.min_gap is {min_gap} and data.violation_coef {violation_coef}; both must be at least 0."
            )
        scenarios = list(dict.fromkeys(dialogues.scenario(index) for index in range(len(dialogues))))
        if not 0 <= num_validation_scenarios < len(scenarios):
            raise ValueError(
                f"data.num_validation_scenarios is {num_validation_scenarios} of {len(scenarios)} scenarios; give 0 or "
                "more, and leave some to learn from."
            )
        held_out = set(scenarios[len(scenarios) - num_validation_scenarios :])
        sides = [dialogues.scenario(index) in held_out for index in range(len(dialogues))]
        self.indices = {split: [i for i, out in enumerate(sides) if out == split] for split in (False, True)}
        self.dialogues, self.batch_size, self.batches_per_epoch = dialogues, batch_size, batches_per_epoch
        self.weights, self.violation_coef, self.min_gap = weights or FixedWeights(), violation_coef, min_gap
        self.scoring, self.seed = scoring or ServiceScoring(), run_seed(seed)
        self.teller = Teller(dialogues, form, self.seed, rater or RuleRater())
        self._stream: RolloutStream | None = None

    # -- Lightning's hooks -------------------------------------------------------------------------------------

    def train_dataloader(self) -> RolloutStream:
        """The one stream of the run; its place in the order is in the checkpoint."""
        check_share("data.batch_size", self.batch_size, "pairs")
        if self._stream is None:
            pairs = self.pairs(attached_module(self.trainer).policy)
            if len(pairs) < self.batch_size:
                raise ValueError(
                    f"data.dialogues make {len(pairs)} pairs, which is less than one batch of {self.batch_size}: give "
                    "more dialogues of a scenario, or a smaller data.min_gap."
                )
            order = ShuffledOrder(len(pairs), self.seed)

            def collect(number: int) -> Rollouts:
                places = training_places(number, self.batch_size)
                return self._rows([pairs[order[place]] for place in places], places)

            self._stream = RolloutStream(collect, self.batches_per_epoch or len(pairs) // self.batch_size)
        return self._stream

    def val_dataloader(self) -> list[RolloutStream]:
        if not self.indices[True]:
            return []
        pairs = self.pairs(attached_module(self.trainer).policy, held_out=True)
        check_share("What data.num_validation_scenarios holds out", len(pairs), "pairs")
        mine = rank_share(range(len(pairs)))
        return [held_out_pass(mine, self.batch_size, lambda at: self._rows([pairs[place] for place in at], at))]

    # -- pairs -------------------------------------------------------------------------------------------------

    def pairs(self, policy: Policy, *, held_out: bool = False) -> list[DialoguePair]:
        """All pairs to learn from, or those held out, in a policy's tokens."""
        episodes = self.teller.episodes(self.indices[held_out], policy)
        returns = self._returns(episodes)
        groups = torch.tensor([episode.group for episode in episodes])
        return [
            DialoguePair(
                chosen=episodes[better],
                rejected=episodes[worse],
                returns=(float(returns[better]), float(returns[worse])),
            )
            for better, worse in preference_pairs(returns, groups, min_gap=self.min_gap).tolist()
        ]

    def _returns(self, episodes: Sequence[Episode]) -> Tensor:
        """What each dialogue came to, float32 ``(D,)``."""
        found = [self.scoring.figures(rated(episode)) for episode in episodes]
        parts = [[math.nan if x is None else x for x in (each.tse, each.esndcg, each.gre)] for each in found]
        return joint_reward(
            torch.tensor(parts),
            self.weights.weights(),
            violations=torch.tensor([each.violations for each in found]),
            turns=torch.tensor([each.turns for each in found]),
            violation_coef=self.violation_coef,
        )

    def _rows(self, pairs: Sequence[DialoguePair], numbers: Sequence[int]) -> Rollouts:
        """Rows of both dialogues of each pair, numbered anew: a dialogue may be in several."""
        module: Any = attached_module(self.trainer)
        told = {
            2 * number + side: (replace(episode, index=2 * number + side, group=number), worth)
            for pair, number in zip(pairs, numbers, strict=True)
            for side, (episode, worth) in enumerate(zip((pair.chosen, pair.rejected), pair.returns, strict=True))
        }
        rollouts = self.teller.rows([episode for episode, _ in told.values()], module, "preferences")
        device = rollouts.input_ids.device
        worth_of = [told[index][1] for index in rollouts.episode_ids.tolist()]
        rollouts.extras["chosen"] = rollouts.episode_ids % 2 == 0
        rollouts.extras["dialogue_return"] = torch.tensor(worth_of, dtype=torch.float32, device=device)
        rollouts.target_weights = reply_weights(rollouts)
        if module.needs_reference:
            fill_target_reference(rollouts, module.policy, token_budget=module.micro_batch_tokens)
        return rollouts


def reply_weights(rollouts: Rollouts) -> Tensor:
    """``target_weights`` that are the reply's GRE on the responder's targets, 1 on others; float32 ``(B, T)``.

    A reply that nobody rated weighs nothing.
    """
    assert rollouts.target_mask is not None
    table = torch.zeros(rollouts.rewards.shape)
    places = {episode.index: episode for episode in rollouts.episodes}
    for row, index in enumerate(rollouts.episode_ids.tolist()):
        for turn in places[index].turns:
            table[row, turn.exchange] += turn.info.get("gre") or 0.0
    gre = table.to(rollouts.input_ids.device).gather(1, rollouts.turn_ids.clamp(min=0).long())
    replies = rollouts.party_ids == rollouts.parties.index(RESPONDER)
    return torch.where(replies, gre, 1.0).masked_fill(~rollouts.target_mask, 0.0)
