"""A LoRA adapter that is part of the base: it acts under every party and is never trained."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_rl.weight_files import digest

NAME = "frozen"  # of the adapter in the model and in exports; no party may be called so
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def check_adapter_folder(folder: str | Path) -> None:
    """Raise ValueError unless ``folder`` is one LoRA adapter as PEFT writes it."""
    path = Path(folder)
    if not (path / CONFIG).is_file():
        inside = sorted(found.parent.name for found in path.glob(f"*/{CONFIG}"))
        hint = f" It holds those of {inside}; give one of these folders." if inside else ""
        raise ValueError(f"There is no {CONFIG} in {folder}, so it is no adapter's folder as PEFT writes it.{hint}")
    if not (path / WEIGHTS).is_file():
        raise ValueError(f"There is no {WEIGHTS} in {folder}; save the adapter with PEFT's save_pretrained.")
    config = json.loads((path / CONFIG).read_text())
    if config.get("peft_type") != "LORA":
        raise ValueError(f"The adapter in {folder} is of type {config.get('peft_type')}; give one of type LORA.")
    if config.get("modules_to_save"):
        raise ValueError(
            f"The adapter in {folder} replaces whole modules ({', '.join(config['modules_to_save'])}), which cannot be "
            "stacked; give one that only adds to linear layers."
        )


def attach(model: Any, folder: str | Path) -> None:
    """Load the adapter beside those of a PEFT model, without gradient; the first party acts on it.

    Raises:
        ValueError: It was made for another model.
    """
    party = model.active_adapter
    try:
        with torch.random.fork_rng(devices=[]):  # PEFT draws weights before it loads them
            model.load_adapter(str(folder), adapter_name=NAME, is_trainable=False)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"The adapter in {folder} does not fit the model it is to act on; give the base it was trained on "
            f"({' '.join(str(error).split())[:200]})."
        ) from error
    act(model, party)


def act(model: Any, party: str | None) -> None:
    """Let the frozen adapter act, with ``party`` on top of it or alone; leaves all adapters without gradient."""
    acting = [NAME] if party is None else [NAME, party]
    if model.base_model.active_adapters != acting:
        # Not the PEFT model's own `set_adapter`, which takes a single name.
        model.base_model.set_adapter(acting, inference_mode=True)


def fingerprint(folder: str | Path) -> Tensor:
    """Of the adapter's weights and of how they are scaled, uint8 ``(32,)``."""
    return torch.frombuffer(bytearray(digest(folder)), dtype=torch.uint8)
