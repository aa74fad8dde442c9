"""What a policy is made of: a causal LM, adapters on it, value heads."""

import re
from dataclasses import dataclass, field
from typing import Literal

from lit_rl import frozen_adapter
from lit_rl.tiny import TinyModel


@dataclass(kw_only=True)
class LoRA:
    """A low-rank adapter of one party.

    Args:
        rank: Of the update.
        alpha: Scale; the update is multiplied by ``alpha / rank``.
        target_modules: Names of the layers to adapt, or "all-linear" (the output head stays out).
    """

    rank: int = 16
    alpha: float = 32.0
    target_modules: str | list[str] = "all-linear"


@dataclass(kw_only=True)
class PolicyConfig:
    """What to load and how; plain values, so that a checkpoint can hold it.

    Args:
        path: Folder or hub id of a causal LM with a chat template.
        tiny: Build a small random model instead of ``path``.
        adapters: One LoRA adapter per trained party; None trains all weights.
        frozen_adapter: Folder of a LoRA adapter as PEFT writes it that acts under every party, and alone as the
            reference: part of the base, never trained or in a checkpoint; needs ``adapters``.
        quantization: "nf4" loads the frozen base in 4 bits (bitsandbytes); needs ``adapters``.
        dtype: Of weights and computation; log-probs are float32 always.
        value_heads: Names of scalar heads on the last hidden state.
        rows: "dialogue" keeps a dialogue in one training row, "turn" gives each turn its own (its prompt is rendered
            anew, as templates that drop earlier thinking need), "auto" tries the first and falls back to the second.
        prefill: Text that opens every reply of a party, inserted and not learned.
        max_length: Longest row in tokens; None takes the model's own limit.
        gradient_checkpointing: Recompute activations in backward.
        attn_implementation: As in transformers; None takes its default.
        seed: Of adapter and head weights.
    """

    path: str | None = None
    tiny: TinyModel | None = None
    adapters: dict[str, LoRA] | None = None
    frozen_adapter: str | None = None
    quantization: Literal["nf4"] | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    value_heads: list[str] = field(default_factory=list)
    rows: Literal["auto", "dialogue", "turn"] = "auto"
    prefill: dict[str, str] = field(default_factory=dict)
    max_length: int | None = None
    gradient_checkpointing: bool = False
    attn_implementation: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.path is None) == (self.tiny is None):
            raise ValueError("policy: give exactly one of policy.path (a model folder or hub id) and policy.tiny.")
        if self.quantization and not self.adapters:
            raise ValueError("policy.quantization freezes the base: name the parties to train in policy.adapters.")
        if self.adapters is not None and not self.adapters:
            raise ValueError("policy.adapters is empty; name at least one party, or leave it out to train all weights.")
        for party in self.adapters or {}:
            if not re.fullmatch(r"\w+", party) or party == "value_heads":
                raise ValueError(f"policy.adapters: {party!r} is no name for a party; use letters, digits and '_'.")
        if self.frozen_adapter is not None:
            self._check_frozen_adapter()

    def _check_frozen_adapter(self) -> None:
        if not self.adapters:
            raise ValueError(
                "policy.frozen_adapter is never trained: name the parties to train in policy.adapters, or merge it "
                "into the base first (scripts/merge_adapters.py)."
            )
        if frozen_adapter.NAME in self.adapters:
            raise ValueError(
                f"policy.adapters has a party {frozen_adapter.NAME!r}, as policy.frozen_adapter is called; name it "
                "otherwise."
            )
        try:
            frozen_adapter.check_adapter_folder(str(self.frozen_adapter))
        except ValueError as error:
            raise ValueError(f"policy.frozen_adapter: {error}") from error
