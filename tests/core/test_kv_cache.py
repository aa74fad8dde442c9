"""Position-addressed keys and values: what a slot holds after forks, crops, swaps and growth."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, LlamaConfig, MistralConfig

from lit_rl.kv_cache import RowCache, attention_mask

CPU = torch.device("cpu")


def states(low: int, rows: int, count: int) -> torch.Tensor:
    """Keys ``(rows, 1, count, 2)`` whose numbers say which row and token they are of."""
    row = torch.arange(low, low + rows).view(-1, 1, 1, 1) * 100.0
    return (row + torch.arange(count).view(1, 1, -1, 1)).expand(rows, 1, count, 2).clone()


def write(cache: RowCache, low: int, high: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    cache.plan(low, high, count, CPU)
    keys, values = cache.update(states(low, high - low, count), -states(low, high - low, count), 0)
    for slot in range(low, high):
        cache.lengths[slot] += count
    return keys, values


def held(cache: RowCache, slot: int) -> list[float]:
    return cache.layers[0].keys[slot, 0, : cache.lengths[slot], 0].tolist()


def test_ragged_rows_keep_token_j_in_slot_j() -> None:
    cache = RowCache(3, capacity=8)
    write(cache, 0, 1, 2)  # row 0: tokens 0 1
    keys, values = write(cache, 0, 3, 2)  # row 0: two more behind them; rows 1 and 2: their first
    assert held(cache, 0) == [0, 1, 0, 1]
    assert held(cache, 1) == [100, 101]
    assert held(cache, 2) == [200, 201]
    assert keys.shape == (3, 1, 4, 2) and torch.equal(values, -keys)


def test_positions_continue_each_row() -> None:
    cache = RowCache(2, capacity=8)
    write(cache, 0, 1, 3)
    assert cache.plan(0, 2, 2, CPU).tolist() == [[3, 4], [0, 1]]
    assert cache.get_mask_sizes(2, 0) == (5, 0) and cache.get_seq_length() == 3


def test_growth_keeps_what_is_held() -> None:
    cache = RowCache(2, capacity=4)
    write(cache, 0, 2, 3)
    write(cache, 0, 2, 6)
    assert cache.capacity >= 9
    assert held(cache, 1) == [100, 101, 102, 100, 101, 102, 103, 104, 105]
    cache.resize(5, cache.capacity)
    assert cache.lengths == [9, 9, 0, 0, 0] and held(cache, 1)[:3] == [100, 101, 102]


def test_fork_and_swap() -> None:
    cache = RowCache(3, capacity=8)
    write(cache, 0, 1, 4)
    write(cache, 1, 2, 2)
    cache.copy_row(0, 2, 3)
    assert held(cache, 2) == [0, 1, 2] and held(cache, 0) == [0, 1, 2, 3]
    cache.swap_rows(0, 1)
    assert held(cache, 0) == [100, 101] and held(cache, 1) == [0, 1, 2, 3]
    write(cache, 2, 3, 1)  # a fork is a copy: writing behind it leaves its source alone
    assert held(cache, 2) == [0, 1, 2, 200] and held(cache, 1) == [0, 1, 2, 3]


def with_attention(config: Any, implementation: str) -> Any:
    config._attn_implementation = implementation
    return config


def test_masks_by_hand() -> None:
    positions = torch.tensor([[2, 3], [0, 1]])
    llama = attention_mask(with_attention(LlamaConfig(), "sdpa"), positions, 4, torch.float32)
    assert llama[:, 0].int().tolist() == [[[1, 1, 1, 0], [1, 1, 1, 1]], [[1, 0, 0, 0], [1, 1, 0, 0]]]
    config = with_attention(MistralConfig(sliding_window=2), "sdpa")
    window = attention_mask(config, positions, 4, torch.float32)
    assert window[:, 0].int().tolist() == [[[0, 1, 1, 0], [0, 0, 1, 1]], [[1, 0, 0, 0], [1, 1, 0, 0]]]


def test_masks_by_layer_type_and_eager() -> None:
    config = with_attention(Gemma2Config(sliding_window=2, num_hidden_layers=2), "eager")
    masks = attention_mask(config, torch.tensor([[2]]), 3, torch.float32)
    low = torch.finfo(torch.float32).min
    assert masks["full_attention"].flatten().tolist() == [0, 0, 0]
    assert masks["sliding_attention"].flatten().tolist() == [low, 0, 0]


def test_an_unknown_kind_of_attention_is_refused() -> None:
    config = LlamaConfig()
    config.layer_types = ["chunked_attention"]
    with pytest.raises(NotImplementedError, match="chunked_attention"):
        attention_mask(config, torch.tensor([[0]]), 1, torch.float32)


@torch.inference_mode()
def test_stale_data_is_invisible(make_model: Callable[..., Any]) -> None:
    """A row cut back in place gives the logits of a row that never was longer."""
    from lit_rl.sampler_rows import CachedRows

    model = make_model("qwen2")
    for cut in (1, 4, 9):
        used, fresh = CachedRows(model, slots=1), CachedRows(model, slots=1)
        used.feed(0, [list(range(3, 13))])
        used.lengths[0] = cut
        fresh.feed(0, [list(range(3, 3 + cut))])
        torch.testing.assert_close(used.feed(0, [[20, 21]]), fresh.feed(0, [[20, 21]]), atol=1e-5, rtol=0)
