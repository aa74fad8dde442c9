"""A key-value cache with one buffer per layer, in which slot ``j`` of a row holds the row's token ``j``.

Ragged prompts, turns of unequal length, forks and crops are then one mechanism: a list of lengths.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer


class _RowLayer(DynamicLayer):
    """Keys and values of one layer: ``(rows, heads, capacity, width of a head)``."""

    def __init__(self, rows: "RowCache"):
        super().__init__()
        self.rows = rows
        self.keys: Any
        self.values: Any

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        rows = self.rows
        if not self.is_initialized:
            _, heads, _, width = key_states.shape
            self.keys = key_states.new_zeros(rows.slots, heads, rows.capacity, width)
            self.values = value_states.new_zeros(rows.slots, heads, rows.capacity, value_states.shape[-1])
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        low, high = rows.range
        for buffer, states in ((self.keys, key_states), (self.values, value_states)):
            if rows.span is not None:
                buffer[low:high, :, rows.span[0] : rows.span[1]] = states
            else:
                buffer[rows.index, :, rows.positions] = states.transpose(1, 2)
        return self.keys[low:high, :, : rows.width], self.values[low:high, :, : rows.width]

    def resize(self, slots: int, capacity: int) -> None:
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(slots, old.shape[1], capacity, old.shape[3])
            new[: old.shape[0], :, : old.shape[2]] = old
            setattr(self, name, new)


class RowCache(Cache):
    """Rows addressed by position.  Stale data behind a row's length is masked, then overwritten.

    Attributes:
        lengths: Tokens held by each slot, Python ints, so that planning never waits for a device.
    """

    def __init__(self, slots: int, capacity: int = 64):
        super().__init__(layers=[])
        self.layers: list[Any]
        self.slots, self.capacity = slots, capacity
        self.lengths = [0] * slots
        self.range, self.width = (0, 0), 0
        self.span: tuple[int, int] | None = None
        self.index = self.positions = torch.empty(0)

    # -- transformers' side ------------------------------------------------------------------------------------

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        while len(self.layers) <= layer_idx:
            self.layers.append(_RowLayer(self))
        return self.layers[layer_idx].update(key_states, value_states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return max(self.lengths[slice(*self.range)], default=0)

    def get_mask_sizes(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        return self.width, 0

    # -- our side ----------------------------------------------------------------------------------------------

    def plan(self, low: int, high: int, tokens: int, device: torch.device) -> Tensor:
        """Make room for ``tokens`` more in slots ``low:high``; returns their positions, int64 ``(rows, tokens)``."""
        lengths = self.lengths[low:high]
        first, last = min(lengths), max(lengths)
        self.range, self.width = (low, high), last + tokens
        if self.width > self.capacity:
            self.resize(self.slots, max(self.width, 2 * self.capacity))
        self.span = (first, first + tokens) if first == last else None
        starts = torch.tensor(lengths, device=device)
        self.positions = starts[:, None] + torch.arange(tokens, device=device)
        if self.span is None:
            self.index = torch.arange(low, high, device=device)[:, None]
        return self.positions

    def resize(self, slots: int, capacity: int) -> None:
        """Grow the buffers; what they hold stays."""
        self.lengths += [0] * (slots - self.slots)
        self.slots, self.capacity = slots, capacity
        for layer in self.layers:
            layer.resize(slots, capacity)

    def copy_row(self, source: int, target: int, length: int) -> None:
        """``target`` becomes the first ``length`` tokens of ``source``."""
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                buffer[target, :, :length] = buffer[source, :, :length]
        self.lengths[target] = length

    def swap_rows(self, a: int, b: int) -> None:
        """Exchange two slots."""
        length = max(self.lengths[a], self.lengths[b])
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                kept = buffer[a, :, :length].clone()
                buffer[a, :, :length] = buffer[b, :, :length]
                buffer[b, :, :length] = kept
        self.lengths[a], self.lengths[b] = self.lengths[b], self.lengths[a]


def attention_mask(config: Any, positions: Tensor, width: int, dtype: torch.dtype) -> Any:
    """The 4D mask (or one per layer type) for tokens at ``positions`` over a cache of ``width`` tokens.

    Raises:
        NotImplementedError: The model has a kind of attention that position-addressed rows do not cover.
    """
    text = config.get_text_config()
    slots = torch.arange(width, device=positions.device)
    here = positions[:, :, None]

    def build(kind: str) -> Tensor:
        mask = slots <= here
        if kind == "sliding_attention":
            mask &= slots > here - text.sliding_window
        elif kind != "full_attention":
            raise NotImplementedError(kind)
        mask = mask[:, None]
        if text._attn_implementation == "eager":  # eager adds its mask, sdpa takes booleans
            return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)
        return mask

    if getattr(text, "layer_types", None):
        return {kind: build(kind) for kind in sorted(set(text.layer_types))}
    return build("sliding_attention" if getattr(text, "sliding_window", None) else "full_attention")
