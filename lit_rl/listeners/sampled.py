"""Listeners whose words we sample: another local model, or the module's own policy."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from lit_rl.batch_sampling import sample_batch, sampled_text
from lit_rl.listeners.base import Continuation, ListenRequest
from lit_rl.listeners.prompts import ListenerPrompts, PromptMode
from lit_rl.policy import Policy, PolicyConfig
from lit_rl.sampling import Sampled, SampleRequest, SamplingSettings, Work
from lit_rl.verification.traces import ThinkTags

# As published, but for the limit, which is that of the authors' code.
LISTENING = SamplingSettings(temperature=0.9, top_p=0.9, repetition_penalty=1.1, max_tokens=4096)


class SampledListener(ABC):
    """What both share: all requests are sampled in one batch, and what their prompts begin with in common runs once.

    Args:
        name: In the names of figures.
        settings: How tokens are drawn; None is temperature 0.9, top-p 0.9, repetition penalty 1.1 and up to 4096
            tokens (the paper's, section A, and its code's).  A prompt that leaves fewer of the context gets those.
        tags: Its think tags; None is ``<think>`` and ``</think>``.
        prompt_mode: See `ListenerPrompts`.
        instruction: See `ListenerPrompts`.
        max_rows: Continuations sampled at once.

    Attributes:
        work: Tokens run and shared so far.
    """

    def __init__(
        self,
        name: str,
        *,
        settings: SamplingSettings | None = None,
        tags: ThinkTags | None = None,
        prompt_mode: PromptMode = "chat",
        instruction: str | None = None,
        max_rows: int = 256,
    ):
        if prompt_mode not in ("raw", "chat"):
            raise ValueError(f"Listener {name!r}: prompt_mode is {prompt_mode!r}; it must be 'chat' or 'raw'.")
        if max_rows < 1:
            raise ValueError(f"Listener {name!r}: max_rows is {max_rows}; it must be at least 1.")
        self.name, self.settings, self.tags = name, settings or LISTENING, tags or ThinkTags()
        self.prompt_mode, self.instruction, self.max_rows = prompt_mode, instruction, max_rows
        self.work, self.seconds = Work(), 0.0
        self._policy: Policy | None = None
        self._prompts: ListenerPrompts | None = None

    @property
    @abstractmethod
    def acts_as(self) -> str | None:
        """Which party of its policy it is."""

    @abstractmethod
    def attach(self, module: Any) -> None:
        """See `lit_rl.listeners.Listener`."""

    def _listen_with(self, policy: Policy) -> None:
        if policy is not self._policy:
            self._policy = policy
            self._prompts = ListenerPrompts(
                policy.tokenizer, self.tags, self.prompt_mode, self.instruction, name=self.name
            )

    def continue_(self, requests: Sequence[ListenRequest]) -> list[Continuation]:
        if self._policy is None or self._prompts is None:
            raise RuntimeError(f"Listener {self.name!r} has no model yet; call attach(module) first.")
        start = time.perf_counter()
        prompts = [self._prompts.ids(request.question, request.prefix) for request in requests]
        asked = [self._request(row, prompts[row], request.key) for row, request in enumerate(requests)]
        # Greedy listeners say the same to equal prompts.
        first: dict[tuple[int, ...], int] = {}
        same = [first.setdefault(p, i) if self.settings.temperature == 0 else i for i, p in enumerate(prompts)]
        said = self._sample([request for row, request in enumerate(asked) if request and same[row] == row])
        self.seconds += time.perf_counter() - start
        return [self._continuation(said[row]) if row in said else Continuation(stop_reason="no_room") for row in same]

    def figures(self) -> dict[str, float]:
        """Counts since this process began: tokens run, those that were shared instead, and so on."""
        return {
            "prefilled_tokens": float(self.work.prefilled),
            "shared_tokens": float(self.work.shared),
            "sampled_tokens": float(self.work.decoded),
            "prompts_with_unknown_words": float(self._prompts.unknown if self._prompts else 0),
            "seconds": self.seconds,
        }

    def _request(self, row: int, prompt: tuple[int, ...], key: int) -> SampleRequest | None:
        assert self._policy is not None
        room = min(self.settings.max_tokens, self._policy.max_length - len(prompt))
        return SampleRequest(row=row, new_ids=prompt, key=key, max_tokens=room) if room > 0 else None

    def _sample(self, requests: Sequence[SampleRequest]) -> dict[int, Sampled]:
        assert self._policy is not None
        return sample_batch(self._policy, self.acts_as, requests, self.settings, max_rows=self.max_rows, work=self.work)

    def _continuation(self, said: Sampled) -> Continuation:
        assert self._policy is not None
        return Continuation(text=sampled_text(self._policy, said), stop_reason="end" if said.ended else "length")


class LocalListener(SampledListener):
    """A model of its own, frozen, loaded at the first batch onto the device of the module that trains.

    It has its own tokenizer, think tags, chat template, quantization and sampling.  It acts as the base of ``policy``
    (with its ``frozen_adapter`` on, if there is one): a 4-bit base needs an entry in ``adapters``, which stays idle.

    Args:
        name: In the names of figures.
        policy: The model.
        kwargs: Of `SampledListener`.
    """

    def __init__(self, name: str, policy: PolicyConfig, **kwargs: Any):
        super().__init__(name, **kwargs)
        self.policy_config = policy

    @property
    def acts_as(self) -> str | None:
        return None if self.policy_config.adapters else self.name  # without adapters there is no base apart

    def attach(self, module: Any) -> None:
        if self._policy is None:
            policy = getattr(module, "policy", None)
            device = policy.device if isinstance(policy, Policy) else module.device
            with torch.random.fork_rng(devices=[]):  # so that a resumed run draws what it would have drawn
                # Templates that drop earlier thinking are no trouble here: there is one turn.
                self._listen_with(Policy(replace(self.policy_config, rows="turn"), device).requires_grad_(False))


class PolicyListener(SampledListener):
    """The policy of the module that trains, as one of its adapters or as the base: no further weights are held.

    Args:
        name: In the names of figures.
        adapter: Of the policy; None is the frozen base.  One that is trained makes a listener that changes with it.
        kwargs: Of `SampledListener`.
    """

    def __init__(self, name: str, adapter: str | None = None, **kwargs: Any):
        super().__init__(name, **kwargs)
        self.adapter = adapter

    @property
    def acts_as(self) -> str | None:
        return self.adapter

    def attach(self, module: Any) -> None:
        policy = getattr(module, "policy", None)
        if not isinstance(policy, Policy):
            raise ValueError(
                f"Listener {self.name!r} is the policy of the module, but {type(module).__name__} has no "
                "lit_rl.policy.Policy as its `policy`; use LocalListener."
            )
        if self.adapter is None and not policy.parties:
            raise ValueError(
                f"Listener {self.name!r} is the frozen base of the policy, all of whose weights are trained; train "
                "adapters (policy.adapters), or use LocalListener."
            )
        self._listen_with(policy)
