"""scripts/reproduce/hiper.py: its worlds, the options of its runs, and what it makes of finished runs, here made up."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from lit_rl.environments.world_demonstrations import WorldDemonstrations
from lit_rl.environments.world_prompts import WorldPrompts
from lit_rl.lightning_cli import LitRLCLI, load
from lit_rl.tiny import TinyModel, materialize
from lit_rl.worlds import Household
from lit_rl.worlds.base import AdvisedWorld, WorldSource
from scripts.reproduce import hiper, hiper_runs
from scripts.reproduce.arms import verdict
from scripts.reproduce.hiper_worlds import FIGURES, Alternating, Distracted, Figures

LEARNED = [0.3] * 3 + [0.5] * 3 + [0.8] * 5  # five sevenths of the gap to 1
LITTLE = [0.3] * 3 + [0.8] * 3 + [0.5] * 5  # two sevenths


def households(length: str, size: int = 30, seed: int = 0) -> Household:
    return Household(**hiper_runs.household(length, seed, size)["init_args"])


def play(source: WorldSource, index: int) -> tuple[list[tuple[str, str]], bool, int]:
    """What the oracle says until the end of an episode, whether it succeeds, and its actions that do nothing."""
    world = source[index]
    assert isinstance(world, AdvisedWorld)
    seen, said, vain = world.reset(), [], 0
    while True:
        advice = world.advice()
        said.append((advice.subgoal, advice.action))
        vain += advice.action not in seen.admissible
        step = world.step(advice.action)
        seen = step.observation
        if step.terminated or step.truncated:
            return said, step.terminated, vain


# -- worlds --------------------------------------------------------------------------------------------------------


def test_worlds_of_several_sources_come_in_turn() -> None:
    short, long = households("short"), households("long")
    both = Alternating([short, long])
    assert isinstance(both, WorldSource) and len(both) == 60
    for index in range(6):
        source = (short, long)[index % 2]
        same, other = both[index], source[index // 2]
        same.reset(), other.reset()
        assert same.task == other.task
    assert " then " in both[59].task and " then " not in both[58].task
    with pytest.raises(IndexError):
        both[60]


@pytest.mark.parametrize("sizes", [(), (3, 4)])
def test_sources_that_cannot_come_in_turn(sizes: Sequence[int]) -> None:
    with pytest.raises(ValueError, match=rf"sources have \[{', '.join(map(str, sizes))}\] tasks"):
        Alternating([households("short", size) for size in sizes])


def test_without_whims_it_is_the_oracle() -> None:
    plain, calm = households("long"), Distracted(households("long"), chance=0.0)
    for index in range(30):
        assert play(calm, index) == play(plain, index)
    assert isinstance(calm, WorldSource) and len(calm) == 30


def test_whims_waste_turns_and_are_the_same_for_the_same_seed() -> None:
    played = {chance: [play(Distracted(households("long"), chance), i) for i in range(30)] for chance in (0.0, 0.3)}
    solved = {chance: sum(success for _, success, _ in found) for chance, found in played.items()}
    turns = {chance: sum(len(said) for said, _, _ in found) for chance, found in played.items()}
    vain = {chance: sum(count for _, _, count in found) for chance, found in played.items()}
    assert solved[0.0] == 30 and 5 <= solved[0.3] <= 25
    assert turns[0.3] > 1.2 * turns[0.0]
    assert vain[0.0] == 0 < vain[0.3] < turns[0.3] / 4
    assert [play(Distracted(households("long"), 0.3), i) for i in range(5)] == played[0.3][:5]
    assert [play(Distracted(households("long"), 0.3, seed=1), i) for i in range(5)] != played[0.3][:5]


def test_a_whim_begins_by_reaching_for_a_thing_and_lasts() -> None:
    source, lasted = Distracted(households("long"), chance=1.0), 0
    for index in range(30):
        (subgoal, action), (following, _) = play(source, index)[0][:2]
        assert subgoal == action and subgoal.startswith("take ")
        lasted += following.split()[1] == subgoal.split()[1]
    assert 14 <= lasted <= 28  # two in three go on for another turn, and some whims are about the thing of the task


@pytest.mark.parametrize("chance", [-0.1, 1.5])
def test_bad_chance(chance: float) -> None:
    with pytest.raises(ValueError, match=f"chance is {chance}"):
        Distracted(households("short", 3), chance)


def test_prompts_are_short_and_of_known_words() -> None:
    config = yaml.safe_load(hiper_runs.WARMUP.read_text())["model"]["init_args"]["policy"]["tiny"]
    words = TinyModel(**config).vocabulary()
    prompts, longest = WorldPrompts(style="short", history_length=0), 0
    for length in hiper_runs.LENGTHS:
        shown = WorldDemonstrations(Distracted(households(length), hiper_runs.WHIMS), prompts=prompts)
        texts = [[message.content.split() for message in shown[i].messages] for i in range(len(shown))]
        assert all(word in words for asked, _ in texts for word in asked)
        longest = max(longest, *(len(asked) for asked, _ in texts))
    assert 30 < longest <= 64


def test_figures_are_written_by_validations_alone(tmp_path: Path) -> None:
    metrics = {"val/world/success": torch.tensor(0.5)}
    for stage, there in (("fit", False), ("validate", True)):
        trainer: Any = SimpleNamespace(
            state=SimpleNamespace(fn=stage), callback_metrics=metrics, default_root_dir=str(tmp_path)
        )
        Figures().on_validation_end(trainer, SimpleNamespace())
        assert (tmp_path / FIGURES).exists() == there
    assert hiper.figure(tmp_path, "success") == 0.5


# -- runs ----------------------------------------------------------------------------------------------------------


def credit_of(built: LitRLCLI) -> Any:
    [credit] = [callback for callback in getattr(built.trainer, "callbacks", ()) if hasattr(callback, "annotate")]
    return credit


@pytest.mark.parametrize("arm", hiper_runs.ARMS)
def test_options_of_an_arm(arm: str, tmp_path: Path) -> None:
    tiny = TinyModel(words=["put"], hidden_size=16, layers=1, heads=2)
    start = ("--model.init_args.policy.path", str(materialize(tiny)))
    common = (*start, *hiper_runs.in_households("long", 7), "--trainer.default_root_dir", str(tmp_path))
    built = load(hiper_runs.ARMS[arm], *common, *hiper_runs.training(arm))
    data = built.datamodule
    assert len(data.held_out) == hiper_runs.HELD_OUT and data.conditions == ("world",)
    assert data.held_out[0][0].goals == 2 and built.config.seed_everything == 7
    assert data._options["prompts"].history_length == 0  # as in the warm-up
    assert data.batches_per_epoch == hiper_runs.BATCHES
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))]}]
    assert built.model.optimizer(groups).defaults["lr"] == hiper_runs.LEARNING_RATE
    credit = credit_of(built)
    penalties = credit.penalties
    assert getattr(credit, "whiten", True) == (arm not in ("hiper", "no_keep_penalty"))
    assert (penalties.keep < 0) == (arm == "hiper")
    if arm == "no_keep_penalty":  # all else is as in the config
        assert penalties == replace(credit_of(load(hiper_runs.ARMS[arm], *common)).penalties, keep=0.0)


def test_options_of_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiper_runs, "WARMUP_TASKS", 300)
    built = load(hiper_runs.WARMUP, *hiper_runs.warm_up(3))
    assert built.model.policy_config.tiny.seed == 3 and built.model.policy_config.tiny.initializer_range == 0.1
    assert built.datamodule.batches_per_epoch == hiper_runs.WARMUP_STEPS


def test_a_seed_runs_every_arm_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    checkpoints: dict[str, Path | None] = {}

    def measured_here(folder: Path, config: Path, checkpoint: Path | None, *options: str) -> None:
        done.append(folder.name)
        checkpoints[folder.name] = checkpoint

    monkeypatch.setattr(hiper_runs, "run", lambda folder, *_, **__: done.append(folder.name))
    monkeypatch.setattr(hiper_runs, "validate", measured_here)
    (tmp_path / "hiper_short").mkdir()
    (tmp_path / "hiper_short" / FIGURES).write_text("{}")  # was measured before
    hiper_runs.run_seed(tmp_path, 0)
    measured = [f"{row}_{length}" for row in ("start", *hiper_runs.ARMS) for length in hiper_runs.LENGTHS]
    assert sorted(done) == sorted({"warmup", *hiper_runs.ARMS, *measured} - {"hiper_short"})
    for name, checkpoint in checkpoints.items():
        arm = name.rpartition("_")[0]
        assert checkpoint == (None if arm == "start" else tmp_path / arm / "checkpoints/last.ckpt")


# -- tables --------------------------------------------------------------------------------------------------------


def made_up(root: Path) -> list[Path]:
    """Two seeds; success is 0.4 and 0.6 on long tasks, 0.2 more on short ones."""
    folders = [root / "seed-0", root / "seed-1"]
    for number, folder in enumerate(folders):
        for row in ("start", *hiper_runs.ARMS):
            for length in hiper_runs.LENGTHS:
                success = 0.4 + 0.2 * number + (0.2 if length == "short" else 0.0)
                found = {f"val/world/{name}": 0.5 for name in hiper.PLANS.values()}
                found["val/world/success"] = success
                (folder / f"{row}_{length}").mkdir(parents=True)
                (folder / f"{row}_{length}" / FIGURES).write_text(json.dumps(found))
        for arm in hiper_runs.ARMS:
            (folder / arm).mkdir()
            (folder / arm / "finished.json").write_text(json.dumps({"fit_seconds": 10.0}))
            lines = [json.dumps({"train/reward": reward}) + "\n" for reward in LEARNED]
            (folder / arm / "metrics.jsonl").write_text("".join(lines))
    return folders


def test_tables_of_the_runs(tmp_path: Path) -> None:
    tables, text = hiper.learning(made_up(tmp_path))
    success = tables["success on held-out tasks"]
    assert list(success) == ["start", *hiper_runs.ARMS]
    assert [pytest.approx(entry) for entry in success["flat_ppo"]] == [[0.4, 0.6], [0.6, 0.8]]
    assert tables["plans on long tasks"]["hiper"] == [[0.5, 0.5]] * len(hiper.PLANS)
    assert "| hiper | 0.500 ± 1.271 |" in text  # t(0.975, 1) = 12.706 times 0.1414 / sqrt(2)
    assert "hiper 71%, 71%; no_keep_penalty 71%" in text and "the tables count" in text


def test_one_seed_that_did_not_learn_is_enough(tmp_path: Path) -> None:
    folders = made_up(tmp_path)
    lines = [json.dumps({"train/reward": reward}) + "\n" for reward in LITTLE]
    (folders[1] / "flat_ppo" / "metrics.jsonl").write_text("".join(lines))
    assert "flat_ppo 71%, 29%" in (text := verdict(hiper.shares(folders), "hiper")) and "the tables count" in text
    (folders[1] / "hiper" / "metrics.jsonl").write_text("".join(lines))
    assert "hiper 71%, 29%" in (text := verdict(hiper.shares(folders), "hiper")) and "the tables do not count" in text


def test_variances_are_those_of_the_specification() -> None:
    """hiper.md 11."""
    tables, text = hiper.variance()
    assert tables["gamma = 1"]["flat GAE"] == pytest.approx([0.557214, 0.520014, 0.317662, 0.260852], abs=1e-5)
    assert tables["gamma = 0.9"]['HAE, "return"'] == pytest.approx([0.341881, 0.335182, 0.272463, 0.252828], abs=1e-5)
    assert "0.470471" in text and text.count("| lambdas 1, 0.95 |") == 2
