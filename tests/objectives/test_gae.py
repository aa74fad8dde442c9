"""GAE over turns and over tokens, against the sum that defines it."""

from typing import Any

import pytest
import torch

from lit_rl.objectives.gae import Gae, gae
from lit_rl.objectives.turns import turn_mask
from tests.objectives.turn_batches import assert_close, plain_gae


def test_by_hand() -> None:
    """Deltas 0.6 - 0.5 and 1 - 0.6; the first advantage is 0.1 + 0.5 * 0.4."""
    rewards, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.6]])
    found = gae(rewards, values, torch.ones(1, 2, dtype=torch.bool), gamma=1.0, gae_lambda=0.5)
    assert_close(found.advantages, [[0.3, 0.4]], 1e-6)
    assert_close(found.returns, [[0.8, 1.0]], 1e-6)


def test_equals_the_sum_on_a_thousand_ragged_batches() -> None:
    """Turns are a mask without gaps, tokens of a dialogue one with gaps: here half of the batches each."""
    generator = torch.Generator().manual_seed(0)
    for number in range(1000):
        rows, steps = (int(torch.randint(1, high, (), generator=generator)) for high in (5, 9))
        rewards, values = torch.randn(2, rows, steps, generator=generator, dtype=torch.float64)
        end = torch.randn(rows, generator=generator, dtype=torch.float64)
        gamma, gae_lambda = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        lengths = torch.randint(0, steps + 1, (rows,), generator=generator)
        mask = turn_mask(lengths, steps) if number % 2 else torch.rand(rows, steps, generator=generator) < 0.6
        junk, nan = rewards.masked_fill(~mask, torch.nan), values.masked_fill(~mask, torch.nan)
        found = gae(junk, nan, mask, gamma=gamma, gae_lambda=gae_lambda, end_values=end)
        wanted: list[float] = []
        for row in range(rows):
            r, v = rewards[row][mask[row]].tolist(), values[row][mask[row]].tolist()
            wanted += plain_gae(r, v, float(end[row]), gamma, gae_lambda)
        assert_close(found.advantages[mask], wanted)
        assert_close(found.returns[mask], torch.tensor(wanted, dtype=torch.float64) + values[mask])
        assert not found.advantages[~mask].any() and not found.returns[~mask].any()


def test_ends_of_lambda() -> None:
    rewards, values = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[0.5, 0.25, 1.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert_close(gae(rewards, values, mask, gamma=0.5, gae_lambda=1.0).returns, [[3.0, 4.0, 4.0]])
    assert_close(gae(rewards, values, mask, gamma=0.5, gae_lambda=0.0).returns, [[1.125, 2.5, 4.0]])
    end = torch.tensor([8.0])
    assert_close(gae(rewards, values, mask, gamma=0.5, gae_lambda=1.0, end_values=end).returns, [[4.0, 6.0, 8.0]])


def test_padding_changes_no_bit() -> None:
    rewards, values = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(1))
    mask = turn_mask(torch.tensor([9, 4, 1]), 9)

    def padded(tensor: torch.Tensor, value: Any) -> torch.Tensor:
        return torch.nn.functional.pad(tensor, (0, 30), value=value)

    short = gae(rewards, values, mask, gamma=0.9, gae_lambda=0.8)
    long = gae(padded(rewards, 1e9), padded(values, torch.inf), padded(mask, False), gamma=0.9, gae_lambda=0.8)
    assert torch.equal(short.advantages, long.advantages[:, :9]) and not long.advantages[:, 9:].any()


def test_values_get_no_gradient() -> None:
    values = torch.ones(1, 2, requires_grad=True)
    found: Gae = gae(torch.ones(1, 2), values, torch.ones(1, 2, dtype=torch.bool), gamma=1.0, gae_lambda=1.0)
    assert not found.advantages.requires_grad and not found.returns.requires_grad


def test_bad_input_is_refused() -> None:
    mask = torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="gae_lambda is -0.1; it lies between 0 and 1"):
        gae(torch.ones(1, 2), torch.ones(1, 2), mask, gamma=1.0, gae_lambda=-0.1)
    with pytest.raises(ValueError, match=r"values \(2, 2\) .* must all be \(rows, steps\)"):
        gae(torch.ones(1, 2), torch.ones(2, 2), mask, gamma=1.0, gae_lambda=1.0)
