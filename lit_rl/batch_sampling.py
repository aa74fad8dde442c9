"""Many rows of one party, sampled in one batch."""

from collections.abc import Sequence

from lit_rl.policy import Policy
from lit_rl.sampling import Sampled, SampleRequest, SamplingSettings, Work


def sample_batch(
    policy: Policy,
    party: str | None,
    requests: Sequence[SampleRequest],
    settings: SamplingSettings,
    *,
    max_rows: int,
    work: Work,
) -> dict[int, Sampled]:
    """Sample every request, once; what requests begin with in common is run once.

    Args:
        policy: Samples.
        party: Its adapter; None is the frozen base.
        requests: Whole prompts, each under a row of its own.
        settings: How tokens are drawn.
        max_rows: Rows sampled at once.
        work: Gets what it has cost added.

    Returns:
        By row.
    """
    said: dict[int, Sampled] = {}
    with policy.acting_as(party):
        sampler = policy.sampler(settings, max_rows)
        for request in sorted(requests, key=lambda request: tuple(request.new_ids)):  # alike ones are admitted together
            sampler.submit(request)
        while sampler.busy:
            done = sampler.run()
            said |= {reply.row: reply for reply in done}
            sampler.release([reply.row for reply in done])
    work.prefilled += sampler.work.prefilled
    work.decoded += sampler.work.decoded
    work.shared += sampler.work.shared
    return said


def sampled_text(policy: Policy, said: Sampled) -> str:
    """What was said, without the token that ends a turn; special tokens stay, as think tags may be among them."""
    ids = said.ids[:-1] if said.ended else said.ids
    text: str = policy.tokenizer.decode(ids, skip_special_tokens=False)
    return text
