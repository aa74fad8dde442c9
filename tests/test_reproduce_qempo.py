"""scripts/reproduce/qempo.py: its worlds, what it makes of finished runs (here made up), and the pitfall it shows."""

import json
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lit_rl.environments.answer_sets import AutoregressiveToy, CategoricalToy
from lit_rl.episodes import Episode, Rollouts, Turn
from lit_rl.lightning_cli import load
from lit_rl.methods.qempo import QEMPO
from lit_rl.objectives.max_entropy import optimum
from lit_rl.objectives.shaping import Shaping
from lit_rl.policy import PolicyConfig
from lit_rl.reporting.frontier import read_frontier
from lit_rl.tiny import TinyModel
from scripts.reproduce import qempo, qempo_runs, qempo_tables
from scripts.reproduce.answer_worlds import AllPairs, Multiples
from scripts.reproduce.std_first import StdFirst

LEARNED = [0.4] + [0.6] * 5 + [0.8] * 5  # two thirds of the gap to 1
LITTLE = [0.4] + [0.6] * 5  # a third
OF_GRPO = f"GRPO_{qempo_runs.SWEEPS['GRPO'][0]}"
BUILT = ("warm_multiples", "categorical_QEMPO-KL", "two_tokens_regression", "categorical_std_first", OF_GRPO)


def write_run(folder: Path, rewards: Tensor, policy: Tensor, reference: Tensor, train: Sequence[float] = ()) -> None:
    """``policy`` and ``reference`` are log-probs."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {"answers": [], "rewards": rewards.tolist(), "policy": policy.tolist(), "reference": reference.tolist()}
    (folder / "policy.json").write_text(json.dumps(found))
    (folder / "finished.json").write_text(json.dumps({"fit_seconds": 10.0}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"train/reward": x}) + "\n" for x in train))


def numbers_of(toy: CategoricalToy | AutoregressiveToy | Multiples) -> tuple[Tensor, Tensor]:
    return torch.tensor(toy.rewards, dtype=torch.float64), torch.tensor(toy.reference, dtype=torch.float64).log()


# -- worlds ------------------------------------------------------------------------------------------------------------


def test_multiples() -> None:
    world = Multiples()
    assert len(world.answers) == 256 and sum(world.rewards) == 50
    assert world.quality(world[0], "3 12") == 1.0 and world.quality(world[0], "3 13") == 0.0
    assert world.verify(world[0], "16 16").correct and not world.verify(world[0], "16 8").correct
    rewards, reference = numbers_of(world)
    probabilities = reference.exp().view(16, 16)
    assert probabilities.sum(1).argmax() == 5 - 1
    first = probabilities.sum(1)
    right = (probabilities * rewards.view(16, 16)).sum(1) / first
    assert right[0] == pytest.approx(1.0) and right[1:].tolist() == pytest.approx([0.4] * 15)  # all numbers are of 1
    start = float((reference.exp() * rewards).sum())
    assert 0.4 < start < 0.5 and qempo_tables.entropy(reference) < math.log(256) - 0.9


def test_all_pairs_are_there_once_and_the_better_one_is_chosen() -> None:
    toy = CategoricalToy()
    pairs = [AllPairs(toy)[i] for i in range(len(AllPairs(toy)))]
    assert {frozenset((pair.chosen, pair.rejected)) for pair in pairs} == {
        frozenset(found) for found in combinations(toy.answers, 2)
    }
    assert len(pairs) == 15
    for pair in pairs:
        assert pair.scores == (toy.quality(toy[0], pair.chosen), toy.quality(toy[0], pair.rejected))
        assert pair.scores[0] >= pair.scores[1] and pair.prompt[0].content == "pick"


# -- toys --------------------------------------------------------------------------------------------------------------


def write_toys(folder: Path, far: str | None = None) -> None:
    """Every arm at its optimum; ``far`` at the reference."""
    for world, toy in (("categorical", CategoricalToy()), ("two_tokens", AutoregressiveToy())):
        rewards, reference = numbers_of(toy)
        for arm, (a, b) in qempo_runs.toy_arms(world).items():
            best = reference if arm == far else optimum(rewards, reference, entropy=a, reference=b)
            write_run(folder / f"{world}_{arm}", rewards, best, reference)


def test_tables_of_the_toys(tmp_path: Path) -> None:
    """At the optimum, the rows are qempo.md 10.1 and 10.3."""
    folders = [tmp_path / "seed-0", tmp_path / "seed-1"]
    for folder in folders:
        write_toys(folder)
    tables, text = qempo.report(folders, "toys")
    golden = {
        ("categorical", "QEMPO"): (0.896234, 1.214877),
        ("categorical", "QEMPO-KL"): (0.896234, 1.192417),
        ("categorical", "regression"): (0.896234, 1.192417),
        ("categorical", "RLHF"): (0.896234, 0.968805),
        ("two_tokens", "QEMPO"): (0.907306, 1.126831),
        ("two_tokens", "QEMPO-KL"): (0.932683, 1.001632),
        ("two_tokens", "RLHF"): (0.969511, 0.649377),
    }
    for (world, arm), (quality, entropy) in golden.items():
        row = dict(zip(qempo_tables.TOY_COLUMNS, tables[world][arm], strict=True))
        for expected, name in ((quality, "E[r]"), (entropy, "entropy")):
            assert row[name] == pytest.approx([expected] * 2, abs=1e-5)
            assert row[f"{name} of the optimum"] == pytest.approx([expected] * 2, abs=1e-5)
        assert row["total variation"] == pytest.approx([0.0] * 2, abs=1e-9)
        assert row["no answer"] == pytest.approx([0.0] * 2, abs=1e-9)
    assert "std_first" in tables["categorical"] and "std_first" not in tables["two_tokens"]
    assert "QEMPO 100%" in text and "this counts" in text and "| QEMPO-KL | 0.000 ± 0.000 | 0.896 ± 0.000 |" in text


@pytest.mark.parametrize(("far", "said"), [("SPL", "this does not count"), ("pairwise", "this counts")])
def test_a_toy_that_did_not_learn_does_not_count(tmp_path: Path, far: str, said: str) -> None:
    """But hard labels have no optimum to reach."""
    write_toys(tmp_path, far)
    assert said in qempo_tables.toy_learnability([tmp_path])


def test_text_that_is_no_answer_is_in_the_total_variation(tmp_path: Path) -> None:
    rewards, reference = numbers_of(CategoricalToy())
    best = optimum(rewards, reference, entropy=0.5, reference=0.5)
    write_run(tmp_path, rewards, best + math.log(0.75), reference)
    row = dict(
        zip(qempo_tables.TOY_COLUMNS, qempo_tables.toy_row(qempo_tables.Found.read(tmp_path), 0.5, 0.5), strict=True)
    )
    assert row["no answer"] == pytest.approx(0.25) and row["total variation"] == pytest.approx(0.25)


def test_share_of_the_objective() -> None:
    """By ``J(pi) = a log Z - a KL(pi, optimum)`` (section 11, property 2): a mixture lies between."""
    rewards, reference = numbers_of(CategoricalToy())
    best = optimum(rewards, reference, entropy=0.4, reference=0.2)
    half = (0.5 * best.exp() + 0.5 * reference.exp()).log()
    kl = float((half.exp() * (half - best)).sum()), float((reference.exp() * (reference - best)).sum())
    found = qempo_tables.Found(rewards, half, reference)
    assert qempo_tables.share_of_objective(found, 0.4, 0.2) == pytest.approx(1 - kl[0] / kl[1])
    assert qempo_tables.objective(best, found, 0.4, 0.2) == pytest.approx(1.084524, abs=1e-6)  # qempo.md 10.1, SPL


# -- frontier ----------------------------------------------------------------------------------------------------------


def write_frontier(folder: Path, train: Sequence[float] = LEARNED) -> None:
    """Every method at its optimum; GRPO at RLHF's with half its coefficient."""
    rewards, reference = numbers_of(Multiples())
    for method, strengths in qempo_runs.SWEEPS.items():
        for strength in strengths:
            a = strength if method != "GRPO" else 0.5 * strength
            best = optimum(rewards, reference, entropy=a, reference=qempo_runs.RATIOS.get(method, 1.0) * a)
            write_run(folder / f"{method}_{strength}", rewards, best, reference, train)
    uniform = (rewards / rewards.sum()).clamp(min=1e-300).log()
    write_run(folder / qempo_runs.STD_FIRST, rewards, uniform, reference, train)


def test_tables_of_the_frontier(tmp_path: Path) -> None:
    folders = [tmp_path / "seed-0", tmp_path / "seed-1"]
    for folder in folders:
        write_frontier(folder)
    tables, text = qempo.report(folders, "frontier")
    sweeps = tables["sweeps"]
    a = qempo_runs.SWEEPS["QEMPO"][1]
    odds = 50 / 206 * math.exp(1 / a)  # right to wrong, where all of either are alike
    row = dict(zip(qempo_tables.FRONTIER_COLUMNS, sweeps[f"QEMPO, {a}"], strict=True))
    assert row["quality"] == pytest.approx([odds / (1 + odds)] * 2)
    assert row["distinct_correct"] == pytest.approx([50 * (1 - (1 - row["quality"][0] / 50) ** 64)] * 2)
    pitfall = next(entry for name, entry in sweeps.items() if "standardised" in name)
    assert pitfall[0] == pytest.approx([1.0] * 2) and pitfall[1] == pytest.approx([math.log(50)] * 2)
    equal = tables["entropy at equal quality"]
    for place in range(len(qempo_tables.LEVELS)):
        assert equal["QEMPO"][place][0] > equal["QEMPO-KL"][place][0] > equal["RLHF"][place][0]  # section 3.4
    minus = tables["entropy of QEMPO minus that of others"]["RLHF"][1]
    assert minus == pytest.approx([equal["QEMPO"][1][0] - equal["RLHF"][1][0]] * 2)
    assert "this counts" in text and f"| at {qempo_tables.LEVELS[0]} |" in text


def test_a_level_that_a_sweep_does_not_reach_is_empty() -> None:
    column = [[0.3], [1.0], [1.0], [0.0]]
    table = {f"{method}, {x}": column for method, strengths in qempo_runs.SWEEPS.items() for x in strengths}
    assert qempo_tables.equal_quality_table(table)["RLHF"] == [[]] * len(qempo_tables.LEVELS)
    assert qempo_tables.gains(qempo_tables.equal_quality_table(table))["RLHF"] == [[]] * len(qempo_tables.LEVELS)


def test_a_frontier_that_did_not_learn_does_not_count(tmp_path: Path) -> None:
    write_frontier(tmp_path, LITTLE)
    assert "this does not count" in qempo_tables.frontier_learnability([tmp_path])


def test_the_report_reads_the_frontier(tmp_path: Path) -> None:
    write_frontier(tmp_path / "seed-0")
    folders = [tmp_path / "seed-0"]
    path = tmp_path / "frontier.json"
    path.write_text(json.dumps(qempo_tables.frontier_file(folders, qempo_tables.frontier_tables(folders))))
    found = read_frontier(path)
    assert [sweep.name for sweep in found.sweeps] == list(qempo_runs.SWEEPS)
    qempo_sweep = found.sweeps[0]
    assert len(qempo_sweep.points) == 3 and len(qempo_sweep.bound) > 20
    for point in qempo_sweep.points:  # these lie on the exact curve
        quality, entropy = point.figures["quality"].mean, point.figures["entropy"].mean
        nearest = min(qempo_sweep.bound, key=lambda other: abs(other[0] - quality))
        assert entropy == pytest.approx(nearest[1], abs=0.05)
    assert found.start is not None and 0.4 < found.start["quality"].mean < 0.5
    assert [level for level, _ in found.at_quality] == list(qempo_tables.LEVELS)


# -- the pitfall -------------------------------------------------------------------------------------------------------


def test_rewards_standardised_first_make_the_coefficient_depend_on_their_spread() -> None:
    """qempo.md section 12: rewards ten times as large ask for as much entropy."""

    def batch(scale: float) -> Rollouts:
        turns = [
            Turn(party="student", exchange=0, text="", prompt_ids=[1], completion_ids=[2], log_probs=[-float(k)])
            for k in range(1, 4)
        ]
        episodes = [Episode(index=k, task_id="0", group=0, seed=0, turns=[turn]) for k, turn in enumerate(turns)]
        rollouts = Rollouts.from_episodes(episodes, trained=["student"], parties=["student"])
        rollouts.rewards = scale * torch.tensor([[1.0], [0.0], [0.5]])
        return rollouts

    policy = PolicyConfig(tiny=TinyModel(words=["a"]))
    first, proper = (kind(policy, entropy=0.5, norm_length=1) for kind in (StdFirst, QEMPO))
    torch.testing.assert_close(first.advantages(batch(1.0)), first.advantages(batch(10.0)))
    assert not torch.allclose(proper.advantages(batch(1.0)), proper.advantages(batch(10.0)))
    rollouts = batch(1.0)
    first.advantages(rollouts)
    assert rollouts.rewards.flatten().tolist() == [1.0, 0.0, 0.5]  # the batch is as it was


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """What both parts of a seed would run: folder's name -> config and options."""
    runs: dict[str, tuple[Path, tuple[str, ...]]] = {}

    def record(folder: Path, config: Path, *options: str, validate: bool = True) -> None:
        assert folder.name not in runs or folder.name.startswith("warm_")
        runs[folder.name] = config, options

    monkeypatch.setattr(qempo_runs, "run", record)
    qempo_runs.run_seed(tmp_path, 3, ["toys", "frontier"])
    return runs


def test_every_run_of_the_tables_is_started(started: dict[str, tuple[Path, tuple[str, ...]]], tmp_path: Path) -> None:
    write_toys(tmp_path)
    write_frontier(tmp_path)
    needed = {path.name for path in tmp_path.iterdir()}
    assert set(started) == needed | {f"warm_{world}" for world in qempo_runs.WORLDS}


@pytest.mark.parametrize("name", BUILT)
def test_its_options_build(started: dict[str, tuple[Path, tuple[str, ...]]], name: str) -> None:
    config, options = started[name]
    built = load(config, *options)
    assert built.config["seed_everything"] == 3
    if name == "categorical_QEMPO-KL":
        assert built.model.shaping == Shaping(0.278378, 0.067187)
        assert vars(built.datamodule.tasks) == vars(CategoricalToy(invalid=-3.0))
        assert built.datamodule.student.max_tokens == 1
    elif name == "two_tokens_regression":
        assert built.model.loss == "regression" and built.model.shaping == Shaping(0.3, 0.1)
        assert built.datamodule.batch_size == 6  # all pairs of four answers
        assert [built.datamodule.preferences[i] for i in range(6)] == [
            AllPairs(AutoregressiveToy())[i] for i in range(6)
        ]
    elif name == "categorical_std_first":
        assert isinstance(built.model, StdFirst) and built.model.shaping.reference == 0
    elif name == OF_GRPO:
        assert built.model.entropy_coef == 0.66 and vars(built.datamodule.tasks) == vars(Multiples())
    else:
        assert built.model.policy_config.tiny.numbers == 17
