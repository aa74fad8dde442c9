"""Log-probs of chosen tokens from hidden states, in chunks: no tensor of (positions, vocabulary) ever exists whole.

The softmax of a chunk is thrown away and computed again in the backward pass; what is kept is one number per position.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lit_rl.objectives.entropy import categorical_entropy

Allowed = Tensor | Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Processing:
    """What turns the head's product into the logits of the distribution that is sampled from."""

    temperature: float = 1.0
    softcap: float | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; log-probs need one greater than 0.")
        if self.softcap is not None and self.softcap <= 0:
            raise ValueError(f"softcap is {self.softcap}; give a number greater than 0, or None for no cap.")

    def __call__(self, raw: Tensor, forbidden: Tensor | None) -> Tensor:
        """``(m, V)`` to ``(m, V)``, float32 at least, -inf where ``forbidden``."""
        logits = raw.to(torch.promote_types(raw.dtype, torch.float32))
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = (logits / self.softcap).tanh() * self.softcap
        if self.temperature != 1.0:
            logits = logits / self.temperature
        return logits if forbidden is None else logits.masked_fill(forbidden, -torch.inf)

    def backward(self, grad: Tensor, logits: Tensor, forbidden: Tensor | None) -> Tensor:
        """Gradient of ``raw``, given that of the ``logits`` made from it."""
        grad = grad * (self.scale / self.temperature)
        if self.softcap is not None:
            grad = grad * (1 - (logits * (self.temperature / self.softcap)).square())
        return grad if forbidden is None else grad.masked_fill(forbidden, 0.0)


def chunked_log_probs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    scale: float = 1.0,
    allowed: Allowed | None = None,
    allowed_index: Tensor | None = None,
    with_entropy: bool = False,
    chunk_elements: int = 2**22,
) -> tuple[Tensor, Tensor | None]:
    """Log-probs of ``targets`` under ``softmax(logits)``, exact in value and gradient, in little memory.

    ``logits = softcap(scale (hidden weight^T + bias)) / temperature`` with ``softcap(x) = c tanh(x / c)``, and -inf
    where a token is not allowed.  The product is taken in the dtype the model's own head would use (that of autocast,
    else of the wider operand), so values equal the sampler's; all that follows is float32.

    Args:
        hidden: Last hidden states of the positions that predict ``targets``, float ``(M, H)``.
        weight: Of the output head, float ``(V, H)``.
        targets: Token ids, int64 ``(M,)``.
        bias: Of the output head, float ``(V,)``.
        temperature: The sampler's, greater than 0.
        softcap: Bound ``c`` on the logits, as in Gemma 2.
        scale: Multiplies the head's product, as in Cohere's models.
        allowed: Tokens that could be sampled in each state of a constraint, one at least per state: a table, bool
            ``(S, V)``, or a function from states, int64 ``(m,)`` and all tokens for -1, to bool ``(m, V)``, which is
            called for a chunk at a time.
        allowed_index: The state of each position, int64 ``(M,)``; -1 where nothing was constrained.
        with_entropy: Also the entropy of each distribution; costs about as much again.
        chunk_elements: Logits computed at a time; fewer is less memory, and on a CPU also faster.

    Returns:
        Log-probs and entropies (None unless asked for) ``(M,)``, float32, or float64 for float64 inputs.  Gradients
        flow to ``hidden``, ``weight`` and ``bias`` as far as they require one.

    Raises:
        ValueError: Shapes disagree, or a number is out of range.

    Example:
        >>> hidden, weight = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0], [0.0, 3.0]])
        >>> chunked_log_probs(hidden, weight, torch.tensor([1]), with_entropy=True)
        (tensor([-0.6931]), tensor([0.6931]))
    """
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1] or targets.shape != hidden.shape[:1]:
        raise ValueError(
            f"chunked_log_probs: hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)} and targets "
            f"{tuple(targets.shape)} must be (M, H), (V, H) and (M,)."
        )
    _check_allowed(allowed, allowed_index, len(targets), len(weight))
    if chunk_elements < 1:
        raise ValueError(
            f"chunk_elements is {chunk_elements}; give the number of logits to hold at a time, at least 1."
        )
    process, rows = _Processing(temperature, softcap, scale), max(1, chunk_elements // len(weight))
    apply: Callable[..., tuple[Tensor, Tensor | None]] = _ChunkedLogProbs.apply
    return apply(hidden, weight, bias, targets, allowed, allowed_index, process, rows, with_entropy)


def log_probs_from_logits(
    logits: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    allowed: Allowed | None = None,
    allowed_index: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The same from a model's own logits, for architectures whose head is not a plain product.

    Args:
        logits: As the model gives them (scaled and capped), float ``(M, V)``.
        targets: Token ids, int64 ``(M,)``.
        temperature: The sampler's, greater than 0.
        allowed: As in `chunked_log_probs`.
        allowed_index: As in `chunked_log_probs`.

    Returns:
        Log-probs and entropies ``(M,)``, float32, or float64 for float64 logits.

    Raises:
        ValueError: Shapes disagree, or ``temperature`` is out of range.

    Example:
        >>> allowed = torch.tensor([[True, True, False]])
        >>> log_probs_from_logits(torch.zeros(2, 3), torch.tensor([0, 0]), allowed=allowed,
        ...                       allowed_index=torch.tensor([0, -1]))
        (tensor([-0.6931, -1.0986]), tensor([0.6931, 1.0986]))
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(
            f"log_probs_from_logits: logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must be (M, V) "
            "and (M,)."
        )
    _check_allowed(allowed, allowed_index, *logits.shape)
    logits = _Processing(temperature)(logits, _forbidden(allowed, allowed_index, slice(None)))
    log_probs = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    return log_probs, categorical_entropy(logits)


class _ChunkedLogProbs(torch.autograd.Function):
    """``d log p_k / dz = onehot(k) - p`` and ``d H / dz = -p (log p + H)``, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        allowed: Allowed | None,
        allowed_index: Tensor | None,
        process: _Processing,
        rows: int,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor | None]:
        head = _Head(hidden, weight, bias, _head_dtype(hidden, weight))
        out = hidden.new_empty(len(targets), dtype=torch.promote_types(head.dtype, torch.float32))
        normalizer, entropy = torch.empty_like(out), torch.empty_like(out) if with_entropy else None
        for start in range(0, len(targets), rows):
            chunk = slice(start, start + rows)
            logits = process(head(chunk), _forbidden(allowed, allowed_index, chunk))
            normalizer[chunk] = logits.logsumexp(-1)
            out[chunk] = logits.gather(1, targets[chunk, None])[:, 0] - normalizer[chunk]
            if entropy is not None:
                log_p = logits.sub_(normalizer[chunk, None])
                entropy[chunk] = -(log_p.exp() * _finite(log_p)).sum(-1)
        ctx.save_for_backward(hidden, weight, bias, targets, allowed_index, normalizer, entropy)
        ctx.process, ctx.rows, ctx.dtype, ctx.allowed = process, rows, head.dtype, allowed
        ctx.set_materialize_grads(False)
        return out, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, allowed_index, normalizer, entropy = ctx.saved_tensors
        head = _Head(hidden, weight, bias, ctx.dtype)
        # Sums over chunks are kept in full precision: in bfloat16 small chunks would be lost in the large total.
        grads = [
            torch.zeros_like(x, dtype=normalizer.dtype) if x is not None and needed else None
            for x, needed in zip((hidden, weight, bias), ctx.needs_input_grad[:3], strict=True)
        ]
        for start in range(0, len(targets), ctx.rows):
            chunk = slice(start, start + ctx.rows)
            forbidden = _forbidden(ctx.allowed, allowed_index, chunk)
            logits = ctx.process(head(chunk), forbidden)
            log_p = logits - normalizer[chunk, None]
            grad = torch.zeros_like(normalizer[chunk, None]) if grad_out is None else grad_out[chunk, None].neg()
            if grad_entropy is not None:
                grad = grad - (_finite(log_p) + entropy[chunk, None]) * grad_entropy[chunk, None]
            grad = log_p.exp_() * grad
            if grad_out is not None:
                grad.scatter_add_(1, targets[chunk, None], grad_out[chunk, None])
            head.backward(ctx.process.backward(grad, logits, forbidden), chunk, grads)
        typed = [g if g is None else g.to(x.dtype) for g, x in zip(grads, (hidden, weight, bias), strict=True)]
        return (*typed, None, None, None, None, None, None)


class _Head:
    """The output head on slices of the positions, in one fixed dtype, autocast or not."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype):
        self.hidden, self.weight, self.dtype = hidden, weight.to(dtype), dtype
        self.bias = None if bias is None else bias.to(dtype)

    def __call__(self, chunk: slice) -> Tensor:
        with torch.autocast(self.hidden.device.type, enabled=False):
            return torch.nn.functional.linear(self.hidden[chunk].to(self.dtype), self.weight, self.bias)

    def backward(self, grad: Tensor, chunk: slice, grads: list[Tensor | None]) -> None:
        """Add the chunk's share to the gradients of hidden states, weight and bias."""
        grad_hidden, grad_weight, grad_bias = grads
        narrow = grad.to(self.dtype)
        with torch.autocast(self.hidden.device.type, enabled=False):
            if grad_hidden is not None:
                grad_hidden[chunk] = (narrow @ self.weight).to(grad_hidden.dtype)
            if grad_weight is not None and grad_weight.dtype == self.dtype:
                grad_weight.addmm_(narrow.T, self.hidden[chunk].to(self.dtype))
            elif grad_weight is not None:
                grad_weight += narrow.T @ self.hidden[chunk].to(self.dtype)
            if grad_bias is not None:
                grad_bias += grad.sum(0)


def _head_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return torch.promote_types(hidden.dtype, weight.dtype)


def _finite(log_p: Tensor) -> Tensor:
    """Log-probs with 0 for -inf, for products with ``p = 0``: 0 * -inf would be NaN."""
    return log_p.masked_fill(log_p == -torch.inf, 0.0)


def _forbidden(allowed: Allowed | None, allowed_index: Tensor | None, chunk: slice) -> Tensor | None:
    """Tokens that could not have been sampled, bool ``(m, V)``."""
    if allowed is None or allowed_index is None:
        return None
    state = allowed_index[chunk]
    if not isinstance(allowed, Tensor):
        return ~allowed(state)
    return ~allowed[state.clamp(min=0)] & (state >= 0)[:, None]


def _check_allowed(allowed: Allowed | None, allowed_index: Tensor | None, positions: int, vocabulary: int) -> None:
    if (allowed is None) != (allowed_index is None):
        raise ValueError(
            "Give both allowed (the tokens of each state) and allowed_index (each position's state), or neither."
        )
    if allowed is None or allowed_index is None:
        return
    table = allowed(allowed_index[:1]) if callable(allowed) else allowed
    if table.ndim != 2 or table.shape[1] != vocabulary or allowed_index.shape != (positions,):
        raise ValueError(
            f"allowed {tuple(table.shape)} and allowed_index {tuple(allowed_index.shape)} must be (states, "
            f"{vocabulary}) and ({positions},) for this vocabulary and these positions."
        )
