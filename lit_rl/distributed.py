"""Sums over ranks, the same under Trainer and Fabric, and nothing at all in a single process."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def is_distributed() -> bool:
    """Whether more than one process trains."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_sum(tensor: Tensor) -> Tensor:
    """``tensor`` summed over all ranks, in place."""
    if is_distributed():
        dist.all_reduce(tensor)
    return tensor


def gather_objects(item: Any) -> list[Any]:
    """One ``item`` of every rank, in rank order, on every rank."""
    if not is_distributed():
        return [item]
    items: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(items, item)
    return items


def rank() -> int:
    """Number of this process."""
    return dist.get_rank() if is_distributed() else 0


def sync_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sum gradients over ranks, once per optimizer step; a parameter without one on some rank counts as zero there.

    Losses are sums over a denominator of the whole step and of all ranks, so no factor of the world size appears.
    """
    if not is_distributed():
        return
    by_type: dict[torch.dtype, list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        by_type.setdefault(parameter.grad.dtype, []).append(parameter)
    for group in by_type.values():
        grads = [parameter.grad for parameter in group if parameter.grad is not None]
        flat = world_sum(torch.cat([grad.flatten() for grad in grads]))
        for grad, summed in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(summed.view_as(grad))


def no_backward_sync(strategy: Any, module: nn.Module) -> AbstractContextManager[None]:
    """Keep a data-parallel strategy from reducing in backward: `sync_gradients` does it once per step instead."""
    block = getattr(strategy, "block_backward_sync", None)  # Trainer's parallel strategies
    context: AbstractContextManager[None] = block() if block is not None else nullcontext()
    return context
