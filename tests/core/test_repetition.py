"""The repetition penalty of the sampler, against transformers' own processor and its ``generate``."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from lit_rl.repetition import penalise_repetition
from lit_rl.sampling import Sampled, Sampler, SampleRequest, SamplingSettings

V = 48


def prompt(count: int, seed: int) -> list[int]:
    return torch.randint(3, V, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def say(model: Any, requests: list[SampleRequest], max_rows: int = 64, **options: Any) -> dict[int, Sampled]:
    sampler = Sampler(model, SamplingSettings(**options), stop_ids=frozenset({2}), max_rows=max_rows)
    for request in requests:
        sampler.submit(request)
    said: dict[int, Sampled] = {}
    while sampler.busy:
        done = sampler.run()
        said |= {reply.row: reply for reply in done}
        sampler.release([reply.row for reply in done])
    return said


def requests_of(count: int) -> list[SampleRequest]:
    return [
        SampleRequest(row=row, new_ids=prompt(4 + 3 * (row % 4), seed=row), key=row, max_tokens=6 + row % 5)
        for row in range(count)
    ]


@pytest.mark.parametrize("penalty", [1.1, 3.0, 0.5])
def test_penalise_repetition_is_that_of_transformers(penalty: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(5, V, generator=generator)
    rows = torch.randint(0, V, (5, 12), generator=generator)
    seen = torch.zeros(5, V, dtype=torch.bool).scatter_(1, rows, True)
    want = RepetitionPenaltyLogitsProcessor(penalty)(rows, logits.clone())
    torch.testing.assert_close(penalise_repetition(logits, seen, penalty), want)


@pytest.mark.parametrize("architecture", ["qwen2", "gpt2"])
def test_greedy_replies_are_those_of_generate(architecture: str, make_model: Callable[..., Any]) -> None:
    """Many rows through few slots, as slots are swapped and taken over."""
    model = make_model(architecture)
    requests = requests_of(14)
    found = say(model, requests, max_rows=4, temperature=0.0, repetition_penalty=1.3)
    plain = say(model, requests, temperature=0.0)
    assert any(found[row].ids != plain[row].ids for row in plain), "the penalty has an effect"
    for request in requests:
        want = model.generate(
            torch.tensor([request.new_ids]), do_sample=False, repetition_penalty=1.3,
            max_new_tokens=request.max_tokens, eos_token_id=2, pad_token_id=0,
        )  # fmt: skip
        assert found[request.row].ids == want[0, len(request.new_ids) :].tolist()


@torch.no_grad()
def test_log_probs_are_of_the_penalised_distribution(make_model: Callable[..., Any]) -> None:
    """Penalty before temperature, as in transformers."""
    model = make_model("llama")
    request = requests_of(1)[0]
    said = say(model, [request], temperature=0.8, repetition_penalty=1.5)[0]
    row = torch.tensor([request.new_ids])
    for token, log_prob in zip(said.ids, said.log_probs, strict=True):
        logits = RepetitionPenaltyLogitsProcessor(1.5)(row, model(input_ids=row).logits[:, -1].clone())
        assert log_prob == pytest.approx(float((logits / 0.8).log_softmax(-1)[0, token]), abs=1e-5)
        row = torch.cat([row, torch.tensor([[token]])], 1)


def test_a_second_turn_counts_what_the_first_said(make_model: Callable[..., Any]) -> None:
    model = make_model("qwen2")
    sampler = Sampler(model, SamplingSettings(temperature=0.0, repetition_penalty=2.0), stop_ids=frozenset({2}))
    row: list[int] = []
    for turn in range(2):
        sampler.submit(SampleRequest(row=0, new_ids=prompt(5, seed=turn), key=0, max_tokens=6))
        row += prompt(5, seed=turn)
        said = sampler.run()[0].ids
        want = model.generate(
            torch.tensor([row]), do_sample=False, repetition_penalty=2.0, max_new_tokens=6, eos_token_id=2,
            pad_token_id=0,
        )  # fmt: skip
        assert said == want[0, len(row) :].tolist()
        row += said


def test_bad_penalties_and_training_with_one_are_refused() -> None:
    with pytest.raises(ValueError, match="sampling.repetition_penalty is 0.0; give a number above 0"):
        SamplingSettings(repetition_penalty=0.0)
    with pytest.raises(ValueError, match="repetition_penalty = 1"):
        SamplingSettings(repetition_penalty=1.1).check_trainable()
