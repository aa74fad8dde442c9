"""The critique term of a loss: predicting what the teacher said, on the rows the policy is trained on."""

import torch
from torch import Tensor

from lit_rl.distributed import world_sum
from lit_rl.episodes import Rollouts
from lit_rl.objectives import masked_cross_entropy, target_total
from lit_rl.policy import Policy


class CritiqueTerm:
    """Cross-entropy of the targets of one optimizer step, with a denominator of its own.

    ``coef * sum(w CE) / max(1, sum(w))``, both sums over the whole optimizer step and all ranks: neither the length of
    critiques nor their number changes the scale of the policy's loss.  Our reading of arXiv 2602.16066, which tells
    neither weight nor form; the weight of 0.1 that `RL2F` takes is that of arXiv 2602.02482.

    Args:
        rollouts: This rank's part of the step, which may have no rows; every rank makes one of these per step.
        coef: Weight in the loss.
    """

    def __init__(self, rollouts: Rollouts, coef: float):
        self.coef = coef
        self.total = world_sum(target_total(critique_targets(rollouts), rollouts.target_weights)).clamp(min=1)

    def loss(self, part: Rollouts, log_probs: Tensor) -> Tensor:
        """What each target token of a micro-batch adds to the loss, float32 ``(b, T)``."""
        token_loss = masked_cross_entropy(log_probs, critique_targets(part), part.target_weights)
        return token_loss * (self.coef / self.total)


def critique_targets(rollouts: Rollouts) -> Tensor:
    """Tokens whose prediction is learned, bool ``(B, T)``."""
    if rollouts.target_mask is None:
        raise ValueError(
            "model.critique_coef is set but the rollouts have no target_mask: add "
            "lit_rl.callbacks.TeacherCritiquePrediction to trainer.callbacks, or set critique_coef to 0."
        )
    return rollouts.target_mask


def critique_sums(part: Rollouts, log_probs: Tensor) -> tuple[Tensor, Tensor]:
    """``(sum of w CE, sum of w)`` of a batch: their quotient is nats per token of the teacher's words."""
    mask = critique_targets(part)
    return masked_cross_entropy(log_probs, mask, part.target_weights).sum(), target_total(mask, part.target_weights)


@torch.no_grad()
def critique_scores(policy: Policy, batch: Rollouts, party: str, token_budget: int) -> Tensor:
    """How well ``party`` predicts a batch's critiques, at temperature 1; what `lit_rl.metrics.self_correction` adds up.

    Returns:
        float64 ``(4,)``: nats and weights of all targets, messages that greedy decoding would say, messages.
    """
    sums = torch.zeros(4, dtype=torch.float64, device=batch.input_ids.device)
    with policy.acting_as(party):
        for part in batch.micro_batches(token_budget):
            hidden = policy.hidden(part.input_ids) if policy.head_is_exact else None  # once, for both
            log_probs, _ = policy.log_probs(part.input_ids, critique_targets(part), hidden=hidden)
            found = (*critique_sums(part, log_probs), *critiques_predicted(policy, part, hidden))
            sums += torch.stack([x.double() for x in found])
    return sums


@torch.no_grad()
def critiques_predicted(
    policy: Policy, part: Rollouts, hidden: Tensor | None = None, *, token_budget: int = 2**24
) -> tuple[Tensor, Tensor]:
    """How many messages a greedy critic would have said word for word: ``(exact, messages)``, two int64 numbers.

    The greedy reply equals a message if and only if each of its tokens is the likeliest after those before it, so one
    forward tells.  Scaling and soft-capping of logits leave the likeliest token where it is.

    Args:
        policy: Acting as the party whose rows these are.
        part: Rows with targets; messages of weight 0 do not count.
        hidden: As in `Policy.log_probs`.
        token_budget: Most logits held at once.
    """
    wanted = critique_targets(part)
    if part.target_weights is not None:
        wanted = wanted & (part.target_weights > 0)
    before = wanted[:, 1:]
    right = torch.zeros_like(wanted)
    likeliest = _likeliest(policy, part.input_ids, before, hidden, token_budget)
    right[:, 1:][before] = likeliest == part.input_ids[:, 1:][before]
    message = torch.arange(len(part), device=wanted.device)[:, None] * part.rewards.shape[1] + part.turn_ids.long()
    messages, place = torch.unique(message[wanted], return_inverse=True)
    wrong = torch.zeros(len(messages), device=wanted.device).index_add_(0, place, (~right[wanted]).float())
    return (wrong == 0).sum(), torch.tensor(len(messages), device=wanted.device)


def _likeliest(policy: Policy, input_ids: Tensor, before: Tensor, hidden: Tensor | None, token_budget: int) -> Tensor:
    """The likeliest next token at the positions ``before``, int64 ``(M,)``."""
    if not policy.head_is_exact:
        logits: Tensor = policy.lm(input_ids=input_ids, use_cache=False).logits[:, :-1][before]
        return logits.argmax(-1)
    states, head = policy.hidden(input_ids) if hidden is None else hidden, policy.lm.get_output_embeddings()
    rows = max(1, token_budget // head.weight.shape[0])
    return torch.cat([head(chunk).argmax(-1) for chunk in states[:, :-1][before].split(rows)])
