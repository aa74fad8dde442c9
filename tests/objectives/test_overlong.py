"""The punishment of long responses: golden values of intelli.md 10.3, its shape, and what counts as cut off."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_rl.objectives.overlong import is_truncated, soft_overlong

GOLDEN = [
    (100, 20, 1.0, {0: 0, 80: 0, 81: -0.05, 85: -0.25, 90: -0.5, 99: -0.95, 100: -1, 101: -1, 120: -1}),
    (16, 4, 1.0, {12: 0, 13: -0.25, 14: -0.5, 15: -0.75, 16: -1, 17: -1}),
    (20480, 4096, 1.0, {16384: 0, 16385: -0.000244140625, 17408: -0.25, 18432: -0.5, 20480: -1}),
    (20480, 15024, 1.0, {5456: 0, 5457: -0.0000665602, 12968: -0.5, 20480: -1}),
    (100, 20, 0.5, {90: -0.25, 100: -0.5, 120: -0.5}),
]


@pytest.mark.parametrize(("max_length", "cache_length", "factor", "values"), GOLDEN)
def test_golden_values(max_length: int, cache_length: int, factor: float, values: dict[int, float]) -> None:
    """intelli.md 10.3"""
    found = soft_overlong(torch.tensor(list(values)), max_length=max_length, cache_length=cache_length, factor=factor)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor([float(v) for v in values.values()]), atol=1e-9, rtol=1e-6)


@given(max_length=st.integers(1, 60), share=st.floats(0, 1), factor=st.sampled_from([0.0, 0.5, 2.0]))
def test_falls_from_zero_to_minus_the_factor_in_equal_steps(max_length: int, share: float, factor: float) -> None:
    cache = 1 + int(share * (max_length - 1))
    lengths = torch.arange(2 * max_length)[:, None]
    found = soft_overlong(lengths, max_length=max_length, cache_length=cache, factor=factor)
    assert found.shape == lengths.shape
    assert not found[: max_length - cache + 1].any() and not torch.signbit(found[0])
    assert (found[max_length:] == -factor).all()
    steps = found.diff(dim=0)
    assert (steps <= 0).all() and (steps >= -factor / cache - 1e-6).all()


def test_a_response_is_cut_off_at_the_limit_unless_it_ends_there() -> None:
    lengths, last = torch.tensor([[3, 4], [4, 5], [4, 0]]), torch.tensor([[7, 7], [2, 7], [9, 7]])
    found = is_truncated(lengths, last, stop_ids=[9, 2], max_length=4)
    assert found.tolist() == [[False, True], [False, True], [False, False]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache_length": 0}, "cache_length is 0 and max_length 8; 0 < cache_length <= max_length"),
        ({"cache_length": 9}, "cache_length is 9 and max_length 8"),
        ({"cache_length": 2, "factor": -1.0}, "factor is -1.0; it must be at least 0"),
    ],
)
def test_wrong_numbers_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        soft_overlong(torch.tensor([1]), max_length=8, **options)
