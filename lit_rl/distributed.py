"""Sums over ranks, the same under Trainer and Fabric, and nothing at all in a single process."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_BUCKET = 2**25  # numbers summed at a time: 128 MiB of float32


def is_distributed() -> bool:
    """Whether more than one process trains."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Number of this process."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if is_distributed() else 1


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


def sync_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sum gradients over ranks, once per optimizer step; a rank without one (it had no row of that party) adds zero.

    Losses are sums over a denominator of the whole step and of all ranks, so no factor of the world size appears.  A
    parameter that no rank has a gradient of keeps none: the optimizer leaves it alone, as it does in one process.
    """
    if not is_distributed() or not parameters:
        return
    mine = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int32)
    ranks_with_one = world_sum(mine.to(parameters[0].device)).tolist()
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for parameter, ranks in zip(parameters, ranks_with_one, strict=True):
        if not ranks:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        by_type.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for grads in by_type.values():
        for bucket in _buckets(grads):
            flat = world_sum(torch.cat([grad.flatten() for grad in bucket]))
            for grad, summed in zip(bucket, flat.split([grad.numel() for grad in bucket]), strict=True):
                grad.copy_(summed.view_as(grad))


def _buckets(grads: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Few collectives for adapters, little extra memory for whole models."""
    bucket: list[Tensor] = []
    for grad in grads:
        if bucket and sum(g.numel() for g in bucket) + grad.numel() > _BUCKET:
            yield bucket
            bucket = []
        bucket.append(grad)
    yield bucket


def no_backward_sync(strategy: Any) -> AbstractContextManager[None]:
    """Keep a data-parallel strategy from reducing in backward: `sync_gradients` does it once per step instead.

    Fabric's strategies need no such thing: there the module is called past its data-parallel wrapper.
    """
    block = getattr(strategy, "block_backward_sync", None)
    context: AbstractContextManager[None] = nullcontext() if block is None else block()
    return context


def check_strategy(strategy: Any) -> None:
    """Raise ValueError under a strategy of Trainer or Fabric that would train wrongly without a word.

    Strategies that shard weights reduce gradients themselves, in another way than `sync_gradients`; float16 scales the
    loss, so that gradients would be clipped at the wrong norm.
    """
    names = [kind.__name__ for kind in type(strategy).__mro__]
    if any(sharded in name for name in names for sharded in ("FSDP", "ModelParallel", "DeepSpeed", "XLA")):
        raise ValueError(
            f"The strategy is {names[0]}, which shards weights and reduces gradients in its own way; lit-rl sums them "
            "over ranks itself. Use 'auto' or 'ddp'; policy.quantization and policy.adapters make large models fit."
        )
    plugin = getattr(strategy, "precision_plugin", None) or getattr(strategy, "precision", None)
    precision = str(getattr(plugin, "precision", ""))
    if precision.startswith("16"):
        raise ValueError(
            f"The precision is {precision!r}, whose scaled losses lit-rl neither clips nor checks right; use "
            "'bf16-mixed', 'bf16-true' or '32-true'."
        )
