"""GOPO offline: a planner from preferences between whole dialogues, a responder from rated replies."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lit_rl.distributed import world_sum
from lit_rl.episodes import Rollouts
from lit_rl.methods.pairs import PairMethod, at_first_targets, pair_micro_batches, pair_rows
from lit_rl.objectives.preference import pairwise_loss
from lit_rl.objectives.supervised import masked_cross_entropy, target_total
from lit_rl.objectives.trajectory_preference import dialogue_log_ratios, trajectory_margin
from lit_rl.policy import PolicyConfig
from lit_rl.service.dialogue import PLANNER, RESPONDER


class OfflineGOPO(PairMethod):
    """Which of two dialogues with one customer came to more (planner), and how good replies are worded (responder).

    As published (GOPO, arXiv 2602.15854): the planner is optimised by preferences over whole dialogues.  Our reading,
    as the paper's formulas could not be read (gopo.md section 5):

    * planner: ``-log sigmoid(b (s+ - s-) - z (R+ - R-))``, ``s`` the sum over a dialogue's plans of their log-probs
      less those under the reference; replies are conditioned on, not scored.  A mean over pairs.
    * responder: the negative log-probs of the replies of both dialogues, each weighed by its GRE, over all weights.

    The reference is the base with adapters off.  The loss over-trains: pairs told apart become more while the return of
    the policy falls (section 13).  Keep ``max_epochs`` low, set ``kl_coef``, and choose by dialogues played.

    Args:
        policy: With the adapters "planner" and "responder".
        pair_kl_coef: ``b``; the greater it is, the nearer the planner stays to the reference.
        return_margin: ``z``; how much more is demanded of pairs that are further apart.
        clip_each_party: As in `Method`: the two losses have nothing to do with each other.
        kwargs: Of `Method`, without ``critique_coef``; ``kl_coef`` adds a KL estimate on the tokens of the data.

    Raises:
        ValueError: An option out of range, or an adapter is missing.
    """

    trained_parties: tuple[str, ...] = (PLANNER, RESPONDER)

    def __init__(
        self,
        policy: PolicyConfig,
        *,
        pair_kl_coef: float = 0.1,
        return_margin: float = 0.0,
        clip_each_party: bool = True,
        **kwargs: Any,
    ):
        super().__init__(policy, clip_each_party=clip_each_party, **kwargs)
        if missing := [party for party in self.trained_parties if party not in (policy.adapters or {})]:
            raise ValueError(
                f"OfflineGOPO trains {list(self.trained_parties)} against the base with adapters off; name "
                f"{missing[0]!r} in policy.adapters."
            )
        if not pair_kl_coef > 0 or not return_margin >= 0:
            raise ValueError(
                f"model.pair_kl_coef is {pair_kl_coef} and model.return_margin {return_margin}; the first must be "
                "above 0, the second at least 0."
            )
        self.pair_kl_coef, self.return_margin = pair_kl_coef, return_margin

    @property
    def needs_reference(self) -> bool:
        return True

    # -- loss --------------------------------------------------------------------------------------------------

    def learned_mask(self, rollouts: Rollouts) -> Tensor:
        if rollouts.target_mask is None or "dialogue_return" not in rollouts.extras:
            raise ValueError("OfflineGOPO needs pairs of dialogues; use TrajectoryPreferenceDataModule.")
        return rollouts.target_mask

    def token_loss(self, rollouts: Rollouts, log_probs: Tensor) -> Tensor:
        """Of a planner's rows the loss of each pair, at the first label of its chosen dialogue; of others the NLL."""
        mask = self.learned_mask(rollouts)
        if not self._plans(rollouts):
            return masked_cross_entropy(log_probs, mask, rollouts.target_weights)
        return at_first_targets(self.pair_losses(rollouts, log_probs), mask, pair_rows(rollouts)[0])

    def pair_losses(self, rollouts: Rollouts, log_probs: Tensor) -> Tensor:
        return pairwise_loss(self._margins(rollouts, log_probs))

    def compares(self, party: str) -> bool:
        return party == PLANNER

    def step_weights(self, rollouts: Rollouts) -> Callable[[Rollouts], Tensor]:
        """A mean over the pairs for the planner, one over the weights of targets for the responder."""
        planned = self._planned_rows(rollouts)
        mask = self.learned_mask(rollouts)
        replies = target_total(mask & ~planned[:, None], rollouts.target_weights)
        pairs, weights = world_sum(torch.stack([planned.sum() / 2, replies])).clamp(min=1)
        return lambda part: self.learned_mask(part) / (pairs if self._plans(part) else weights)

    def _micro_batches(self, rollouts: Rollouts) -> Iterator[tuple[str, Rollouts]]:
        """Whole pairs of the planner; rows of the responder as they come."""
        planned, budget = self._planned_rows(rollouts), self.micro_batch_tokens
        if bool(planned.any()):
            for part in pair_micro_batches(rollouts.select(planned), budget):
                yield PLANNER, part
        if not bool(planned.all()):
            for part in rollouts.select(~planned).micro_batches(budget):
                yield RESPONDER, part

    def _planned_rows(self, rollouts: Rollouts) -> Tensor:
        """Rows of the planner, bool ``(B,)``."""
        return self.row_parties(rollouts) == rollouts.parties.index(PLANNER)

    def _plans(self, part: Rollouts) -> bool:
        """Whether a micro-batch is the planner's."""
        return bool(self._planned_rows(part).any())

    def _margins(self, rollouts: Rollouts, log_probs: Tensor) -> Tensor:
        """Of each pair, float32 ``(P,)``."""
        if rollouts.ref_log_probs is None:
            raise ValueError("OfflineGOPO compares with the reference, and the rollouts have no ref_log_probs.")
        # Terms of labels add up to those of plans.
        ratios = dialogue_log_ratios(log_probs, rollouts.ref_log_probs, self.learned_mask(rollouts))
        returns = rollouts.extras["dialogue_return"]
        chosen, rejected = pair_rows(rollouts)
        return trajectory_margin(
            ratios[chosen],
            ratios[rejected],
            returns[chosen],
            returns[rejected],
            kl_coef=self.pair_kl_coef,
            return_margin=self.return_margin,
        )

    # -- figures -----------------------------------------------------------------------------------------------

    def step_figures(self, rollouts: Rollouts, log_probs: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Of pairs the share told apart and the margin, also where the chosen dialogue is the longer one."""
        if not self._plans(rollouts):
            nll = masked_cross_entropy(log_probs, self.learned_mask(rollouts), rollouts.target_weights).sum()
            return {"nll": (nll, target_total(self.learned_mask(rollouts), rollouts.target_weights))}
        margins, turns = self._margins(rollouts, log_probs), rollouts.turn_valid.sum(1)
        chosen, rejected = pair_rows(rollouts)
        longer = turns[chosen] > turns[rejected]
        pairs = torch.tensor(len(chosen), device=margins.device)
        return {
            "accuracy": ((margins > 0).float().sum(), pairs),
            "margin": (margins.sum(), pairs),
            "margin_of_longer": (margins[longer].sum(), longer.sum()),
        }
