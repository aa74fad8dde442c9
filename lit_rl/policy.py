"""One causal LM, the parties that live on it as LoRA adapters, and value heads."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_rl import frozen_adapter
from lit_rl.chat import ChatFormat, TemplateMismatch
from lit_rl.constraints import ConstraintTable
from lit_rl.objectives import chunked_log_probs, log_probs_from_logits
from lit_rl.sampler_rows import rows_work
from lit_rl.sampling import Sampler, SamplingSettings
from lit_rl.tiny import TinyModel, materialize


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


class Policy(nn.Module):
    """A causal LM that several parties share.

    Use it as a party with ``with policy.acting_as("student"):`` around forward *and* backward: switching adapters in
    between changes ``requires_grad`` and what gradient checkpointing recomputes, without a word.

    Attributes:
        tokenizer: Of the model.
        chat: Renders what parties hear.
        rows_per: "dialogue" or "turn", see `PolicyConfig.rows`.
        parties: Names of the adapters, or none when all weights are trained.
        max_length: Longest row in tokens.
        constraints: Token constraints by name, if any were set.
    """

    def __init__(self, config: PolicyConfig, device: torch.device | str = "cpu"):
        super().__init__()
        self.config = config
        self.path = model_path(config)
        self.tokenizer = load_tokenizer(self.path)
        self.chat = ChatFormat(self.tokenizer, config.prefill)
        self.rows_per = self._rows_per(config.rows)
        self.model = load_base(self.path, config, torch.device(device))
        if config.adapters:
            self.model = _with_adapters(self.model, config)
        self.parties = tuple(config.adapters or ())
        if config.frozen_adapter is not None:  # in checkpoints, which do not hold the adapter itself
            self.register_buffer("frozen_fingerprint", frozen_adapter.fingerprint(config.frozen_adapter))
        self.value_heads = self._new_value_heads()
        self.constraints: ConstraintTable | None = None
        self._acting: list[str | None] = []
        # In a tuple, which nn.Module does not register: these are names for what is registered already.
        self._trained = tuple(p for group in self.parameter_groups().values() for p in group)
        self._enable_gradients()
        self._set_modes()
        self.head_is_exact = self._check_head()
        self._rows_work: bool | None = None
        limit = getattr(self.lm.config.get_text_config(), "max_position_embeddings", None)
        self.max_length = min(x for x in (config.max_length, limit, 2**31) if x is not None)

    # -- parts -------------------------------------------------------------------------------------------------

    @property
    def lm(self) -> Any:
        """The causal LM inside, with adapters acting in place."""
        return self.model.get_base_model() if self.parties else self.model

    @property
    def device(self) -> torch.device:
        device: torch.device = self.lm.device
        return device

    def train(self, mode: bool = True) -> "Policy":
        """Dropout stays off in training too: sampler and trainer must see one distribution."""
        self.training = mode
        return self

    def trainable_names(self) -> list[str]:
        """Names of the parameters that are trained and saved: by party and head, not by ``requires_grad``."""
        return [name for name, _ in self.named_parameters() if self._group_of(name) is not None]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters by party (``"all"`` without adapters) and ``"value_heads"``."""
        named = dict(self.named_parameters())
        groups: dict[str, list[nn.Parameter]] = {}
        for name in self.trainable_names():
            groups.setdefault(str(self._group_of(name)), []).append(named[name])
        return groups

    def _group_of(self, name: str) -> str | None:
        """Whose parameter ``name`` is; None for frozen ones."""
        if name.startswith("value_heads."):
            return "value_heads"
        if not self.parties:
            return "all"
        # A party may be called like a module ("model", "layers"): only the piece behind PEFT's own is its name.
        adapter = re.search(r"\.lora_\w+\.(\w+)", name)
        return adapter.group(1) if adapter and adapter.group(1) in self.parties else None

    # -- acting ------------------------------------------------------------------------------------------------

    @contextmanager
    def acting_as(self, party: str | None) -> Iterator[None]:
        """Be ``party`` (None: the reference policy, the frozen base) for forward and backward alike.

        Raises:
            RuntimeError: Nested inside another party.
            ValueError: No such party, or no adapters whose absence would be a reference.
        """
        if self._acting and self._acting[-1] != party:
            raise RuntimeError(
                f"acting_as({party!r}) inside acting_as({self._acting[-1]!r}): finish backward before switching party."
            )
        if self._acting or (not self.parties and party is not None):
            switch: Any = nullcontext()
        elif not self.parties:
            raise ValueError(
                "There is no reference policy: all weights are trained. Use policy.adapters, whose base stays frozen."
            )
        elif party is not None and party not in self.parties:
            raise ValueError(f"The policy has no party {party!r}; its adapters are {list(self.parties)}.")
        else:
            switch = self._switch(party)
        self._acting.append(party)
        try:
            with switch:
                self._enable_gradients()
                yield
        finally:
            self._acting.pop()
            self._enable_gradients()

    def _switch(self, party: str | None) -> Any:
        if self.config.frozen_adapter is not None:
            frozen_adapter.act(self.model, party)
        elif party is None:
            return self.model.disable_adapter()
        elif self.model.active_adapter != party:
            self.model.set_adapter(party)
        return nullcontext()

    def _enable_gradients(self) -> None:
        """PEFT switches ``requires_grad`` off for all adapters but the active one; every party stays trainable."""
        if self.parties:
            for parameter in self._trained:
                parameter.requires_grad_(True)

    # -- scoring -----------------------------------------------------------------------------------------------

    def log_probs(
        self,
        input_ids: Tensor,
        mask: Tensor,
        *,
        temperature: float = 1.0,
        constraint_states: Tensor | None = None,
        with_entropy: bool = False,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probs of the tokens in ``mask``, each predicted from everything before it.

        Args:
            input_ids: Right-padded rows, int64 ``(B, T)``.
            mask: Tokens wanted, bool ``(B, T)``; never the first of a row.
            temperature: The sampler's.
            constraint_states: The sampler's, int32 ``(B, T)``, -1 unconstrained.
            with_entropy: Also the entropy of the distribution each token was drawn from.
            hidden: What `hidden` returned for these rows, if that is known already; of use where ``head_is_exact``.

        Returns:
            float32 ``(B, T)`` each, 0 outside ``mask``; the entropy is None unless asked for.
        """
        if bool(mask[:, 0].any()):
            raise ValueError("log_probs: mask is True at position 0, which nothing predicts.")
        before, targets = mask[:, 1:], input_ids[:, 1:][mask[:, 1:]]
        options: dict[str, Any] = {"temperature": temperature}
        if constraint_states is not None and self.constraints is not None:
            options["allowed"] = self.constraints.allowed
            options["allowed_index"] = constraint_states[:, 1:][before].long()
        if self.head_is_exact:
            states = self.hidden(input_ids) if hidden is None else hidden
            head = self.lm.get_output_embeddings()
            picked, entropy = chunked_log_probs(
                states[:, :-1][before],
                head.weight,
                targets,
                bias=head.bias,
                with_entropy=with_entropy,
                **self._scales(),
                **options,
            )
        else:
            with self._checkpointing():
                logits = self.lm(input_ids=input_ids, use_cache=False).logits[:, :-1][before]
            picked, entropy = log_probs_from_logits(logits, targets, **options)
        place = before.nonzero(as_tuple=True)

        def spread(values: Tensor) -> Tensor:
            zeros = torch.zeros(input_ids.shape, dtype=torch.float32, device=input_ids.device)
            return zeros.index_put((place[0], place[1] + 1), values)

        return spread(picked), spread(entropy) if with_entropy and entropy is not None else None

    def values(self, input_ids: Tensor, head: str) -> Tensor:
        """A value head on every position, float32 ``(B, T)``."""
        value: Tensor = self.value_heads[head](self.hidden(input_ids).float()).squeeze(-1)
        return value

    def hidden(self, input_ids: Tensor) -> Tensor:
        """Last hidden states, final norm included, ``(B, T, H)``.  Right padding is invisible to causal attention."""
        with self._checkpointing():
            hidden: Tensor = self.lm.base_model(input_ids=input_ids, use_cache=False)[0]
        return hidden

    # -- sampling ----------------------------------------------------------------------------------------------

    def sampler(self, settings: SamplingSettings, max_rows: int) -> Sampler:
        """A sampler of the party being acted as; valid until the weights change."""
        if self._rows_work is None:
            self._rows_work = rows_work(self.lm)
            if not self._rows_work:
                warnings.warn(
                    f"{type(self.lm).__name__} does not work with cached rows; sampling recomputes every token.",
                    stacklevel=2,
                )
        return Sampler(
            self.lm,
            settings,
            stop_ids=self.chat.stop_ids,
            max_rows=max_rows,
            constraints=self.constraints,
            cached=self._rows_work,
        )

    # -- saving ------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write what other tools load: a PEFT directory per party, or a whole model; the tokenizer; value heads.

        A frozen adapter lies beside the parties as ``frozen``: without it they mean nothing.
        """
        folder = Path(folder)
        if self.parties:
            frozen = [] if self.config.frozen_adapter is None else [frozen_adapter.NAME]
            self.model.save_pretrained(folder, selected_adapters=[*self.parties, *frozen])
        else:
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        if len(self.value_heads):
            from safetensors.torch import save_file

            save_file(
                {k: v.contiguous() for k, v in self.value_heads.state_dict().items()}, folder / "heads.safetensors"
            )

    # -- inner workings ----------------------------------------------------------------------------------------

    def _rows_per(self, rows: str) -> Literal["dialogue", "turn"]:
        if rows == "turn":
            return "turn"
        try:
            self.chat.check()
        except TemplateMismatch as mismatch:
            if rows == "dialogue":
                raise
            warnings.warn(f"{mismatch} rows='auto' does so now.", stacklevel=3)
            return "turn"
        return "dialogue"

    def _new_value_heads(self) -> nn.ModuleDict:
        width = self.lm.config.get_text_config().hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed + 1)
            heads = {name: nn.Linear(width, 1) for name in self.config.value_heads}
        return nn.ModuleDict(heads).to(self.device)

    def _set_modes(self) -> None:
        """``from_pretrained`` gives eval mode, PEFT's dropout would train: all off, on purpose."""
        for module in self.model.modules():
            module.training = False
        if self.config.quantization:
            from bitsandbytes.nn import Linear4bit

            for module in self.model.modules():
                # In eval mode, on CPUs with AVX-512, it packs its weights for a product that gives no gradient.
                module.training = isinstance(module, Linear4bit)
        self._checkpointed: list[nn.Module] = []
        if self.config.gradient_checkpointing:
            self.lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            self._checkpointed = [m for m in self.lm.modules() if getattr(m, "gradient_checkpointing", False)]

    @contextmanager
    def _checkpointing(self) -> Iterator[None]:
        """Layers checkpoint only in training mode, and then refuse a cache: the mode is on for scoring alone."""
        on = torch.is_grad_enabled()
        for module in self._checkpointed:
            module.training = on
        try:
            yield
        finally:
            for module in self._checkpointed:
                module.training = False

    def _scales(self) -> dict[str, Any]:
        """What stands between the head's output and the logits, by architecture."""
        text = self.lm.config.get_text_config()
        scale = getattr(text, "logit_scale", None) or 1.0
        if getattr(text, "logits_scaling", None):
            scale = scale / text.logits_scaling
        return {"softcap": getattr(text, "final_logit_softcapping", None), "scale": scale}

    @torch.no_grad()
    def _check_head(self) -> bool:
        """Whether hidden states, head and known scalings give this architecture's logits, tried on eight tokens."""
        head = self.lm.get_output_embeddings()
        if not isinstance(head, nn.Linear):
            return False
        vocabulary = self.lm.config.get_text_config().vocab_size
        ids = torch.randint(vocabulary, (1, 8), generator=torch.Generator().manual_seed(0)).to(self.device)
        want = self.lm(input_ids=ids, use_cache=False).logits[0, :-1].float()
        options: dict[str, Any] = self._scales()
        got, _ = chunked_log_probs(self.hidden(ids)[0, :-1], head.weight, ids[0, 1:], bias=head.bias, **options)
        want = want.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        exact = bool((got - want).abs().max() < (1e-4 if self.lm.dtype == torch.float32 else 5e-2))
        if not exact:
            warnings.warn(
                f"{type(self.lm).__name__} computes logits in a way of its own; log-probs use its full forward.",
                stacklevel=3,
            )
        return exact


def model_path(config: PolicyConfig) -> str:
    """Folder or hub id of the base, which a tiny model is built in first."""
    return str(materialize(config.tiny)) if config.tiny is not None else str(config.path)


def load_tokenizer(path: str) -> Any:
    """The tokenizer in a model's folder or at a hub id; raises ValueError if there is none."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    try:
        # AutoTokenizer goes by the *model's* type: a Qwen2 with a tokenizer of its own would get Qwen2's splitting.
        named = get_tokenizer_config(path).get("tokenizer_class")
        own = named in ("TokenizersBackend", "PreTrainedTokenizerFast")
        return (PreTrainedTokenizerFast if own else AutoTokenizer).from_pretrained(path)
    except OSError as error:
        raise ValueError(
            f"policy.path {path!r} is neither a folder with a model and its tokenizer nor a reachable hub id: {error}"
        ) from error


def load_base(path: str, config: PolicyConfig, device: torch.device) -> Any:
    """The causal LM at ``path`` in the type and quantization of ``config``, without its adapters."""
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, config.dtype)
    options: dict[str, Any] = {"dtype": dtype}
    if config.attn_implementation:
        options["attn_implementation"] = config.attn_implementation
    if config.quantization == "nf4":
        from transformers import BitsAndBytesConfig

        options["device_map"] = {"": device}
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_quant_storage=dtype,  # sharded strategies need storage of the computing type
        )
    model: Any = AutoModelForCausalLM.from_pretrained(path, **options)
    return model if config.quantization else model.to(device)


def _with_adapters(model: Any, config: PolicyConfig) -> Any:
    # Without PEFT's preparation for 4 bits: it makes embeddings and norms float32, and bitsandbytes multiplies in the
    # type of what comes in, so that all would be computed in float32 whatever ``dtype`` says.
    from peft import LoraConfig, get_peft_model

    lora = {
        party: LoraConfig(
            r=spec.rank,
            lora_alpha=spec.alpha,  # type: ignore[arg-type]  # PEFT only divides it
            target_modules=spec.target_modules,
            lora_dropout=0.0,
            task_type="CAUSAL_LM",
        )
        for party, spec in (config.adapters or {}).items()
    }
    names: Sequence[str] = list(lora)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        wrapped = get_peft_model(model, lora[names[0]], adapter_name=names[0])
        for name in names[1:]:
            wrapped.add_adapter(name, lora[name])
    if config.frozen_adapter is not None:
        frozen_adapter.attach(wrapped, config.frozen_adapter)
    return wrapped
