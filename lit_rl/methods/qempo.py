"""QEMPO: the most diverse policy of a given quality, learned online (arXiv 2602.15894)."""

import math
import warnings
from typing import Any, Literal

import torch
from torch import Tensor

from lit_rl.episodes import Rollouts
from lit_rl.methods.policy_gradient import GroupPolicyGradient
from lit_rl.objectives import AggregationMode, leave_one_out_advantages, token_advantages
from lit_rl.objectives.shaping import (
    Shaping,
    leave_one_out_to_go,
    response_log_probs,
    shaped_rewards,
    shaped_rewards_to_go,
)
from lit_rl.policy import PolicyConfig


class QEMPO(GroupPolicyGradient):
    """Policy gradient on ``r - a log pi + b log p``: quality, the response's own entropy, a pull to the reference.

    As published: the entropy of the policy is maximised under a floor on quality, as QEMPO-KL under a ceiling on the
    divergence from the reference too, on a GRPO backbone.  The paper's body could not be read; our reading: log-probs
    of whole responses, held fixed, in the reward; the others of the group as a baseline; no division by their standard
    deviation (it would anneal ``a`` away); a constant length to divide by; all numbers.

    The optimum is ``pi ~ p^(b/a) exp(r/a)``.  Variants, by the two coefficients:

    * QEMPO: ``entropy=a``, or ``lam=1/a``; no reference is needed;
    * QEMPO-KL: ``lam`` and ``mu``, so that ``a = (1 + mu)/lam`` and ``b = mu/lam < a``; with both constraints exactly
      at RLHF's values it *is* RLHF, so give the ceiling slack;
    * RLHF with KL in the reward: ``entropy`` equal to ``reference``; SPL (arXiv 2511.08594): any two numbers.

    Compare them at equal quality: at fixed coefficients neither has to have more entropy.  As a rule of thumb,
    ``a`` times the spread of a response's log-prob is 0.1 to 0.5 times the spread of its reward.
    `lit_rl.callbacks.EntropyConstraint` adapts ``a`` (and ``b`` in proportion) to a floor on quality.

    Args:
        policy: What to train.
        entropy: ``a``; None without ``lam`` takes 0.01.
        reference: ``b``; above 0 it needs ``policy.adapters``, whose base is the reference.
        lam: Multiplier of the floor on quality, instead of ``entropy`` and ``reference``.
        mu: Multiplier of the ceiling on the divergence; goes with ``lam``.
        credit: "sequence" gives every token the whole shaped reward; "reward_to_go" only what follows it of the
            log-probs, which has the same mean; near the optimum its variance is the larger.
        length_normalize: Take means over tokens instead of sums, as SimPO does: ``a`` then grows with the length, and
            the closed form no longer holds.
        aggregation: How token losses become one number.
        norm_length: What the token losses of a response are divided by; None takes ``data.student.max_tokens``.
        kwargs: Of `PolicyGradient` and `Method`; ``entropy_coef`` there is a bonus on the entropy of tokens, which is
            another objective.
    """

    def __init__(
        self,
        policy: PolicyConfig,
        *,
        entropy: float | None = None,
        reference: float | None = None,
        lam: float | None = None,
        mu: float | None = None,
        credit: Literal["sequence", "reward_to_go"] = "sequence",
        length_normalize: bool = False,
        aggregation: AggregationMode = "seq_mean_token_sum_norm",
        norm_length: int | None = None,
        **kwargs: Any,
    ):
        ask_data = norm_length is None and aggregation == "seq_mean_token_sum_norm"
        super().__init__(policy, aggregation=aggregation, norm_length=1 if ask_data else norm_length, **kwargs)
        self.shaping = shaping_of(policy, entropy, reference, lam, mu, default=0.01)
        if credit not in ("sequence", "reward_to_go"):
            raise ValueError(f"model.credit is {credit!r}; it must be 'sequence' or 'reward_to_go'.")
        self.entropy = self.shaping.entropy  # where `EntropyConstraint` starts
        self.credit, self.length_normalize = credit, length_normalize
        self._ask_data_for_length = ask_data

    @property
    def needs_reference(self) -> bool:
        return self.shaping.reference > 0 or super().needs_reference

    def check_data(self, datamodule: Any) -> None:
        super().check_data(datamodule)
        sampling: Any = getattr(datamodule, "student", None)
        if getattr(sampling, "top_p", 1.0) < 1.0 or getattr(sampling, "top_k", 0) > 0:
            raise ValueError(
                f"data.student has top_p {sampling.top_p} and top_k {sampling.top_k}: what they cut off has no "
                "log-prob to take an entropy of; set top_p to 1 and top_k to 0."
            )
        temperature = getattr(sampling, "temperature", 1.0)
        if temperature != 1.0:
            warnings.warn(
                f"data.student.temperature is {temperature}: the entropy is that of the policy at this temperature, "
                "and so is the reference's log-prob.",
                stacklevel=2,
            )
        if self._ask_data_for_length:
            self.norm_length = getattr(sampling, "max_tokens", None)
            if self.norm_length is None:
                raise ValueError("model.norm_length is null and the data has no student.max_tokens; give a number.")

    # -- advantages --------------------------------------------------------------------------------------------

    def advantages(self, rollouts: Rollouts) -> Tensor:
        if len(self.episodes_of(rollouts)[0]) < len(rollouts):
            raise ValueError(_SEVERAL_ROWS)
        mask, groups = rollouts.loss_mask, rollouts.group_ids
        if self.credit == "sequence":
            log_probs, ref_log_probs = (
                None if tokens is None else response_log_probs(tokens, mask, length_normalize=self.length_normalize)
                for tokens in (rollouts.old_log_probs, self._reference(rollouts))
            )
            assert log_probs is not None
            shaped = shaped_rewards(rollouts.rewards.sum(1), log_probs, ref_log_probs, **self._coefficients(rollouts))
            return token_advantages(leave_one_out_advantages(shaped, groups), rollouts.turn_ids, mask)
        per_token = mask.sum(1, keepdim=True).clamp(min=1) if self.length_normalize else 1
        reference = self._reference(rollouts)
        to_go = shaped_rewards_to_go(
            rollouts.rewards.sum(1),
            rollouts.old_log_probs / per_token,
            None if reference is None else reference / per_token,
            mask,
            **self._coefficients(rollouts),
        )
        return leave_one_out_to_go(to_go, groups).masked_fill(~mask, 0.0)

    def _coefficients(self, rollouts: Rollouts) -> dict[str, Any]:
        """``a`` as a callback wrote it, or the constant; ``b`` in proportion."""
        entropy = rollouts.extras.get("entropy_coefficient")
        if entropy is None:
            return {"entropy": self.shaping.entropy, "reference": self.shaping.reference}
        return {"entropy": entropy, "reference": self.shaping.ratio * entropy}

    def _reference(self, rollouts: Rollouts) -> Tensor | None:
        if self.shaping.reference == 0:
            return None
        if rollouts.ref_log_probs is None:
            raise ValueError(
                f"model.reference is {self.shaping.reference} but the rollouts have no ref_log_probs; fill them while "
                "collecting, as our DataModules do."
            )
        return rollouts.ref_log_probs

    # -- figures -----------------------------------------------------------------------------------------------

    def step_figures(self, rollouts: Rollouts, log_probs: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        mask = rollouts.loss_mask
        rows, said = mask.any(1).sum(), response_log_probs(rollouts.old_log_probs, mask)
        figures = super().step_figures(rollouts, log_probs) | {
            "sequence_entropy": (-said.sum(), rows),
            "cut_off": (self._cut_off(rollouts).sum(), rows),
        }
        if rollouts.ref_log_probs is not None:
            divergence = said - response_log_probs(rollouts.ref_log_probs, mask)
            figures["sequence_kl"] = (divergence.sum(), rows)
        return figures

    def _cut_off(self, rollouts: Rollouts) -> Tensor:
        """Responses that end without an end-of-turn token, whose entropy is that of a part; bool ``(B,)``."""
        assert self.policy is not None
        mask = rollouts.loss_mask
        places = torch.arange(mask.shape[1], device=mask.device)
        last = torch.where(mask, places, 0).amax(1)
        tokens = rollouts.input_ids.gather(1, last[:, None])[:, 0]
        stops = torch.tensor(sorted(self.policy.chat.stop_ids), device=mask.device)
        return mask.any(1) & ~torch.isin(tokens, stops)


_SEVERAL_ROWS = (
    "QEMPO takes the log-prob of a response from one row, but an episode of the batch has several; set policy.rows to "
    "'dialogue', or use single-turn data such as CompletionDataModule."
)


def shaping_of(
    policy: PolicyConfig,
    entropy: float | None,
    reference: float | None,
    lam: float | None,
    mu: float | None,
    *,
    default: float,
) -> Shaping:
    """The two coefficients of a method's options.

    Args:
        policy: Must have adapters where a reference is needed.
        entropy: ``a``; None without ``lam`` takes ``default``.
        reference: ``b``; None is 0.
        lam: Instead of both.
        mu: With ``lam``; None is 0.
        default: Of ``entropy``.

    Raises:
        ValueError: Options of both kinds, a number out of range, or no reference policy.
    """
    if (lam is None and mu is not None) or (lam is not None and (entropy is not None or reference is not None)):
        raise ValueError(
            f"model.lam is {lam}, mu {mu}, entropy {entropy}, reference {reference}; give either lam and perhaps mu, "
            "or entropy and perhaps reference."
        )
    for name, value in (("lam", lam), ("mu", mu), ("entropy", entropy), ("reference", reference)):
        if value is not None and (value < 0 or not math.isfinite(value) or (value == 0 and name in ("lam", "entropy"))):
            least = "above 0" if name in ("lam", "entropy") else "at least 0"
            raise ValueError(f"model.{name} is {value}; it must be a number {least}.")
    if lam is not None:
        shaping = Shaping.qempo_kl(lam, mu or 0.0)
    else:
        shaping = Shaping(default if entropy is None else entropy, reference or 0.0)
    if shaping.reference > 0 and policy.adapters is None:
        raise ValueError(
            f"model.{'mu' if mu else 'reference'} needs a reference policy, which is the base with adapters off: name "
            "the parties to train in policy.adapters, or set it to 0."
        )
    return shaping
