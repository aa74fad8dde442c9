import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_rl.objectives.pooling import pool_last_k
from lit_rl.papers.records import AXES
from lit_rl.protocols import RewardModel
from lit_rl.reward_models import (
    BackboneConfig,
    LinearHead,
    MLPHead,
    MultiObjectiveRewardModel,
    QuestionPrompts,
    SavedRewardModel,
    Scoring,
    load_reward_model,
    question_in,
    save_reward_model,
)
from lit_rl.reward_models.backbone import Backbone, length_batches
from lit_rl.tiny import materialize
from lit_rl.verification.traces import ThinkTags
from tests.reward_models.worlds import TINY, config, record, reward_model

RECORDS = [record(number) for number in range(8)]


def rows_of(model: MultiObjectiveRewardModel) -> list[tuple[int, ...]]:
    return [model.prompts.ids(r.paper_text, r.question) for r in RECORDS]


@torch.no_grad()
def logits_of(model: MultiObjectiveRewardModel) -> Tensor:
    return model.logits(model.represent(rows_of(model)))


def labels() -> Tensor:
    return torch.tensor([r.labels for r in RECORDS])


def test_representations_are_pooled_last_states_whatever_the_padding() -> None:
    model = reward_model()
    rows = [(7, 8, 9, 10), (7, 8, 9, 10, 11, 12)]
    states = model.backbone.model(torch.tensor([rows[1]]), output_hidden_states=True).hidden_states[-1]
    wanted = pool_last_k(states, torch.ones(1, 6, dtype=torch.bool), k=12)
    torch.testing.assert_close(model.represent(rows)[1:], wanted, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model.represent(rows)[:1], model.represent(rows[:1]), atol=1e-6, rtol=1e-5)
    last = reward_model(pool_tokens=1)
    torch.testing.assert_close(last.represent(rows)[1], states[0, -1], atol=1e-6, rtol=1e-5)


def test_heads_share_nothing() -> None:
    model = reward_model()
    logits = model.logits(model.represent(rows_of(model)))
    assert logits.shape == (8, 3, 2)
    only = labels()
    only[:, [0, 2]] = -100
    model.loss(logits, only).backward()
    for axis, head in model.heads.items():
        moved = [parameter.grad is not None and bool(parameter.grad.any()) for parameter in head.parameters()]
        assert any(moved) is (axis == "evidence"), axis
    first = [next(head.parameters()) for head in model.heads.values()]
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])


def test_heads_begin_with_weights_of_their_own() -> None:
    """No two heads of two seeds alike, and those of one seed always the same."""
    models = [reward_model(seed=seed) for seed in (0, 1, 2, 0)]
    first = [next(head.parameters()).detach() for model in models for head in model.heads.values()]
    assert all(torch.equal(a, b) for a, b in zip(first[:3], first[9:], strict=True))
    assert len({tuple(x.flatten().tolist()) for x in first[:9]}) == 9


def test_identity_tells_how_weights_were_loaded() -> None:
    """States of other weights, of another type or in 4 bits must never be taken from the cache."""
    configs: list[dict[str, Any]] = [{}, {"dtype": "bfloat16"}, {"quantization": "nf4"}]
    identities = [Backbone(BackboneConfig(tiny=TINY, **options)).identity for options in configs]
    identities.append(Backbone(BackboneConfig(tiny=replace(TINY, seed=1))).identity)
    assert len(set(identities)) == 4
    assert Backbone(BackboneConfig(tiny=TINY)).identity == identities[0]


def test_a_frozen_backbone_is_no_part_of_the_module() -> None:
    model = reward_model()
    assert not any(parameter.requires_grad for parameter in model.backbone.model.parameters())
    assert all(name.startswith("heads.") for name in model.state_dict())
    model.loss(model.logits(model.represent(rows_of(model))), labels()).backward()
    assert not any(
        parameter.requires_grad or parameter.grad is not None for parameter in model.backbone.model.parameters()
    )


def test_a_trained_backbone_has_gradients_and_no_dropout() -> None:
    model = reward_model(train_backbone=True).train()
    assert model.trained_backbone is not None and not model.trained_backbone.training and model.heads.training
    model.loss(model.logits(model.represent(rows_of(model))), labels()).backward()
    gradients = [p.grad for name, p in model.backbone.model.named_parameters() if "layers.0" in name]
    assert gradients and all(grad is not None and bool(grad.any()) for grad in gradients)


def test_score_is_that_of_the_logits_whatever_the_batches() -> None:
    model = reward_model().train()
    rows = rows_of(model)
    one_by_one = model.score(rows, Scoring(mode="soft_sum"), token_budget=1)
    for found, wanted in zip(model.score(rows, Scoring(mode="soft_sum"), token_budget=999), one_by_one, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    hard, axes = model.score(rows, Scoring(), token_budget=999)
    assert torch.equal(hard, axes.sum(1)) and model.training
    assert [sorted(part) for part in length_batches([3, 3, 3, 5], 9)] == [[0, 1, 2], [3]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool_tokens": 0}, "model.pool_tokens is 0; it must be at least 1, or null"),
        (
            {"train_backbone": True, "backbone": BackboneConfig(tiny=TINY, quantization="nf4")},
            "model.train_backbone cannot train weights in 4 bits",
        ),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**options)


def test_bad_backbones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exactly one of backbone.path .* and backbone.tiny"):
        BackboneConfig(path="x", tiny=TINY)
    with pytest.raises(ValueError, match="backbone.max_length is 0"):
        BackboneConfig(tiny=TINY, max_length=0)
    with pytest.raises(ValueError, match="The backbone cannot be loaded: .* is neither a folder"):
        reward_model(backbone=BackboneConfig(path=str(tmp_path / "nothing")))


# -- saved and loaded --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"head": LinearHead(), "pool_tokens": 1}, {"head": MLPHead(dropout=0.2), "pool_tokens": None, "seed": 3}],
    ids=["transformer", "linear", "mlp"],
)
def test_saved_and_loaded_is_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    model = reward_model(**options).eval()
    save_reward_model(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "heads.safetensors"]
    loaded = load_reward_model(tmp_path)
    assert loaded.config == model.config and not loaded.training
    for name, x in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], x)
    # Not to the bit: products differ in the last one by where in memory the weights lie.
    torch.testing.assert_close(logits_of(loaded), logits_of(model), atol=2e-6, rtol=1e-5)


def test_a_trained_backbone_is_saved_with_its_heads(tmp_path: Path) -> None:
    model = reward_model(train_backbone=True).eval()
    with torch.no_grad():
        next(model.backbone.model.parameters()).mul_(1.5)
    save_reward_model(model, tmp_path)
    loaded = load_reward_model(tmp_path)
    torch.testing.assert_close(logits_of(loaded), logits_of(model), atol=2e-6, rtol=1e-5)
    assert not torch.allclose(logits_of(loaded), logits_of(reward_model().eval()), atol=1e-3)
    assert not any(parameter.requires_grad for parameter in loaded.backbone.model.parameters())


def test_other_weights_below_saved_heads_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_reward_model(reward_model(), folder)
    facts = json.loads((folder / "config.json").read_text())
    facts["backbone"] |= {"tiny": facts["backbone"]["tiny"] | {"seed": 1}}
    (folder / "config.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="were trained on another backbone"):
        load_reward_model(folder)
    facts["head"] |= {"class": "DeepHead"}
    (folder / "config.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="has a head 'DeepHead'; known are .*Import what defines it"):
        load_reward_model(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="is not that of a reward model with the axes"):
        load_reward_model(folder)
    with pytest.raises(ValueError, match="There is no reward model in .*nowhere"):
        SavedRewardModel(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("said", "question"),
    [
        ("why a ?", "why a ?"),
        ("<think> a </think> why a ?", "why a ?"),
        ("a </think>\n “why a ?” \n", "why a ?"),  # opened by the prompt
        ("<think> a </think> b </think> why ?", "why ?"),
        ("<think> why a ?", ""),
        ("<think> a </think> <think> why ?", ""),
        ("<think> a </think> ' \" ", ""),
        ("", ""),
    ],
)
def test_question_in(said: str, question: str) -> None:
    assert question_in(said) == question


def test_a_saved_model_is_a_reward(tmp_path: Path) -> None:
    model = reward_model().eval()
    save_reward_model(model, tmp_path)
    reward = SavedRewardModel(str(tmp_path), mode="soft_mean", weights=[0.5, 0.25, 0.25], token_budget=40)
    assert isinstance(reward, RewardModel)
    state = torch.get_rng_state()
    prompts = [r.paper_text for r in RECORDS]
    completions = [f"<think> a </think> {r.question}" for r in RECORDS]
    completions[2], completions[5] = "<think> a", "why " * 99
    found = reward.score(prompts, completions)
    assert torch.equal(state, torch.get_rng_state())
    assert list(found) == ["reward", *AXES] and all(x.dtype == torch.float32 for x in found.values())
    wanted, axes = model.score(rows_of(model), reward.scoring, token_budget=999)
    for place in range(8):
        empty = place in (2, 5)
        assert found["reward"][place].item() == pytest.approx(0.0 if empty else wanted[place].item(), abs=1e-5)
        told = [found[axis][place].item() for axis in AXES]
        assert told == pytest.approx([0.0] * 3 if empty else axes[place].tolist(), abs=1e-5)
    assert reward.score([], []).keys() == found.keys()
    assert not reward.score(["a"], [""])["reward"].any()


def test_a_saved_model_reads_questions_as_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the tags that were given, and in forwards of as many tokens as were given."""
    save_reward_model(reward_model(), tmp_path)
    reward = SavedRewardModel(str(tmp_path), mode="soft_sum", tags=ThinkTags("<a>", "</a>"), token_budget=77)
    budgets: list[int] = []
    whole = MultiObjectiveRewardModel.represent_all

    def spied(self: MultiObjectiveRewardModel, rows: Any, *, token_budget: int) -> Tensor:
        budgets.append(token_budget)
        return whole(self, rows, token_budget=token_budget)

    monkeypatch.setattr(MultiObjectiveRewardModel, "represent_all", spied)
    bare, thought = reward.score(["paper of a"] * 2, ["why a ?", "<a> what </a> why a ?"])["reward"]
    assert bare == thought and budgets == [77]


def test_the_paper_in_a_prompt(tmp_path: Path) -> None:
    save_reward_model(reward_model(), tmp_path)
    bare = SavedRewardModel(str(tmp_path), mode="soft_sum")
    behind = SavedRewardModel(str(tmp_path), mode="soft_sum", paper_after="Ask about this paper:\n")
    wanted = bare.score(["paper of a"], ["why a ?"])["reward"]
    assert torch.equal(behind.score(["Ask about this paper:\npaper of a"], ["why a ?"])["reward"], wanted)
    assert not torch.equal(bare.score(["Ask about this paper:\npaper of a"], ["why a ?"])["reward"], wanted)
    with pytest.raises(ValueError, match="quality.paper_after is .* which is not in the prompt 'paper of a'"):
        behind.score(["paper of a"], ["why a ?"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "sum"}, "scoring.mode is 'sum'"),
        ({"mode": "soft_mean", "weights": [1.0]}, "quality.weights has 1 numbers; give one for each of"),
        ({"token_budget": 0}, "quality.token_budget is 0"),
    ],
)
def test_bad_input_to_a_reward(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    save_reward_model(reward_model(head=LinearHead()), tmp_path)
    with pytest.raises(ValueError, match=message):
        SavedRewardModel(str(tmp_path), **options)


def test_a_backbone_by_path_is_the_same_as_built(tmp_path: Path) -> None:
    built, read = reward_model(), reward_model(backbone=BackboneConfig(path=str(materialize(TINY)), max_length=20))
    assert built.backbone.identity == read.backbone.identity
    assert (built.prompts.max_length, read.prompts.max_length) == (64, 20)  # the model's own limit, and ours
    assert isinstance(read.prompts, QuestionPrompts)
    half = BackboneConfig(tiny=TINY, dtype="bfloat16")
    assert reward_model(backbone=half).backbone.identity != built.backbone.identity
