"""scripts/reproduce/gopo.py: what it makes of finished runs (here made up), what it starts, and the memory baseline."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lit_rl.environments.base import Message
from lit_rl.lightning_cli import load
from lit_rl.methods.gopo import GOPO
from lit_rl.methods.offline_gopo import OfflineGOPO
from lit_rl.objectives.joint_reward import AnnealedWeights, FixedWeights
from lit_rl.parties import Call
from lit_rl.policy import Policy, PolicyConfig
from lit_rl.service import LABELS, ServiceContext, SkillLabels, SkillMemory
from lit_rl.tiny import materialize
from scripts.reproduce import gopo_runs, gopo_tables
from scripts.reproduce.arms import verdict
from scripts.reproduce.gopo_memory import Rememberer, features, serve_and_remember
from scripts.reproduce.gopo_worlds import FILE, ServiceFile, write
from tests.datamodules.shop import PARTIES, shop_config

FIGURES = {"tse": 0.5, "tse_compliant": 0.4, "orders": 0.3, "dialogues_with_violation": 0.2, "esndcg": 0.9}
LEARNED = [0.6] * 3 + [0.8] * 5
LITTLE = [0.6] * 3 + [0.62] * 5


def write_runs(folder: Path, rewards: Sequence[float] = LEARNED) -> None:
    for title, (name, masks) in gopo_tables.rows().items():
        file = folder / name / FILE
        found = json.loads(file.read_text()) if file.exists() else {}
        choices = ("greedy",) if name == gopo_runs.MEMORY else ("greedy", "sampled")
        offset = 0.1 if title == "GOPO" else 0.0
        found[masks] = {choice: {key: value + offset for key, value in FIGURES.items()} for choice in choices}
        write(folder / name, found)
    for name in gopo_runs.ARMS:
        lines = [
            {"train/joint_reward": x, "train/weight_tse": 0.5, "train/weight_esndcg": 0.3, "train/weight_gre": 0.2}
            for x in rewards
        ]
        (folder / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / name / "finished.json").write_text(json.dumps({"fit_seconds": 1.0}))


def test_tables(tmp_path: Path) -> None:
    folders = [tmp_path / "seed-0", tmp_path / "seed-1"]
    for folder in folders:
        write_runs(folder)
    tables, text = gopo_tables.report(folders)
    assert tables["greedy"]["GOPO"] == [pytest.approx([x + 0.1] * 2) for x in FIGURES.values()]
    assert tables["greedy"]["no masks"] == [pytest.approx([x] * 2) for x in FIGURES.values()]
    assert "memory, no gradient" in tables["greedy"] and "memory, no gradient" not in tables["sampled"]
    assert "| best plans that break no rule | 0.834 | 0.834 | 1.000 | 0.000 | – |" in text
    assert "the tables count" in text


def test_the_best_plans_are_those_of_the_specification() -> None:
    """gopo.md 11: a mean of .834444, all ordered; without rules more, and every dialogue breaks one."""
    found = gopo_tables.best_plans()
    assert found["best plans that break no rule"][0] == pytest.approx([0.834444], abs=1e-6)
    aside = [column[0] for column in found["best plans, rules aside"][:4]]
    assert aside == pytest.approx([0.871667, 0.0, 1.0, 1.0], abs=1e-6)


@pytest.mark.parametrize(("rewards", "said"), [(LEARNED, "the tables count"), (LITTLE, "the tables do not count")])
def test_a_training_counts_that_covered_half_the_gap(tmp_path: Path, rewards: list[float], said: str) -> None:
    """The best reward is .5 x .834444 + .3 + .2 = .917222: from .6 to .8 is 63 % of the way, to .62 it is 6 %."""
    write_runs(tmp_path, rewards)
    assert gopo_tables.covered(tmp_path / "gopo") == pytest.approx((rewards[-1] - 0.6) / 0.317222, abs=1e-4)
    assert said in verdict(gopo_tables.shares([tmp_path]), gopo_runs.ARMS["gopo"].title)


# -- runs --------------------------------------------------------------------------------------------------------------

Started = dict[str, tuple[Path, tuple[str, ...]]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Started:
    """What a seed would run: folder's name -> config and options."""
    runs: Started = {}

    def record(folder: Path, config: Path, *options: str, validate: bool = True) -> None:
        assert folder.name not in runs and not validate
        runs[folder.name] = config, options

    def apart(name: str, work: Callable[[], Any], log: Path) -> float:
        runs[log.parent.name] = log, ()
        return 0.0

    monkeypatch.setattr(gopo_runs, "run", record)
    monkeypatch.setattr(gopo_runs, "apart", apart)
    gopo_runs.run_seed(tmp_path, 3)
    return runs


def test_every_run_of_the_tables_is_started(started: Started) -> None:
    assert set(started) == {name for name, _ in gopo_tables.rows().values()}


def built(started: Started, name: str) -> Any:
    """The run, on a model that has not warmed up."""
    config, options = started[name]
    given = list(options)
    if (path := "--model.init_args.policy.path") in given:
        tiny = shop_config().tiny
        assert tiny is not None
        given[given.index(path) + 1] = str(materialize(tiny))
    return load(config, *given)


@pytest.mark.parametrize("name", ["warmup_flat", "gopo", "flat", "penalty", "no_esndcg", "separate", "offline"])
def test_its_options_build(started: Started, name: str) -> None:
    found = built(started, name)
    model, data = found.model, found.datamodule
    assert found.config["seed_everything"] == 3
    if name == "warmup_flat":
        assert data.teller.form.mode == "flat" and model.policy_config.tiny.seed == 3
    elif name == "offline":
        assert isinstance(model, OfflineGOPO) and data.batch_size == gopo_runs.OFFLINE_PAIRS
    else:
        assert isinstance(model, GOPO) and (data.tasks_per_batch, data.group_size) == (8, 8)
        assert model.joint_coef == (0.0 if name == "separate" else 0.5)
        assert data.mode == ("flat" if name == "flat" else "two_level")
        assert (model.violation_coef, model.violations_per_turn) == ((0.1, False) if name == "penalty" else (0.0, True))
        assert isinstance(model.weights, FixedWeights if name == "no_esndcg" else AnnealedWeights)
        if name == "no_esndcg":
            assert model.weights.weights() == (0.8, 0.0, 0.2)


def test_what_a_policy_comes_to_is_written_by_masks(tmp_path: Path) -> None:
    policy = Policy(shop_config(*PARTIES))
    trainer: Any = SimpleNamespace(default_root_dir=str(tmp_path))
    ServiceFile(masks=["hard", "none"], count=4).on_fit_end(trainer, SimpleNamespace(policy=policy))
    found = json.loads((tmp_path / FILE).read_text())
    assert set(found) == {"hard", "none"} and all(set(each) == {"greedy", "sampled"} for each in found.values())
    assert found["hard"]["sampled"]["dialogues_with_violation"] == 0.0
    assert found["none"]["sampled"]["dialogues_with_violation"] > 0.0
    assert found["hard"]["greedy"]["dialogues"] == 4


# -- the memory --------------------------------------------------------------------------------------------------------


def call(*said: tuple[str, str]) -> Call:
    messages = tuple(Message(role, text) for role, text in said)
    context = ServiceContext(
        labels=SkillLabels(LABELS), chain_length=1, admissible=("ask_need", "close"), later=(), relevance={},
        references={},
    )  # fmt: skip
    return Call(messages=messages, context=context, key=0, episode=4, exchange=1)


def test_a_state_is_what_was_done_said_and_heard() -> None:
    first = call(("user", "hi i want to buy"))
    later = call(("user", "hi"), ("assistant", "<greet>"), ("user", "hello\nit costs too much\n<greet> <ask>"))
    labels = SkillLabels(LABELS)
    assert not any(features(first, labels))
    skills = list(LABELS)
    found = features(later, labels)
    assert [skills[i] for i in range(8) if found[i]] == ["greet", "ask_need"]  # done
    assert [skills[i] for i in range(8) if found[8 + i]] == ["greet"]  # chosen
    assert found[16:] == (True, False)  # the price, not the shop


def test_it_does_again_what_went_well() -> None:
    memory = SkillMemory(neighbours=1, exploration=1.0)
    planner = Rememberer(memory, collecting=True)
    [reply] = planner.reply([call(("user", "hi"))])
    planner.remember({4: 0.7})
    assert len(memory) == 1 and not planner.chosen
    assert Rememberer(memory).reply([call(("user", "hi"))])[0].text == reply.text


def test_the_memory_serves_and_learns(tmp_path: Path) -> None:
    tiny = shop_config().tiny
    assert tiny is not None
    found = []
    for rounds in (1, 8):
        folder = tmp_path / str(rounds)
        serve_and_remember(folder, PolicyConfig(path=str(materialize(tiny))), seed=0, rounds=rounds, customers=16)
        found.append(json.loads((folder / FILE).read_text())["hard"]["greedy"])
    assert found[1]["tse"] > found[0]["tse"] + 0.1
    assert found[1]["dialogues_with_violation"] == 0.0
