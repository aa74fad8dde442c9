"""Values read at one position of each row: where the hidden state has not seen what the value is a baseline of."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lit_rl.episodes import Rollouts
from lit_rl.policy import Policy


def value_reads(rollouts: Rollouts, policy: Policy) -> dict[str, Tensor]:
    """Of each value head with ``extras["read_<head>"]`` the token whose hidden state it reads, int64 ``(B,)``."""
    found = {head: rollouts.extras.get(f"read_{head}") for head in policy.value_heads}
    return {head: reads for head, reads in found.items() if reads is not None}


def read_values(policy: Policy, hidden: Tensor, reads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The value of each row under each head, float32 ``(B,)``, also under autocast.

    Args:
        policy: Whose heads.
        hidden: From `Policy.hidden`, ``(B, T, H)``.
        reads: By head, int64 ``(B,)``.
    """
    rows = torch.arange(len(hidden), device=hidden.device)
    values = {}
    for head, position in reads.items():
        linear = policy.value_heads[head]
        assert isinstance(linear, nn.Linear)
        # Not the layer itself: mixed precision would compute it in bfloat16.
        values[head] = (hidden[rows, position].float() * linear.weight[0]).sum(-1) + linear.bias
    return values


def up_to_reads(input_ids: Tensor, reads: Mapping[str, Tensor]) -> Tensor:
    """Rows without what stands behind the last position read; int64 ``(B, t)``."""
    return input_ids[:, : 1 + max(int(position.max()) for position in reads.values())]


@torch.no_grad()
def fill_read_values(rollouts: Rollouts, policy: Policy, *, party: str, token_budget: int) -> None:
    """Write ``extras["value_<head>"]``, float32 ``(B,)``, of every head with an ``extras["read_<head>"]``.

    Args:
        rollouts: Just played.
        policy: With value heads.
        party: On whose hidden states the heads sit.
        token_budget: Most padded tokens of one forward.
    """
    heads = list(value_reads(rollouts, policy))
    filled = {head: torch.zeros(len(rollouts), device=rollouts.input_ids.device) for head in heads}
    with policy.acting_as(party):
        for rows in rollouts.micro_batch_rows(token_budget) if heads else ():
            part = rollouts.select(rows)
            reads = value_reads(part, policy)
            values = read_values(policy, policy.hidden(up_to_reads(part.input_ids, reads)), reads)
            for head, value in values.items():
                filled[head][rows.to(value.device)] = value
    rollouts.extras |= {f"value_{head}": values for head, values in filled.items()}


@torch.no_grad()
def prompt_values(
    policy: Policy, prompts: Sequence[Sequence[int]], *, party: str, head: str, token_budget: int
) -> Tensor:
    """A value head at the end of each prompt, float32 ``(P,)``; of prompts beyond the context their last tokens."""
    cut = [list(prompt)[-policy.max_length :] for prompt in prompts]
    order = sorted(range(len(cut)), key=lambda i: len(cut[i]))
    values = torch.zeros(len(cut), device=policy.device)
    with policy.acting_as(party):
        while order:
            chunk = [order.pop()]
            longest = len(cut[chunk[0]])
            while order and (len(chunk) + 1) * longest <= token_budget:
                chunk.append(order.pop())
            ids = torch.tensor([cut[i] + [0] * (longest - len(cut[i])) for i in chunk], device=policy.device)
            reads = {head: torch.tensor([len(cut[i]) - 1 for i in chunk], device=policy.device)}
            values[chunk] = read_values(policy, policy.hidden(ids), reads)[head]
    return values
