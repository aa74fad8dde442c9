"""The tree of prompts that begin alike: every piece is run once, and nothing said changes by it."""

import random
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.prefixes import Shared, share_prefixes
from lit_rl.sampling import Sampled, Sampler, SampleRequest, SamplingSettings


def ids(count: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(3, 48, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


def tokens_run(prompts: list[tuple[int, ...]], plan: list[Shared]) -> int:
    return sum(len(prompt) - shared.length for prompt, shared in zip(prompts, plan, strict=True))


def nodes(prompts: list[tuple[int, ...]]) -> int:
    """Nodes of the prefix tree, counted one by one: no plan can run fewer tokens."""
    return len({prompt[:n] for prompt in prompts for n in range(1, len(prompt) + 1)})


def of_traces(traces: int, cuts: tuple[int, ...], question: int = 30, length: int = 80) -> list[tuple[int, ...]]:
    """For each trace of one question, its beginnings and a token that ends each."""
    asked = ids(question, 0)
    return [asked + ids(length, 1 + t)[:cut] + (40 + i,) for t in range(traces) for i, cut in enumerate(cuts)]


def test_beginnings_of_traces_of_one_question_by_hand() -> None:
    """Two traces cut at 20, 40 and 60: the longest beginning of each runs what the shorter ones copy."""
    prompts = of_traces(2, (20, 40, 60))
    plan = share_prefixes(prompts)
    leaders = sorted({(shared.stage, shared.length) for shared in plan})
    assert leaders == [(0, 0), (1, 30), (1, 50), (1, 70), (2, 50), (2, 70)]
    # The question once, each trace once up to its last cut, and one token of their own for the shorter beginnings.
    assert tokens_run(prompts, plan) == 30 + 2 * 61 + 4 == nodes(prompts)


def test_copies_follow_whoever_they_copy() -> None:
    long, short = ids(40, 1), ids(40, 1)[:30] + (2,)
    assert share_prefixes([long, short, short, long]) == [
        Shared(0, 0, 0),
        Shared(1, 0, 30),
        Shared(2, 1, 31),
        Shared(1, 0, 40),
    ]


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), branches=st.integers(1, 4), depth=st.integers(1, 4))
def test_no_plan_runs_much_more_than_the_tree_has(seed: int, branches: int, depth: int) -> None:
    """Random trees: each prompt runs at most 15 tokens (not worth a copy), and the one for its logits, too many."""
    chance = random.Random(seed)
    prompts: list[tuple[int, ...]] = [()]
    for _ in range(depth):
        grown = [p + ids(chance.randint(1, 40), chance.randint(0, 10**9)) for p in prompts for _ in range(branches)]
        prompts = [*grown, *chance.sample([p for p in prompts if p], chance.randint(0, len([p for p in prompts if p])))]
    chance.shuffle(prompts)
    plan = share_prefixes(prompts)
    for prompt, shared in zip(prompts, plan, strict=True):
        leader = prompts[shared.leader]
        assert prompt[: shared.length] == leader[: shared.length]
        assert (shared.stage == 0) == (shared.length == 0)
        assert shared.stage == 0 or plan[shared.leader].stage < shared.stage
        assert shared.length < len(prompt) or prompt == leader
    assert nodes(prompts) <= tokens_run(prompts, plan) <= nodes(prompts) + 16 * len(set(prompts))


def test_a_sampler_runs_the_tree_and_says_what_each_prompt_alone_would_have_said(
    make_model: Callable[..., Any],
) -> None:
    model = make_model("qwen3")
    prompts = [*of_traces(3, (20, 40, 60)), *of_traces(1, (20, 60))]  # a copy, and one with another last token
    requests = [SampleRequest(row=row, new_ids=p, key=row, max_tokens=8) for row, p in enumerate(prompts)]

    def say(*asked: SampleRequest) -> tuple[dict[int, Sampled], Sampler]:
        sampler = Sampler(model, SamplingSettings(), stop_ids=frozenset({2}))
        for request in asked:
            sampler.submit(request)
        said: dict[int, Sampled] = {}
        while sampler.busy:
            said |= {reply.row: reply for reply in sampler.run()}
        return said, sampler

    together, sampler = say(*requests)
    assert sampler.work.prefilled == nodes(prompts)
    assert sampler.work.prefilled + sampler.work.shared == sum(map(len, prompts))
    for request in requests:
        alone = say(request)[0][request.row]
        assert alone.ids == together[request.row].ids
        torch.testing.assert_close(
            torch.tensor(alone.log_probs), torch.tensor(together[request.row].log_probs), atol=1e-5, rtol=0
        )
