"""The comparison with TRL: what both sides are given, what is made of their reports, and a small run of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from scripts.bench.case import WORDS, Case, build_model, prompt, score
from scripts.bench.compare_trl import CASES, Side, main, spread, summarize, table


def test_cases_survive_the_command_line_and_refuse_what_cannot_be_split() -> None:
    for case in CASES.values():
        assert Case.from_json(case.to_json()) == case
    assert CASES["single"].rows == 128
    with pytest.raises(ValueError, match="6 dialogues cannot be split into 4 equal micro-batches"):
        replace(CASES["dialogue"], tasks=3, group_size=2)
    with pytest.raises(ValueError, match="group_size is 1"):
        replace(CASES["single"], group_size=1)


def test_prompts_and_rewards() -> None:
    assert prompt(3) == prompt(3) != prompt(4)
    assert all(6 <= len(prompt(n).split()) <= 20 and set(prompt(n).split()) <= set(WORDS) for n in range(50))
    assert score("2 say 3 44") == 0.5 and score("") == 0.0


@pytest.mark.parametrize("probability", [0.0, 1 / 32])
def test_turns_end_as_likely_as_told(probability: float, tmp_path: Path) -> None:
    """After every token, of a prompt or sampled, with and without special ones before it."""
    build_model(Case(name="test", stop_probability=probability), tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.tensor([[*tokenizer.all_special_ids, *torch.randint(6, 128, (50,)).tolist()]])
    with torch.no_grad():
        probabilities = model(input_ids=ids).logits[0].softmax(-1)
    end = probabilities[:, tokenizer.eos_token_id]
    torch.testing.assert_close(end, torch.full_like(end, probability), atol=1e-3, rtol=0.3)
    others = [token for token in tokenizer.all_special_ids if token != tokenizer.eos_token_id]
    assert probabilities[:, others].max() < 1e-8
    words = probabilities[:, 6:]
    assert words.min() > 0.2 / 128 and words.max() < 5 / 128


def reports(seconds: list[float], tokens: int) -> list[dict[str, float]]:
    parts = [{"sampling": s / 2, "learning": s / 4, "rest": s / 4, "iteration": s, "cpu": s} for s in seconds]
    return [{**part, "sampled_tokens": tokens} for part in parts]


def test_ratios_are_between_neighbours() -> None:
    """The machine is three times slower in the second iteration; the ratio is 2 in both, and 4 for each token."""
    summary = summarize({"lit_rl": reports([1.0, 3.0], 100), "trl": reports([2.0, 6.0], 50)})
    assert summary["trl / lit_rl"]["iteration"] == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert summary["trl / lit_rl"]["iteration_per_token"]["median"] == 4.0
    assert summary["lit_rl"]["iteration"] == {"median": 2.0, "low": 1.5, "high": 2.5}
    assert spread([7.0]) == {"median": 7.0, "low": 7.0, "high": 7.0}
    shown = table({"case": json.loads(Case(name="test").to_json()), "summary": summary}).splitlines()
    assert shown[-1].startswith("| trl / lit_rl | 2 (2-2) |") and shown[-1].endswith("| 4 (4-4) |")
    assert len({line.count("|") for line in shown[2:]}) == 1


def test_the_log_of_a_side_that_ends_is_shown(tmp_path: Path) -> None:
    side = Side("no_such", Case(name="test"), tmp_path / "model", 1)
    with pytest.raises(
        RuntimeError, match=r"The side of no_such ended:[\s\S]*No module named scripts.bench.no_such_side"
    ):
        side.iterate()
    side.close()


@pytest.mark.peer
def test_both_sides_sample_and_learn_alike(tmp_path: Path) -> None:
    """Few and short turns; says nothing about speed."""
    out = tmp_path / "trl.json"
    sizes = ["--tasks", "2", "--group-size", "4", "--max-tokens", "5", "--iterations", "2", "--warm-up", "1"]
    main(["--cases", "single", "dialogue", *sizes, "--out", str(out)])
    cases = json.loads(out.read_text())["cases"]
    for name, turns in (("single", 1), ("dialogue", 4)):
        found = cases[name]["iterations"]
        assert len(found["trl"]) == len(found["lit_rl"]) == 2
        for theirs, ours in zip(found["trl"], found["lit_rl"], strict=True):
            assert theirs["sampled_tokens"] == ours["sampled_tokens"] == 8 * turns * 5
            # Only the end of a turn that was cut off, which TRL leaves out.
            assert ours["row_tokens"] - theirs["row_tokens"] == 8 * (turns - 1)
            for report in (theirs, ours):
                assert 0 < report["reward"] < 1
                assert report["iteration"] >= report["sampling"] + report["learning"] > 0
