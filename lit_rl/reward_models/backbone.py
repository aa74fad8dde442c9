"""The causal LM below the heads: it reads a prompt and generates nothing."""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lit_rl.loading import load_base, load_tokenizer, model_path
from lit_rl.objectives.pooling import pool_last_k
from lit_rl.policy_config import LoRA, PolicyConfig
from lit_rl.reward_models.families import Row, families, represent_family
from lit_rl.sampler_rows import rows_work
from lit_rl.tiny import TinyModel
from lit_rl.weight_files import digest


@dataclass(kw_only=True)
class BackboneConfig:
    """What to load and how; plain values, so that it can be saved with the heads.

    Args:
        path: Folder or hub id of a causal LM with a chat template.
        tiny: Build a small random model instead of ``path``.
        quantization: "nf4" loads it in 4 bits (bitsandbytes); then it cannot be trained.
        dtype: Of weights and computation; the heads are float32 always.
        max_length: Longest prompt in tokens, if the model's own limit is not lower.
        template_options: Further arguments of the chat template, such as ``reasoning_effort: medium``.
        attn_implementation: As in transformers; None takes its default.
    """

    path: str | None = None
    tiny: TinyModel | None = None
    quantization: Literal["nf4"] | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_length: int = 20_000
    template_options: dict[str, Any] = field(default_factory=dict)
    attn_implementation: str | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.tiny is None):
            raise ValueError(
                "backbone: give exactly one of backbone.path (a model folder or hub id) and backbone.tiny."
            )
        if self.max_length < 1:
            raise ValueError(f"backbone.max_length is {self.max_length}; it must be at least 1.")

    def as_policy(self) -> PolicyConfig:
        """The same for `lit_rl.loading`, which never looks at the adapters that 4 bits ask for."""
        return PolicyConfig(
            path=self.path,
            tiny=self.tiny,
            adapters={"idle": LoRA(rank=1)},
            quantization=self.quantization,
            dtype=self.dtype,
            attn_implementation=self.attn_implementation,
        )


class Backbone:
    """A loaded causal LM without gradients; no ``nn.Module``, so that nobody moves, saves or counts its weights.

    Attributes:
        tokenizer: Of the model.
        model: The causal LM, in eval mode.
        width: Of its hidden states, ``H``.
        max_length: Longest prompt in tokens.

    Args:
        config: What to load.
        device: Where to.
    """

    def __init__(self, config: BackboneConfig, device: torch.device | str = "cpu"):
        self.config = config
        self.path = model_path(config.as_policy())
        try:
            self.tokenizer = load_tokenizer(self.path)
        except ValueError as error:
            raise ValueError(f"The backbone cannot be loaded: {error}") from error
        self.model: Any = load_base(self.path, config.as_policy(), torch.device(device)).requires_grad_(False).eval()
        text = self.model.config.get_text_config()
        self.width: int = text.hidden_size
        self.max_length = min(config.max_length, getattr(text, "max_position_embeddings", None) or config.max_length)

    @cached_property
    def identity(self) -> str:
        """Which weights were loaded, in what type: by their bytes where they lie in a folder, else by the hub id."""
        local = any(Path(self.path).glob("*.safetensors"))
        weights = digest(self.path).hex() if local else self.path
        return f"{weights} {self.config.dtype} {self.config.quantization}"

    @cached_property
    def keeps_rows(self) -> bool:
        """Whether what prompts begin with can be run once: tried out, with a warning if not."""
        works = rows_work(self.model)
        if not works:
            warnings.warn(
                f"{type(self.model).__name__} does not work with cached rows; a paper is read anew with each question.",
                stacklevel=2,
            )
        return works

    @torch.no_grad()
    def represent_all(self, rows: Sequence[Row], *, pool_tokens: int | None, token_budget: int) -> Tensor:
        """As `represent`, in as many forwards as it takes; a paper is run once for all questions about it.

        Args:
            rows: Token ids.
            pool_tokens: See `pool_last_k`.
            token_budget: Most padded tokens of one forward, with those whose keys and values are kept.
        """
        unique = list(dict.fromkeys(rows))
        found: dict[int, Tensor] = {}
        alone: list[int] = []
        for family in families(unique):
            if len(family) == 1 or not self.keeps_rows:
                alone += family
                continue
            own = [unique[place] for place in family]
            vectors = represent_family(self.model, own, pool_tokens=pool_tokens, token_budget=token_budget)
            found |= zip(family, vectors, strict=True)
        for part in length_batches([len(unique[place]) for place in alone], token_budget):
            own = [unique[alone[i]] for i in part]
            vectors = self.represent(own, pool_tokens=pool_tokens, with_gradient=False)
            found |= zip((alone[i] for i in part), vectors, strict=True)
        number = {row: place for place, row in enumerate(unique)}
        return torch.stack([found[number[row]] for row in rows])

    def represent(self, rows: Sequence[Sequence[int]], *, pool_tokens: int | None, with_gradient: bool) -> Tensor:
        """The pooled last hidden states (after the final norm) of prompts, float32 ``(N, H)``.

        Args:
            rows: Token ids.
            pool_tokens: How many of the last states are pooled, see `pool_last_k`.
            with_gradient: Whether the model's weights are trained.
        """
        device = self.model.device
        lengths = torch.tensor([len(row) for row in rows], device=device)
        input_ids = torch.full((len(rows), max(map(len, rows))), self.tokenizer.pad_token_id or 0, device=device)
        for place, row in enumerate(rows):
            input_ids[place, : len(row)] = torch.tensor(row, device=device)
        mask = torch.arange(input_ids.shape[1], device=device) < lengths[:, None]
        with nullcontext() if with_gradient else torch.no_grad():
            # Without an attention mask: right padding is invisible to causal attention.
            hidden = self.model.base_model(input_ids=input_ids, use_cache=False)[0]
            return pool_last_k(hidden, mask, k=pool_tokens)


def length_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Places of rows, the short ones first, in batches of at most ``token_budget`` padded tokens (one row at least).

    Example:
        >>> length_batches([5, 2, 9, 3], token_budget=6)
        [[1, 3], [0], [2]]
    """
    batches: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches and (len(batches[-1]) + 1) * lengths[place] <= token_budget:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches
