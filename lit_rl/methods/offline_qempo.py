"""QEMPO offline: the most diverse policy of a given quality, from preferences (arXiv 2602.15894)."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lit_rl.distributed import world_sum
from lit_rl.episodes import Rollouts
from lit_rl.methods.pairs import PairMethod, at_first_targets, pair_micro_batches, pair_rows
from lit_rl.methods.qempo import shaping_of
from lit_rl.objectives.preference import pairwise_loss, preference_margin, regression_loss, soft_label_loss
from lit_rl.objectives.shaping import response_log_probs
from lit_rl.policy import PolicyConfig

PairLoss = Literal["pairwise", "soft_label", "regression"]


class OfflineQEMPO(PairMethod):
    """Pairs of responses, whose difference in ``a log pi - b log p`` is to be their difference in quality.

    As published: a DPO-style offline trainer for QEMPO and QEMPO-KL.  The paper's body could not be read; our
    derivation: the margin ``m = a (log pi_w - log pi_l) - b (log p_w - log p_l)`` of whole responses, the three losses,
    all numbers.  ``a = b`` is DPO, ``b = 0`` QEMPO, ``0 < b < a`` QEMPO-KL, any two SPL; variants as in `QEMPO`.

    "pairwise" is ``-log sigmoid(m)``; pairs that are always labelled alike push ``m`` without end, and without a
    reference nothing holds the text that no pair shows: watch ``val/nll``, or set ``nll_coef``.  "soft_label" is the
    cross-entropy of ``P = sigmoid(r_w - r_l)``, "regression" is ``(m - (r_w - r_l))^2``; both end at the closed form.

    The loss is the mean over the pairs of an optimizer step, on all ranks.  Validation takes pairs, or plays what the
    data plays.

    Args:
        policy: What to train.
        entropy: ``a``; None without ``lam`` takes 0.1.
        reference: ``b``; above 0 it needs ``policy.adapters``, whose base is the reference.
        lam: Multiplier of the floor on quality, instead of ``entropy`` and ``reference``.
        mu: Multiplier of the ceiling on the divergence; goes with ``lam``.
        loss: "pairwise", "soft_label" or "regression"; the latter two need scores.
        label_smoothing: Of "soft_label", instead of scores: ``P`` is 1 less this.
        nll_coef: Weight of the chosen response's mean token loss.
        length_normalize: Take means over tokens instead of sums, as SimPO does; the closed form no longer holds.
        kwargs: Of `Method`, without the options of token losses.
    """

    def __init__(
        self,
        policy: PolicyConfig,
        *,
        entropy: float | None = None,
        reference: float | None = None,
        lam: float | None = None,
        mu: float | None = None,
        loss: PairLoss = "pairwise",
        label_smoothing: float | None = None,
        nll_coef: float = 0.0,
        length_normalize: bool = False,
        **kwargs: Any,
    ):
        super().__init__(
            policy,
            aggregation="seq_mean_token_sum",
            norm_length=None,
            kl_coef=0.0,
            kl_estimator="k3",
            entropy_coef=0.0,
            critique_coef=0.0,
            **kwargs,
        )
        self.shaping = shaping_of(policy, entropy, reference, lam, mu, default=0.1)
        if loss not in get_args(PairLoss):
            raise ValueError(f"model.loss is {loss!r}; use one of {list(get_args(PairLoss))}.")
        if label_smoothing is not None and not (loss == "soft_label" and 0 <= label_smoothing < 0.5):
            raise ValueError(
                f"model.label_smoothing is {label_smoothing} with loss {loss!r}; it lies in [0, 0.5) and goes with "
                "'soft_label'."
            )
        if nll_coef < 0:
            raise ValueError(f"model.nll_coef is {nll_coef}; it must be at least 0.")
        self.loss, self.label_smoothing, self.nll_coef = loss, label_smoothing, nll_coef
        self.length_normalize = length_normalize

    @property
    def needs_reference(self) -> bool:
        return self.shaping.reference > 0

    @property
    def needs_scores(self) -> bool:
        """Whether pairs have to be scored."""
        return self.loss == "regression" or (self.loss == "soft_label" and self.label_smoothing is None)

    def check_data(self, datamodule: Any) -> None:
        super().check_data(datamodule)
        pairs = getattr(datamodule, "preferences", None)
        if pairs is None:
            return
        if self.needs_scores and pairs[0].scores is None:
            raise ValueError(
                f"model.loss is {self.loss!r}, which needs to know what responses are worth: set score_chosen and "
                "score_rejected of data.preferences, or take loss 'pairwise'."
            )

    # -- loss --------------------------------------------------------------------------------------------------

    def learned_mask(self, rollouts: Rollouts) -> Tensor:
        if rollouts.target_mask is None or "chosen" not in rollouts.extras:
            raise ValueError("OfflineQEMPO needs pairs of responses; use PreferenceDataModule.")
        return rollouts.target_mask

    def token_loss(self, rollouts: Rollouts, log_probs: Tensor) -> Tensor:
        """The loss of each pair, at the first token of its chosen response."""
        (chosen, _), mask = pair_rows(rollouts), self.learned_mask(rollouts)
        losses = self.pair_losses(rollouts, log_probs)
        if self.nll_coef:
            nll = -response_log_probs(log_probs[chosen], mask[chosen], length_normalize=True)
            losses = losses + self.nll_coef * nll
        return at_first_targets(losses, mask, chosen)

    def step_weights(self, rollouts: Rollouts) -> Callable[[Rollouts], Tensor]:
        pairs = world_sum(self.learned_mask(rollouts).new_full((), len(rollouts) // 2, dtype=torch.float32))
        return lambda part: self.learned_mask(part) / pairs.clamp(min=1)

    def _micro_batches(self, rollouts: Rollouts) -> Iterator[tuple[str, Rollouts]]:
        """Whole pairs of one party."""
        owners = self.row_parties(rollouts)
        for number in torch.unique(owners).tolist():
            for part in pair_micro_batches(rollouts.select(owners == number), self.micro_batch_tokens):
                yield rollouts.parties[number], part

    def _margins(self, rollouts: Rollouts, log_probs: Tensor) -> Tensor:
        """Of each pair, float32 ``(P,)``."""
        references = [None, None]
        if self.needs_reference:
            if rollouts.ref_log_probs is None:
                raise ValueError("model.reference is above 0 but the rollouts have no ref_log_probs; fill them before.")
            references = self._sums(rollouts, rollouts.ref_log_probs)
        return preference_margin(
            *self._sums(rollouts, log_probs),
            *references,
            entropy=self.shaping.entropy,
            reference=self.shaping.reference,
        )

    def _sums(self, rollouts: Rollouts, log_probs: Tensor) -> list[Any]:
        """Of the chosen and of the rejected responses, ``(P,)`` each."""
        sums = response_log_probs(log_probs, self.learned_mask(rollouts), length_normalize=self.length_normalize)
        return [sums[rows] for rows in pair_rows(rollouts)]

    def pair_losses(self, rollouts: Rollouts, log_probs: Tensor) -> Tensor:
        margins = self._margins(rollouts, log_probs)
        if self.loss == "pairwise":
            return pairwise_loss(margins)
        if not self.needs_scores:
            assert self.label_smoothing is not None
            return soft_label_loss(margins, torch.full_like(margins, 1.0 - self.label_smoothing))
        if "score" not in rollouts.extras:
            raise ValueError(f"model.loss is {self.loss!r} but the pairs have no scores; see StoredPreferences.")
        chosen, rejected = pair_rows(rollouts)
        difference = (rollouts.extras["score"][chosen] - rollouts.extras["score"][rejected]).to(margins)
        if self.loss == "regression":
            return regression_loss(margins, difference)
        return soft_label_loss(margins, difference.sigmoid())

    # -- figures -----------------------------------------------------------------------------------------------

    def step_figures(self, rollouts: Rollouts, log_probs: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        margins, mask = self._margins(rollouts, log_probs), self.learned_mask(rollouts)
        chosen, rejected = pair_rows(rollouts)
        said, pairs = response_log_probs(log_probs, mask), torch.tensor(len(chosen), device=mask.device)
        return {
            "accuracy": ((margins > 0).float().sum(), pairs),
            "margin": (margins.sum(), pairs),
            "chosen_log_prob": (said[chosen].sum(), pairs),
            "rejected_log_prob": (said[rejected].sum(), pairs),
            "nll": (-said[chosen].sum(), mask[chosen].sum()),
        }
