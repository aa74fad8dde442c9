"""Where the sampler's rows live between turns: as keys and values, or as token ids that are run anew."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from lit_rl.kv_cache import RowCache, attention_mask


class Rows(Protocol):
    """Where rows live between turns."""

    lengths: list[int]

    def feed(self, low: int, new: Sequence[Sequence[int]]) -> Tensor:
        """Run non-empty token lists behind slots ``low..``; logits of each last token, float32 ``(rows, V)``."""
        ...

    def copy_row(self, source: int, target: int, length: int) -> None: ...

    def swap_rows(self, a: int, b: int) -> None: ...

    def resize(self, slots: int) -> None: ...


class CachedRows:
    """Rows whose keys and values are kept in a `RowCache`."""

    def __init__(self, model: Any, slots: int = 8):
        self.model, self.cache = model, RowCache(slots)
        self.lengths = self.cache.lengths
        self.head = model.get_output_embeddings()
        self.last_position = getattr(model.config.get_text_config(), "max_position_embeddings", None)

    def feed(self, low: int, new: Sequence[Sequence[int]]) -> Tensor:
        count, longest = [len(ids) for ids in new], max(len(ids) for ids in new)
        device = self.model.device
        padded = [x[0] for x in new] if longest == 1 else [[*x, *([0] * (longest - len(x)))] for x in new]
        ids = torch.tensor(padded, device=device).view(len(new), longest)
        high = low + len(new)
        first = not any(self.lengths[low:high])
        positions = self.cache.plan(low, high, longest, device)
        # Pads are causal-invisible on a first prefill, so the model's own fast mask is right there.
        mask = None
        if not first:
            mask = attention_mask(self.model.config, positions, self.cache.width, self.model.dtype)
        if self.last_position is not None:
            positions = positions.clamp(max=self.last_position - 1)  # of pads; learned tables end there
        logits = self._last_logits(count, ids, positions, mask)
        for slot, tokens in zip(range(low, high), count, strict=True):
            self.lengths[slot] += tokens
        return logits

    def _last_logits(self, count: list[int], ids: Tensor, positions: Tensor, mask: Any) -> Tensor:
        """Keep one hidden state a row *before* the vocabulary product; the model's scaling after it still applies."""
        hook = None
        if ids.shape[1] > 1:
            pick = (torch.arange(len(count), device=ids.device), torch.tensor(count, device=ids.device) - 1)
            hook = self.head.register_forward_pre_hook(lambda _, inputs: (inputs[0][pick][:, None],))
        try:
            output = self.model(
                input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=self.cache, use_cache=True
            )
        finally:
            if hook is not None:
                hook.remove()
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def copy_row(self, source: int, target: int, length: int) -> None:
        self.cache.copy_row(source, target, length)

    def swap_rows(self, a: int, b: int) -> None:
        self.cache.swap_rows(a, b)

    def resize(self, slots: int) -> None:
        self.cache.resize(slots, self.cache.capacity)


class RecomputedRows:
    """Rows kept as token ids and run anew each time: right for every causal LM, and slow."""

    def __init__(self, model: Any, slots: int = 8):
        self.model = model
        self.ids: list[list[int]] = [[] for _ in range(slots)]
        self.lengths = [0] * slots

    def feed(self, low: int, new: Sequence[Sequence[int]]) -> Tensor:
        by_length: dict[int, list[int]] = {}
        for i, ids in enumerate(new):
            slot = low + i
            self.ids[slot] = self.ids[slot][: self.lengths[slot]] + list(ids)
            self.lengths[slot] = len(self.ids[slot])
            by_length.setdefault(self.lengths[slot], []).append(i)
        logits: list[Tensor] = [torch.empty(0)] * len(new)
        for rows in by_length.values():  # equal lengths: pads would enter the state of recurrent layers
            whole = torch.tensor([self.ids[low + i] for i in rows], device=self.model.device)
            output = self.model(input_ids=whole, use_cache=False).logits[:, -1].float()
            for i, row in zip(rows, output, strict=True):
                logits[i] = row
        return torch.stack(logits)

    def copy_row(self, source: int, target: int, length: int) -> None:
        self.ids[target], self.lengths[target] = self.ids[source][:length], length

    def swap_rows(self, a: int, b: int) -> None:
        self.ids[a], self.ids[b] = self.ids[b], self.ids[a]
        self.lengths[a], self.lengths[b] = self.lengths[b], self.lengths[a]

    def resize(self, slots: int) -> None:
        self.ids += [[] for _ in range(slots - len(self.ids))]
        self.lengths += [0] * (slots - len(self.lengths))


@torch.inference_mode()
def rows_work(model: Any) -> bool:
    """Whether `CachedRows` reproduces plain recomputation on this model, tried on two ragged rows of three pieces.

    A sliding window within reach (up to 4,096 tokens) is probed past its edge too.
    """
    text = model.config.get_text_config()
    pieces = [5, 23, 1, 1, 9, 2]
    window = getattr(text, "sliding_window", None)
    if window and window <= 4096:
        pieces[1] += window
    generator = torch.Generator().manual_seed(0)
    talk = [torch.randint(text.vocab_size, (n,), generator=generator).tolist() for n in pieces]
    try:
        rows = CachedRows(model, slots=2)
        for i in (0, 2, 4):
            got = rows.feed(0, talk[i : i + 2])
        plain = RecomputedRows(model, slots=2)
        want = plain.feed(0, [[*talk[i], *talk[i + 2], *talk[i + 4]] for i in (0, 1)])
    except (NotImplementedError, RuntimeError, TypeError, ValueError, AttributeError, IndexError, AssertionError):
        return False  # whatever an unknown architecture objects to, recomputation is the answer
    error, spread = got - want, want.std()
    if model.dtype == torch.float32:
        return bool(error.abs().max() < 1e-4 * spread.clamp(min=1))
    # In half precision one of so many logits may well be some rounding steps off, by 1 % of their spread in the mean; a
    # mask that shows or hides a single token moves all of them by 7 % or more.
    return bool(error.square().mean().sqrt() < 0.04 * spread)
