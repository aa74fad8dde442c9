"""The tiny models: real transformers models, the same everywhere, built once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lit_rl.policy import Policy, PolicyConfig
from lit_rl.tiny import TinyModel, cache_folder, materialize

SMALL = TinyModel(words=["yes", "no"], numbers=3, hidden_size=16, layers=1, heads=2)


def test_vocabulary_in_order() -> None:
    special = ["<pad>", "<unknown>", "<system>", "<user>", "<assistant>", "<end>"]
    assert SMALL.vocabulary() == [*special, "yes", "no", "0", "1", "2"]
    assert TinyModel(words=["1", "a", "a"], numbers=2).vocabulary()[6:] == ["1", "a", "0"]


def test_the_same_numbers_give_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_file(materialize(SMALL) / "model.safetensors")
    monkeypatch.setenv("LIT_RL_CACHE", str(tmp_path))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    folder = materialize(SMALL)
    assert torch.equal(torch.get_rng_state(), state), "building a model must not draw from the global stream"
    assert folder.is_relative_to(tmp_path)
    again = load_file(folder / "model.safetensors")
    assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)
    other = load_file(materialize(TinyModel(**{**vars_of(SMALL), "seed": 1})) / "model.safetensors")
    assert any(not torch.equal(first[name], other[name]) for name in first)


def vars_of(tiny: TinyModel) -> dict[str, Any]:
    return {name: getattr(tiny, name) for name in ("words", "numbers", "hidden_size", "layers", "heads")}


def test_initializer_range_is_the_spread_of_the_weights() -> None:
    for spread in (0.02, 0.3):
        tiny = TinyModel(numbers=99, hidden_size=16, layers=1, heads=2, initializer_range=spread)
        weights = load_file(materialize(tiny) / "model.safetensors")
        assert weights["model.embed_tokens.weight"][1:].std().item() == pytest.approx(spread, rel=0.05)


def test_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_RL_CACHE", str(tmp_path))
    folder = materialize(SMALL)
    (folder / "mark").touch()
    assert materialize(SMALL) == folder and (folder / "mark").exists()
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == [folder.name], "no scratch folder stays behind"


def test_other_tools_load_it() -> None:
    model = AutoModelForCausalLM.from_pretrained(materialize(SMALL))
    assert model.config.model_type == "qwen2" and model.config.vocab_size == 11
    policy = Policy(PolicyConfig(tiny=SMALL))
    rendered = policy.tokenizer.apply_chat_template([{"role": "user", "content": "yes 2"}], add_generation_prompt=True)
    assert policy.tokenizer.convert_ids_to_tokens(rendered["input_ids"]) == [
        "<user>",
        "yes",
        "2",
        "<end>",
        "<assistant>",
    ]
    assert AutoTokenizer.from_pretrained(materialize(SMALL)).eos_token == "<end>"


def test_the_chat_format_agrees_with_its_template() -> None:
    policy = Policy(PolicyConfig(tiny=SMALL, rows="dialogue"))
    assert policy.rows_per == "dialogue"
    assert policy.chat.stop_ids == {policy.tokenizer.convert_tokens_to_ids("<end>")}
    assert policy.max_length == 256


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIT_RL_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "lit-rl"


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tiny.hidden_size 20 must be a multiple of 2 x heads \(4\)"):
        TinyModel(words=["a"], hidden_size=20)
    with pytest.raises(ValueError, match="the model would have no vocabulary"):
        TinyModel()


def test_words_that_would_be_split_or_lost_are_kept_whole() -> None:
    policy = Policy(PolicyConfig(tiny=TinyModel(words=["<think>", "</think>", "\n", "so", "."], numbers=2)))
    ids = policy.tokenizer("<think> \n so 1 .\n so </think> 0 <end>", add_special_tokens=False)["input_ids"]
    expected = ["<think>", "\n", "so", "1", ".", "\n", "so", "</think>", "0", "<end>"]
    assert policy.tokenizer.convert_ids_to_tokens(ids) == expected
    assert policy.chat.text("student", ids) == "<think> \n so 1 . \n so </think> 0", "not special: decoding keeps them"
