"""A party that is another model on this machine: a stronger teacher, say, with its own tokenizer."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from lit_rl.batch_sampling import sample_batch
from lit_rl.environments.base import Reply
from lit_rl.parties import Call, PartyError
from lit_rl.policy import Policy, PolicyConfig
from lit_rl.sampling import SampleRequest, SamplingSettings, Work


class LocalParty:
    """A frozen model that replies to conversations, all calls in one batch.

    In a config::

        data:
          class_path: lit_rl.datamodules.DidacticDataModule
          init_args:
            teacher:
              class_path: lit_rl.local_party.LocalParty
              init_args:
                policy: {path: Qwen/Qwen2.5-7B-Instruct, quantization: nf4, adapters: {idle: {rank: 1}}}
                settings: {temperature: 0.7, max_tokens: 256}

    It is loaded when it is asked first, onto the device of this process, and acts as the base of ``policy``: in 4 bits
    that needs an entry in ``adapters``, which stays idle.  Each conversation is read anew at every turn, but for what
    the calls of a batch begin with in common.

    Args:
        policy: The model.
        settings: How its tokens are drawn.
        max_rows: Replies sampled at once.
        name: For error messages, and of its prefill in ``policy.prefill``.
    """

    def __init__(self, policy: PolicyConfig, settings: SamplingSettings, *, max_rows: int = 256, name: str = "teacher"):
        if max_rows < 1:
            raise ValueError(f"LocalParty.max_rows is {max_rows}; it must be at least 1.")
        self.policy_config, self.settings, self.max_rows, self.name = policy, settings, max_rows, name
        self.work = Work()
        self._policy: Policy | None = None

    def reply(self, calls: Sequence[Call]) -> list[Reply]:
        """Replies in the order of the calls.

        Raises:
            PartyError: A conversation and a reply of one token do not fit into the model's context.
        """
        policy = self._loaded()
        requests = [self._request(policy, row, call) for row, call in enumerate(calls)]
        acts_as = None if self.policy_config.adapters else self.name
        said = sample_batch(policy, acts_as, requests, self.settings, max_rows=self.max_rows, work=self.work)
        replies = []
        for row, call in enumerate(calls):
            text, ended = policy.chat.text(self.name, said[row].ids, call.role), said[row].ended
            replies.append(Reply(text=text, stop_reason="end" if ended else "length", token_ids=tuple(said[row].ids)))
        return replies

    def figures(self) -> dict[str, float]:
        """Tokens run and shared since this process began."""
        return {
            "prefilled_tokens": float(self.work.prefilled),
            "shared_tokens": float(self.work.shared),
            "sampled_tokens": float(self.work.decoded),
        }

    def _request(self, policy: Policy, row: int, call: Call) -> SampleRequest:
        prompt = list(policy.chat.opening(self.name, call.messages, call.role).ids)
        room = min(call.max_tokens or self.settings.max_tokens, policy.max_length - len(prompt))
        if room < 1:
            raise PartyError(
                self.name,
                f"a conversation of {len(prompt)} tokens leaves no room for a reply in {policy.max_length}; shorten "
                "the task or take a model with a longer context.",
                call.episode,
            )
        return SampleRequest(row=row, new_ids=prompt, key=call.key, max_tokens=room)

    def _loaded(self) -> Policy:
        if self._policy is None:
            device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
            with torch.random.fork_rng(devices=[]):  # so that a resumed run draws what it would have drawn
                # Whole conversations are rendered at every turn: templates may rewrite earlier ones.
                self._policy = Policy(replace(self.policy_config, rows="turn"), device).requires_grad_(False)
        return self._policy
