"""What prompts about one paper begin with is run once: the same representations, fewer tokens."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_rl.prefixes import common_prefix
from lit_rl.reward_models import families as families_module
from lit_rl.reward_models.families import families, represent_family
from tests.core.conftest import random_model
from tests.reward_models.worlds import reward_model

PAPER, OTHER = tuple(range(7, 19)), (9, 8, 7, 6, 5, 9, 8, 7, 6, 5)
ROWS = [(*PAPER, 20, 19), (*OTHER, 20), (*PAPER, 5), (*PAPER, 20, 6, 4), (*OTHER, 3, 4), (5, 6, 7)]


class Counting:
    """Counts the tokens that go through a model, padding left out."""

    def __init__(self, model: Any):
        self.tokens = 0
        model.base_model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: Any, arguments: Any, options: dict[str, Any]) -> None:
        self.tokens += options["input_ids"].numel()


@pytest.mark.parametrize("pool_tokens", [1, 2, 5, None])
@pytest.mark.parametrize("token_budget", [1, 40, 4096])
def test_the_same_representations_in_any_batches(pool_tokens: int | None, token_budget: int) -> None:
    """Windows of one, of the question, and back into the paper."""
    model = reward_model(pool_tokens=pool_tokens)
    rows = [*ROWS, ROWS[0]]
    wanted = torch.cat([model.represent([row]) for row in rows])
    found = model.represent_all(rows, token_budget=token_budget)
    torch.testing.assert_close(found, wanted.detach(), atol=2e-6, rtol=1e-5)
    assert not found.requires_grad


@pytest.mark.parametrize("architecture", ["qwen2", "gpt2", "gpt_neox", "gemma2", "gemma3", "mistral"])
def test_of_other_architectures(architecture: str) -> None:
    model = random_model(architecture)
    rows = [row for row in ROWS if row[:12] == PAPER]
    for pool_tokens in (1, 4, None):
        found = represent_family(model, rows, pool_tokens=pool_tokens, token_budget=4096)
        for row, vector in zip(rows, found, strict=True):
            states = model.base_model(input_ids=torch.tensor([row]), use_cache=False)[0][0]
            wanted = states[-(pool_tokens or len(row)) :].float().mean(0)
            torch.testing.assert_close(vector, wanted.detach(), atol=1e-5, rtol=1e-4)


def test_a_paper_is_run_once() -> None:
    model = reward_model()
    assert model.backbone.keeps_rows
    counting = Counting(model.backbone.model)
    model.represent_all(ROWS, token_budget=4096)
    # Paper and then three questions of at most 3 tokens; the other and two of at most 2; the last row alone.
    assert counting.tokens == (12 + 3 * 3) + (10 + 2 * 2) + 3
    counting.tokens = 0
    model.represent_all([ROWS[0]] * 5, token_budget=4096)
    assert counting.tokens == 14


def test_what_keeps_no_rows_is_run_whole_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_rl.reward_models.backbone.rows_work", lambda model: False)
    model = reward_model()
    wanted = torch.cat([model.represent([row]) for row in ROWS]).detach()
    with pytest.warns(UserWarning, match="a paper is read anew with each question"):
        found = model.represent_all(ROWS, token_budget=4096)
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=1e-5)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), max_size=9, unique=True))
def test_families_are_a_partition_that_shares_enough(rows: list[families_module.Row]) -> None:
    found = families(rows)
    assert sorted(place for family in found for place in family) == list(range(len(rows)))
    for family in found:
        own = [rows[place] for place in family]
        shared = common_prefix(min(own), max(own))
        assert len(own) == 1 or 2 * shared >= max(map(len, own))
