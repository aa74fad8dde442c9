"""Random ragged batches of episodes, and the estimator written as plain loops over their turns."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """float64; what is not to be read is NaN."""

    rewards: Tensor
    boundaries: Tensor
    lengths: Tensor
    low_values: Tensor
    high_values: Tensor

    def estimate(self) -> dict[str, Tensor]:
        return self._asdict()


def random_batch(seed: int, episodes: int | None = None, least: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    count = episodes or int(torch.randint(1, 5, (), generator=generator))
    lengths = torch.randint(least, 8, (count,), generator=generator)
    turns = int(lengths.max()) + int(torch.randint(0, 3, (), generator=generator))
    exists = torch.arange(turns) < lengths[:, None]
    rewards, low, high = torch.randn(3, count, turns, generator=generator, dtype=torch.float64)
    chance = torch.rand((), generator=generator)
    boundaries = torch.rand(count, turns, generator=generator) < chance
    boundaries[:, 0] = True
    return Batch(
        rewards.masked_fill(~exists, torch.nan),
        boundaries,
        lengths,
        low.masked_fill(~exists, torch.nan),
        high.masked_fill(~(exists & boundaries), torch.nan),
    )


def segments(boundaries: list[bool], length: int) -> list[tuple[int, int]]:
    starts = [t for t in range(length) if boundaries[t]]
    return list(zip(starts, [*starts[1:], length], strict=True))


def plain_loop(
    batch: Batch, end: tuple[Tensor, Tensor], gamma: float, lambda_turn: float, lambda_segment: float
) -> dict[str, Tensor]:
    """hiper.md 4.2 to 4.4 and 5.2, a segment and a turn at a time; ``end`` is what follows, low and high ``(E,)``."""
    found = {
        n: torch.zeros(batch.rewards.shape, dtype=torch.float64)
        for n in ("low", "high", "segment_returns", "one_step_returns")
    }
    for e, length in enumerate(batch.lengths.tolist()):
        r, low, high = (t[e].tolist() for t in (batch.rewards, batch.low_values, batch.high_values))
        spans = segments(batch.boundaries[e].tolist(), length)
        for k, (start, stop) in enumerate(spans):
            after_high = high[stop] if stop < length else float(end[1][e])
            carry, total = 0.0, after_high
            for t in range(stop - 1, start - 1, -1):
                after_low = high[stop] if stop < length else float(end[0][e])
                after = low[t + 1] if t < stop - 1 else after_low
                found["one_step_returns"][e, t] = r[t] + gamma * after
                carry = r[t] + gamma * after - low[t] + gamma * lambda_turn * carry
                total = r[t] + gamma * total
                found["low"][e, t], found["segment_returns"][e, t] = carry, total
            # The sum over all segments from here on, each discounted by the turns and segments before it.
            advantage, weight = 0.0, 1.0
            for first, last in spans[k:]:
                reward = sum(gamma**j * r[first + j] for j in range(last - first))
                after_high = high[last] if last < length else float(end[1][e])
                advantage += weight * (reward + gamma ** (last - first) * after_high - high[first])
                weight *= gamma ** (last - first) * lambda_segment
            found["high"][e, start] = advantage
    return found


def plain_gae(rewards: list[float], values: list[float], end: float, gamma: float, gae_lambda: float) -> list[float]:
    """Sum over all later steps, as GAE is defined."""
    values = [*values, end]
    deltas = [r + gamma * values[t + 1] - values[t] for t, r in enumerate(rewards)]
    return [sum((gamma * gae_lambda) ** (j - t) * deltas[j] for j in range(t, len(deltas))) for t in range(len(deltas))]


def assert_close(found: Any, expected: Any, atol: float = 1e-9) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(torch.as_tensor(found).double(), expected, atol=atol, rtol=0)
