import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_rl.objectives.pooling import pool_last_k


def states(*, left: int = 0, right: int = 0, junk: float = 0.0) -> tuple[Tensor, Tensor]:
    """``h_t = [t, t^2]`` for t = 0 .. 5, with padding on both sides."""
    steps = torch.arange(6, dtype=torch.float64)
    real = torch.stack([steps, steps**2], dim=1)
    hidden = torch.cat([torch.full((left, 2), junk), real, torch.full((right, 2), junk)])
    mask = torch.tensor([False] * left + [True] * 6 + [False] * right)
    return hidden[None], mask[None]


@pytest.mark.parametrize(
    ("k", "wanted"),
    [
        (1, [5.0, 25.0]),
        (3, [4.0, 50 / 3]),  # (9 + 16 + 25) / 3
        (6, [2.5, 55 / 6]),
        (50, [2.5, 55 / 6]),
        (None, [2.5, 55 / 6]),
    ],
)
def test_golden_values(k: int | None, wanted: list[float]) -> None:
    """intelli.md 10.9."""
    for left, right in ((0, 0), (2, 0), (0, 2)):
        found = pool_last_k(*states(left=left, right=right), k=k)
        torch.testing.assert_close(found, torch.tensor([wanted], dtype=torch.float64), atol=1e-9, rtol=0)


@settings(deadline=None, max_examples=30)
@given(
    left=st.integers(0, 3),
    right=st.integers(0, 3),
    k=st.integers(1, 7),
    junk=st.sampled_from([-1e30, math.inf, math.nan]),
)
def test_padding_changes_neither_value_nor_gradient(left: int, right: int, k: int, junk: float) -> None:
    def pooled(left: int, right: int, junk: float) -> tuple[Tensor, Tensor]:
        hidden, mask = states(left=left, right=right, junk=junk)
        hidden.requires_grad_(True)
        found = pool_last_k(hidden, mask, k=k)
        (found * torch.tensor([1.0, 0.5])).sum().backward()
        assert hidden.grad is not None and not hidden.grad[~mask].any()
        return found, hidden.grad[mask]

    for ours, theirs in zip(pooled(left, right, junk), pooled(0, 0, 0.0), strict=True):
        torch.testing.assert_close(ours, theirs)


@settings(deadline=None, max_examples=20)
@given(k=st.integers(1, 5), change=st.floats(-1e3, 1e3))
def test_tokens_before_the_window_never_matter(k: int, change: float) -> None:
    hidden, mask = states()
    moved = hidden.clone()
    moved[:, : 6 - k] += change
    assert torch.equal(pool_last_k(hidden, mask, k=k), pool_last_k(moved, mask, k=k))


def test_rows_of_unequal_length_and_half_precision() -> None:
    hidden = torch.tensor([[[1.0], [2.0], [300.0]], [[1.0], [2.0], [300.0]]], dtype=torch.bfloat16)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    found = pool_last_k(hidden, mask, k=2)
    assert found.dtype == torch.float32
    assert found.tolist() == [[1.5], [151.0]]  # in bfloat16 itself 302 / 2 would be rounded


def test_bad_input() -> None:
    hidden, mask = states()
    with pytest.raises(ValueError, match="pool_last_k: k is 0; it must be at least 1"):
        pool_last_k(hidden, mask, k=0)
    with pytest.raises(ValueError, match="a row of the mask has no real token"):
        pool_last_k(hidden, torch.zeros_like(mask), k=1)
