"""One causal LM, the parties that live on it as LoRA adapters, and value heads."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_rl import frozen_adapter
from lit_rl.chat import ChatFormat, TemplateMismatch
from lit_rl.constraints import ConstraintTable
from lit_rl.loading import load_base, load_tokenizer, model_path, with_adapters
from lit_rl.objectives import chunked_log_probs, log_probs_from_logits
from lit_rl.policy_config import LoRA, PolicyConfig
from lit_rl.sampler_rows import rows_work
from lit_rl.sampling import Sampler, SamplingSettings

__all__ = ["LoRA", "Policy", "PolicyConfig"]


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
            self.model = with_adapters(self.model, config)
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
            constraint_states: The sampler's, int32 ``(B, T)``, -1 unconstrained.  Where the constraint says so, a
                token is predicted from an earlier position, see `lit_rl.constraints.TokenAutomaton.lag`.
            with_entropy: Also the entropy of the distribution each token was drawn from.
            hidden: What `hidden` returned for these rows, if that is known already; of use where ``head_is_exact``.

        Returns:
            float32 ``(B, T)`` each, 0 outside ``mask``; the entropy is None unless asked for.
        """
        if bool(mask[:, 0].any()):
            raise ValueError("log_probs: mask is True at position 0, which nothing predicts.")
        row, place = mask.nonzero(as_tuple=True)
        source, targets = place - 1, input_ids[row, place]
        options: dict[str, Any] = {"temperature": temperature}
        if constraint_states is not None:
            if self.constraints is None:
                raise ValueError("log_probs: tokens were sampled under constraints, and policy.constraints is None.")
            options["allowed"] = self.constraints.allowed
            options["allowed_index"] = constraint_states[row, place].long()
            source = source - self.constraints.lag(options["allowed_index"]) if self.constraints.lags else source
        if self.head_is_exact:
            states = self.hidden(input_ids) if hidden is None else hidden
            head = self.lm.get_output_embeddings()
            picked, entropy = chunked_log_probs(
                states[row, source],
                head.weight,
                targets,
                bias=head.bias,
                with_entropy=with_entropy,
                **self._scales(),
                **options,
            )
        else:
            with self._checkpointing():
                logits = self.lm(input_ids=input_ids, use_cache=False).logits[row, source]
            picked, entropy = log_probs_from_logits(logits, targets, **options)

        def spread(values: Tensor) -> Tensor:
            zeros = torch.zeros(input_ids.shape, dtype=torch.float32, device=input_ids.device)
            return zeros.index_put((row, place), values)

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
            for head in heads.values():  # values begin near 0: as noise they would be half of what success pays
                nn.init.normal_(head.weight, std=1e-3)
                nn.init.zeros_(head.bias)
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
