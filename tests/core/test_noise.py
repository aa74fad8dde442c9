"""Sampling noise: a pure function, uniform, and turned into tokens exactly."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_rl.noise import draw, uniform
from lit_rl.stream_keys import stream_key


def test_keys_tell_streams_apart_and_stay() -> None:
    keys = {stream_key(seed, "train", episode, party) for seed in range(5) for episode in range(50) for party in "ab"}
    assert len(keys) == 500 and all(0 <= key < 2**63 for key in keys)
    assert stream_key(1, "23") != stream_key("1", 23) != stream_key(12, 3)
    assert stream_key(0, "train", 7, "student") == 7564277397035244875


def test_golden_uniforms() -> None:
    """Written down once: these numbers are part of what a seed means."""
    keys = torch.tensor([0, 1, 2**62 + 5])
    golden = [0.64530317217, 0.047189669451, 0.44283439692]
    assert [round(x, 12) for x in uniform(keys, torch.tensor([0, 0, 9])).tolist()] == golden


def test_uniform_is_uniform_and_uncorrelated() -> None:
    count = 200_000
    keys = torch.tensor([stream_key(i) for i in range(200)]).repeat_interleave(count // 200)
    positions = torch.arange(count // 200).repeat(200)
    u = uniform(keys, positions)
    assert u.dtype == torch.float64 and bool(((u > 0) & (u < 1)).all())
    assert abs(float(u.mean()) - 0.5) < 4 * (1 / 12 / count) ** 0.5
    counts = torch.histc(u.float(), bins=100, min=0, max=1)
    chi2 = float(((counts - count / 100) ** 2 / (count / 100)).sum())
    assert 99 - 5 * 14 < chi2 < 99 + 5 * 14  # mean 99, standard deviation sqrt(2 x 99)
    for a, b in ((u[:-1], u[1:]), (u[:-1000], u[1000:])):  # neighbours in a row, and one position of two rows
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 4 / count**0.5


def test_a_row_does_not_see_the_batch() -> None:
    keys, positions = torch.arange(1000) * 12345, torch.arange(1000) % 7
    alone = torch.cat([uniform(keys[i : i + 1], positions[i : i + 1]) for i in range(1000)])
    assert torch.equal(alone, uniform(keys, positions))


def test_draw_by_hand() -> None:
    """Cumulative .1 .3 .6 1: the token whose stretch holds the number."""
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log().repeat(6, 1)
    noise = torch.tensor([0.05, 0.15, 0.299, 0.301, 0.61, 0.9999999999], dtype=torch.float64)
    assert draw(logits, noise).tolist() == [0, 1, 1, 2, 3, 3]


@given(
    allowed=st.lists(st.booleans(), min_size=2, max_size=20).filter(any),
    noise=st.one_of(st.floats(2**-49, 1 - 2**-49), st.just(1 - 2**-49), st.just(2**-49)),
    scale=st.sampled_from([0.0, 1.0, 50.0]),
)
def test_a_forbidden_token_is_never_drawn(allowed: list[bool], noise: float, scale: float) -> None:
    logits = scale * torch.randn(len(allowed), generator=torch.Generator().manual_seed(0))
    logits = logits.masked_fill(~torch.tensor(allowed), -torch.inf)[None]
    token = int(draw(logits, torch.tensor([noise], dtype=torch.float64)))
    assert 0 <= token < len(allowed) and allowed[token]


def test_draw_follows_the_distribution() -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0, 2.0, -torch.inf]])
    count = 100_000
    noise = uniform(torch.full((count,), 77), torch.arange(count))
    shares = torch.bincount(draw(logits.expand(count, -1), noise), minlength=5) / count
    torch.testing.assert_close(shares, logits.softmax(-1)[0], atol=4 * 0.5 / count**0.5, rtol=0)
    assert shares[4] == 0


def test_shifted_logits_draw_the_same() -> None:
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    noise = uniform(torch.arange(50), torch.arange(50))
    assert torch.equal(draw(logits, noise), draw(logits + 8.0, noise))
    assert draw(logits, noise).dtype == torch.int64
