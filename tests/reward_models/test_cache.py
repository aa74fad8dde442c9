from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lit_rl.reward_models import RepresentationCache
from lit_rl.reward_models.cache import Row
from tests.reward_models.worlds import record, reward_model

ROWS: list[Row] = [(1, 2, 3), (4,), (5, 6), (1, 2, 3), (7, 8, 9)]


class Backbone:
    """Represents a row by its sum and by how many rows ran beside it."""

    def __init__(self) -> None:
        self.ran: list[list[Row]] = []

    def __call__(self, rows: Sequence[Row]) -> Tensor:
        self.ran.append(list(rows))
        return torch.tensor([[float(sum(row)), float(len(rows))] for row in rows])


def test_computed_once_and_in_order(tmp_path: Path) -> None:
    backbone, cache = Backbone(), RepresentationCache("weights", 50, tmp_path)
    found = cache.fetch(ROWS, backbone, token_budget=6)
    assert found[:, 0].tolist() == [6.0, 4.0, 11.0, 6.0, 24.0] and found.dtype == torch.float32
    assert backbone.ran == [[(4,), (5, 6)], [(1, 2, 3), (7, 8, 9)]] and cache.computed == 4
    again, other = Backbone(), RepresentationCache("weights", 50, tmp_path)
    assert torch.equal(other.fetch(ROWS, again, token_budget=6), found) and not again.ran


def test_what_was_cut_off_is_computed_as_it_would_have_been(tmp_path: Path) -> None:
    whole = RepresentationCache("weights", 50, tmp_path / "whole").fetch(ROWS, Backbone(), token_budget=6)
    cache = RepresentationCache("weights", 50, tmp_path / "cut")
    cache.fetch(ROWS, Backbone(), token_budget=6)
    cache.path((7, 8, 9)).unlink()
    backbone = Backbone()
    assert torch.equal(cache.fetch(ROWS, backbone, token_budget=6), whole)
    assert backbone.ran == [[(1, 2, 3), (7, 8, 9)]]  # with the same neighbour, which is not written again


def test_the_key_has_all_a_representation_depends_on(tmp_path: Path) -> None:
    row = (1, 2)
    paths = {
        RepresentationCache(backbone, tokens, tmp_path).path(asked)
        for backbone, tokens, asked in (
            ("x", 50, row),
            ("y", 50, row),
            ("x", 1, row),
            ("x", None, row),
            ("x", 50, (1,)),
        )
    }
    assert len(paths) == 5
    assert RepresentationCache("x", 50, tmp_path).path(row) in paths


def test_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_RL_CACHE", str(tmp_path))
    assert RepresentationCache("x", 50).folder == tmp_path / "representations"


def test_cached_and_live_representations_give_equal_logits(tmp_path: Path) -> None:
    model = reward_model().eval()
    rows = [model.prompts.ids(r.paper_text, r.question) for r in map(record, range(12))]
    cache = RepresentationCache(model.backbone.identity, model.config.pool_tokens, tmp_path)
    cached = cache.fetch(rows, model.represent, token_budget=64)
    live = torch.cat([model.represent([row]) for row in rows])
    torch.testing.assert_close(cached, live, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model.logits(cached), model.logits(live), atol=1e-5, rtol=1e-5)
    assert torch.equal(cache.fetch(rows, model.represent, token_budget=64), cached)
