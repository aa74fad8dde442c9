"""Replies of a policy that begin with given words."""

from collections.abc import Sequence
from dataclasses import dataclass

from lit_rl.batch_sampling import sample_batch, sampled_text
from lit_rl.environments.base import Message
from lit_rl.policy import Policy
from lit_rl.sampling import SampleRequest, SamplingSettings, Work


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplyRequest:
    """One reply wanted."""

    prompt_ids: Sequence[int]  # all that is heard, and the header to speak under
    key: int  # of its sampling noise
    opening: str = ""  # what the reply begins with


class Replier:
    """Lets one party of a policy reply to many requests at once; what requests begin with in common is run once.

    Attributes:
        work: Tokens that went through the model so far, and those that did not have to.

    Args:
        policy: Samples.
        party: Whose adapter acts; any name if the policy has none, and None for its frozen base.
        max_rows: Replies sampled at once.
    """

    def __init__(self, policy: Policy, party: str | None, max_rows: int = 256):
        self.policy, self.party, self.max_rows = policy, party, max_rows
        self.work = Work()

    def prompt_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of a conversation and of the header the party speaks under."""
        return self.policy.chat.opening(self.party or "", messages).ids

    def reply(self, requests: Sequence[ReplyRequest], settings: SamplingSettings) -> list[str | None]:
        """What follows the opening of each, in order; None where the context has no room for a token.

        Args:
            requests: What to reply to.
            settings: How tokens are drawn; where the context is nearly full, a reply ends earlier.

        Raises:
            ValueError: The tokenizer cannot spell an opening.
        """
        asked = []
        for row, request in enumerate(requests):
            ids = [*request.prompt_ids, *self._spelled(request.opening)]
            room = min(settings.max_tokens, self.policy.max_length - len(ids))
            if room > 0:
                asked.append(SampleRequest(row=row, new_ids=ids, key=request.key, max_tokens=room))
        said = sample_batch(self.policy, self.party, asked, settings, max_rows=self.max_rows, work=self.work)
        return [sampled_text(self.policy, said[row]) if row in said else None for row in range(len(requests))]

    def _spelled(self, text: str) -> list[int]:
        tokenizer = self.policy.tokenizer
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids: list[int] = encoded["input_ids"]
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
            start, stop = encoded["offset_mapping"][ids.index(tokenizer.unk_token_id)]
            raise ValueError(
                f"The tokenizer has no token for {text[start:stop]!r} in {text!r}; add it to the vocabulary, or use "
                "words it has."
            )
        return ids
