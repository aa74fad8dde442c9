"""Adapters merged into their base: one ordinary model, with the logits it had while they were attached."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lit_rl.frozen_adapter import check_adapter_folder
from lit_rl.loading import load_base, load_tokenizer, model_path
from lit_rl.policy import PolicyConfig


def merge_adapters(base: PolicyConfig, adapters: Sequence[str | Path], output: str | Path) -> Path:
    """Merge LoRA adapters into ``base``, the first first, and write the model and its tokenizer to ``output``.

    ``W' = W + alpha / rank * B A`` for each adapter.  A base in 4 bits is dequantized before: merging into 4 bits would
    round the adapters away, and the weights it was quantized from are not those the adapters were trained on.

    Args:
        base: What the adapters were trained on: ``path`` or ``tiny``, ``quantization``, ``dtype`` and
            ``frozen_adapter`` count; the latter is merged before all others, and ``adapters`` is passed over.
        adapters: Folders as PEFT writes them; every further one was trained on top of those before it.
        output: A folder that does not exist yet.

    Returns:
        ``output``, written whole or not at all.

    Raises:
        ValueError: A folder is no adapter's, an adapter does not fit, or ``output`` exists.
    """
    folders = [*([base.frozen_adapter] if base.frozen_adapter else []), *adapters]
    if not folders:
        raise ValueError("merge_adapters: no adapters are given, so there is nothing to merge.")
    for folder in folders:
        check_adapter_folder(folder)
    target = Path(output)
    if target.exists():
        raise ValueError(f"merge_adapters: {output} exists; remove it or give another folder.")
    path = model_path(base)
    model = _dequantized(base, path)
    for folder in folders:
        model = _merged(model, folder)
    _write([model, load_tokenizer(path)], target)
    return target


def _dequantized(base: PolicyConfig, path: str) -> Any:
    """The base as a policy loads it, every weight in ``base.dtype``."""
    model = load_base(path, base, torch.device("cpu"))
    return model if base.quantization is None else model.dequantize(dtype=getattr(torch, base.dtype))


def _merged(model: Any, folder: str | Path) -> Any:
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(folder)).merge_and_unload(safe_merge=True)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"The adapter in {folder} cannot be merged into this model; give the base it was trained on "
            f"({' '.join(str(error).split())[:200]})."
        ) from error


def _write(parts: Sequence[Any], target: Path) -> None:
    """Save all parts in a folder beside ``target`` first, so that no half model is ever found there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".writing-"))
    try:
        for part in parts:
            part.save_pretrained(scratch)
        scratch.chmod(0o755)  # mkdtemp makes it private
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
