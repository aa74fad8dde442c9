"""scripts/reproduce/intelli.py: demonstrations, options of its runs, and what it makes of finished runs, made up."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from lit_rl.environments import ReasoningGymTasks
from lit_rl.lightning_cli import load
from lit_rl.papers import (
    AXES,
    SyntheticPapers,
    annotated_questions,
    graded_question,
    oracle_labels,
    read_questions,
)
from lit_rl.reward_models import (
    BackboneConfig,
    LinearHead,
    MultiObjectiveRewardModel,
    RewardModelConfig,
    save_reward_model,
)
from lit_rl.tiny import TinyModel, materialize
from scripts.reproduce import intelli, intelli_heads, intelli_runs
from scripts.reproduce.intelli_annotated import NOISY, TRUE, write_annotated
from scripts.reproduce.intelli_euclid import RESPONSES, Euclid, Responses
from scripts.reproduce.intelli_heads import HEADS, agreement, grounded_shares
from scripts.reproduce.intelli_recitals import Recitals

TASKS = ReasoningGymTasks(**intelli_runs.GCD | {"size": 60})
LEARNED = [0.3] * 20 + [0.5] * 5 + [0.8] * 20  # five sevenths of the gap to 1
LITTLE = [0.3] * 20 + [0.5] * 20  # two sevenths


# -- demonstrations ------------------------------------------------------------------------------------------------


def test_without_dawdling_and_errors_it_is_euclid() -> None:
    shown = Euclid(TASKS, dawdles=0.0, errs=0.0, repeats=2)
    assert len(shown) == 120
    for index in range(60):
        said = shown[index].messages[1].content
        assert TASKS.verify(TASKS[index], said).correct and said == shown[60 + index].messages[1].content
    first = shown[0]
    large, small, *remainders = map(int, first.messages[1].content.partition(" ans ")[0].split())
    assert {large, small} == set(map(int, first.messages[0].content.split()[1:])) and large > small
    assert remainders[0] == large % small and remainders[-1] == 0


def test_dawdling_is_long_and_errors_are_wrong() -> None:
    def shown(dawdles: float, errs: float, seed: int = 0) -> list[str]:
        source = Euclid(TASKS, dawdles, errs, seed=seed)
        return [source[index].messages[1].content for index in range(len(source))]

    plain, slow, wrong = shown(0.0, 0.0), shown(0.5, 0.0), shown(0.0, 0.5)
    words = [sum(len(text.split()) for text in texts) for texts in (plain, slow)]
    assert 1.4 < words[1] / words[0] < 2.0  # every number but the answer is said twice in the mean

    def right(texts: list[str]) -> float:
        return sum(TASKS.verify(TASKS[i % 60], text).correct for i, text in enumerate(texts)) / len(texts)

    assert right(slow) == 1.0 and 0.2 < right(wrong) < 0.8
    assert slow == shown(0.5, 0.0) != shown(0.5, 0.0, seed=1)


@pytest.mark.parametrize(("dawdles", "errs"), [(1.0, 0.0), (-0.1, 0.0), (0.0, 1.5)])
def test_bad_chances(dawdles: float, errs: float) -> None:
    with pytest.raises(ValueError, match=f"dawdles is {dawdles} and errs {errs}"):
        Euclid(TASKS, dawdles, errs)


def test_recitals_tell_the_whole_paper_again() -> None:
    recitals = Recitals(4, seed=3)
    for index, paper in enumerate(SyntheticPapers(4, 3)):
        asked, said = recitals[index].messages
        told = said.content.split(" . ")
        assert asked.content == paper.text and sorted(told) == sorted(fact.text for fact in paper.facts)
        assert told != [fact.text for fact in paper.facts]
    assert recitals[0] == Recitals(4, seed=3)[0] and len(recitals) == 4


def test_recitals_and_answers_fit_their_models() -> None:
    config = yaml.safe_load((intelli_runs.INTELLI / "sft_tiny.yaml").read_text())["model"]["init_args"]["policy"][
        "tiny"
    ]
    asked, said = Recitals(1)[0].messages
    words = [*asked.content.replace("\f", " \f ").split(" "), *said.content.split()]
    assert set(filter(None, words)) <= set(TinyModel(**config).vocabulary())
    assert len(words) + 5 <= config["max_length"]
    longest = max(len(Euclid(TASKS, 0.0, 0.0)[i].messages[1].content.split()) for i in range(60))
    assert longest < intelli_runs.RESPONSE_TOKENS  # with the end of turn


def test_responses_are_written_by_validations_alone(tmp_path: Path) -> None:
    def episode(group: int, correct: bool, tokens: int, stop: str) -> Any:
        turn = SimpleNamespace(completion_ids=[0] * tokens, stop_reason=stop, info={"correct": correct})
        return SimpleNamespace(group=group, turns=[turn])

    told = [(0, True, 2, "end"), (0, False, 4, "length"), (1, True, 3, "end"), (1, True, 3, "end")]
    batch = SimpleNamespace(episodes=[episode(*each) for each in told])
    callback, module = Responses(), SimpleNamespace()
    for stage, there in (("fit", False), ("validate", True)):
        trainer: Any = SimpleNamespace(state=SimpleNamespace(fn=stage), default_root_dir=str(tmp_path))
        callback.on_validation_start(trainer, module)
        callback.on_validation_batch_start(trainer, module, batch, 0)
        callback.on_validation_end(trainer, module)
        assert (tmp_path / RESPONSES).exists() == there
    found = json.loads((tmp_path / RESPONSES).read_text())
    assert found == {"length": 3.0, "truncated": 0.25, "kept": 0.5}


# -- heads ---------------------------------------------------------------------------------------------------------


def asked_by_a_generator(folder: Path, papers: SyntheticPapers) -> None:
    """Predictions of a generator who asks well about every paper, once in vain."""
    said = [(str(task), graded_question(paper, (1, 1, 1), Random(task))) for task, paper in enumerate(papers)]
    lines = [{"task_id": task, "turns": [{"party": "student", "text": text}]} for task, text in [*said, ("0", " ")]]
    write(folder, "predictions.jsonl", lines)


def test_annotators_err_about_everybodys_questions(tmp_path: Path) -> None:
    papers = SyntheticPapers(40, seed=7)
    asked_by_a_generator(tmp_path, papers)
    write_annotated(tmp_path, papers)
    noisy, true = (read_questions(tmp_path / name, "own") for name in (NOISY, TRUE))
    assert [(a.paper_id, a.question, a.source) for a in noisy] == [(b.paper_id, b.question, b.source) for b in true]
    assert len(true) == 5 * 40 and all(
        oracle_labels(record) == dict(zip(AXES, record.labels, strict=True)) for record in true
    )
    assert all(record.labels == (1, 1, 1) for record in true if record.source == "generator")
    for mine in (True, False):
        pairs = [(a, b) for a, b in zip(noisy, true, strict=True) if (a.source == "generator") == mine]
        wrong = sum(x != y for a, b in pairs for x, y in zip(a.labels, b.labels, strict=True))
        assert 0.01 < wrong / (3 * len(pairs)) < 0.12, mine
    again = tmp_path / "again"
    asked_by_a_generator(again, papers)
    write_annotated(again, papers)
    assert (again / NOISY).read_text() == (tmp_path / NOISY).read_text()


def test_agreement_with_annotators_and_with_the_oracle() -> None:
    noisy, true = (annotated_questions(SyntheticPapers(30, 1), flip_rate=rate, seed=1) for rate in (0.2, 0.0))
    found = agreement(torch.tensor([record.labels for record in true]), noisy, true)
    assert found["oracle"]["accuracy"] == 1.0 and 0.75 < found["annotators"]["accuracy"] < 0.85
    assert {f"{judge}, {name}" for judge in ("oracle", "annotators") for name in ("majority", "source_mix")} <= set(
        found
    )


def test_grounded_shares_are_of_grounded_questions() -> None:
    true = annotated_questions(SyntheticPapers(10, 1), seed=1)
    called = torch.tensor([record.labels for record in true])
    assert grounded_shares(called, torch.zeros_like(called), true) == {"own": 1.0, "other": 0.0}


# -- runs ----------------------------------------------------------------------------------------------------------


def test_options_of_the_warm_ups(tmp_path: Path) -> None:
    folder = ("--trainer.default_root_dir", str(tmp_path))
    sft = intelli_runs.INTELLI / "sft_tiny.yaml"
    first = load(sft, *intelli_runs.recital(3), *folder)
    assert first.model.policy_config.tiny.seed == 3 and isinstance(first.datamodule.demonstrations, Recitals)
    built = load(sft, *intelli_runs.questions(tmp_path, 3), *folder)
    assert built.model.policy_config.path == str(tmp_path) and built.model.policy_config.tiny is None
    assert built.datamodule.batches_per_epoch == intelli_runs.SFT_STEPS
    shown = load(intelli_runs.ROOT / "configs/warmup/gcd.yaml", *intelli_runs.euclid_warm_up(3), *folder)
    assert isinstance(shown.datamodule.demonstrations, Euclid) and not shown.model.policy_config.prefill


@pytest.mark.parametrize("arm", intelli_runs.LADDER)
def test_options_of_a_rung(arm: str, tmp_path: Path) -> None:
    start = materialize(TinyModel(words=["gcd", "ans"], numbers=61, hidden_size=16, layers=1, heads=2))
    config = intelli_runs.DAPO / ("tiny.yaml" if arm == "dapo" else "baselines/grpo.yaml")
    built = load(config, *intelli_runs.ladder(arm, start, 5), "--trainer.default_root_dir", str(tmp_path))
    model, data = built.model, built.datamodule
    rung = list(intelli_runs.LADDER).index(arm)
    assert model.filter_truncated == (rung in (1, 2)) and bool(model.overlong_factor) == (rung >= 3)
    assert model._clips["clip_high"] == (0.28 if rung >= 2 else 0.2)
    assert model.aggregation == ("token_mean" if rung >= 4 else "seq_mean_token_mean")
    assert (data.dynamic_sampling is not None) == (arm == "dapo")
    assert len(data.held_out) == intelli_runs.HELD_OUT and built.config.seed_everything == 5
    assert data.batches_per_epoch * built.trainer.max_epochs == intelli_runs.BATCHES
    assert data.tasks_per_batch == intelli_runs.PROMPTS and data.student.max_tokens == intelli_runs.RESPONSE_TOKENS


def test_options_of_a_reward_model(tmp_path: Path) -> None:
    config = yaml.safe_load((intelli_runs.INTELLI / "sft_tiny.yaml").read_text())["model"]["init_args"]["policy"][
        "tiny"
    ]
    backbone = materialize(TinyModel(**config))
    papers = SyntheticPapers(20, seed=12)
    asked_by_a_generator(tmp_path, papers)
    write_annotated(tmp_path, papers)
    common = (
        *intelli_runs.reward_model(backbone, tmp_path / NOISY, tmp_path, 2),
        "--trainer.default_root_dir",
        str(tmp_path),
    )
    seen = set()
    for label in HEADS:
        pool, kind, how = label.split(", ")
        trained = intelli_runs.TRAINED if how == "trained" else intelli_runs.FROZEN
        options = (*common, "--model.init_args.pool_tokens", intelli_runs.POOLS[pool], *trained)
        built = load(intelli_runs.HEAD_CONFIGS[kind], *options)
        config = built.model.config
        seen.add((type(config.head).__name__, config.pool_tokens, config.train_backbone))
        assert config.seed == 2 and str(config.backbone.path) == str(backbone)
    assert len(seen) == len(HEADS) == 10
    parts = built.datamodule.records
    assert not parts["test"] and len(parts["train"]) + len(parts["val"]) == 100


def test_options_of_a_generator_that_only_asks(tmp_path: Path) -> None:
    given = intelli_runs.generator_asks(tmp_path, 9, 4)
    built = load(intelli_runs.INTELLI / "ask_tiny.yaml", *given, "--trainer.default_root_dir", str(tmp_path))
    data = built.datamodule
    assert data.quality is None and data.validation_group_size == 4 and data.conditions == ("answers",)
    assert [source[task].id for source, task in data.held_out] == [f"synthetic-4-{number}" for number in range(9)]


@pytest.mark.parametrize("arm", intelli_runs.ASKED)
def test_options_of_a_generator(arm: str, tmp_path: Path) -> None:
    start = materialize(TinyModel(words=["why", "?"], hidden_size=16, layers=1, heads=2))
    judged = RewardModelConfig(backbone=BackboneConfig(path=str(start)), head=LinearHead(), pool_tokens=4, rubric="why")
    for name in ("reward", "judge"):
        save_reward_model(MultiObjectiveRewardModel(judged), tmp_path / name)
    mode = intelli_runs.ASKED[arm]
    options = intelli_runs.asking(start, tmp_path / "reward", tmp_path / "judge", mode, 6)
    built = load(intelli_runs.INTELLI / "ask_tiny.yaml", *options, "--trainer.default_root_dir", str(tmp_path))
    trainer: Any = built.trainer
    [watching] = [callback for callback in trainer.callbacks if hasattr(callback, "judges")]
    assert set(watching.judges) == set(intelli.JUDGES) and watching.best_of == intelli_runs.BEST_OF
    assert {watching.judges[name].scoring.mode for name in ("reward", "judge")} == {"hard_sum"}  # however it is trained
    assert built.datamodule.quality.scoring.mode == mode and built.datamodule.quality.path == str(tmp_path / "reward")
    assert built.datamodule.validation_group_size >= max(intelli_runs.BEST_OF) and built.config.seed_everything == 6


def test_papers_of_different_purposes_differ() -> None:
    """Those of warm-ups, of reward models and judges, of the test, of the generator's training and its validation."""
    asked = yaml.safe_load((intelli_runs.INTELLI / "ask_tiny.yaml").read_text())["data"]["init_args"]
    used = [asked[name]["init_args"]["seed"] for name in ("tasks", "validation_tasks")]
    warm = yaml.safe_load((intelli_runs.INTELLI / "sft_tiny.yaml").read_text())["data"]["init_args"]["demonstrations"]
    used += [warm["init_args"]["seed"], intelli_heads.TEST_SEED]
    used += [10 + seed for seed in range(3)] + [1010 + seed for seed in range(3)]
    assert len(set(used)) == 10


def test_a_seed_runs_every_arm_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fake: Callable[..., None] = lambda folder, *_, **__: done.append(folder.name)  # noqa: E731
    monkeypatch.setattr(intelli_runs, "run", fake)
    monkeypatch.setattr(intelli_runs, "validate", fake)
    monkeypatch.setattr(intelli_runs, "apart", lambda name, *_: done.append(name))
    monkeypatch.setattr(intelli_runs, "annotate", lambda _, name, *__: done.append(name))
    intelli_runs.run_seed(tmp_path, 0, ["heads", "ladder", "ask"])
    rungs = [name for arm in intelli_runs.LADDER for name in (arm, f"{arm}_measured")]
    heads = [each for name in HEADS.values() for each in ("questions_0", name)]
    best = ["questions_0", intelli_runs.BEST_HEAD, "questions_1000", "judge"]
    shared = ["recital", "sft", *heads, "test_questions", "measuring heads", "euclid", *rungs]
    assert done == [*shared, *best, *intelli_runs.ASKED]  # `run` and `annotate` pass over what is done


# -- tables --------------------------------------------------------------------------------------------------------


def write(folder: Path, name: str, lines: Sequence[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def made_up(root: Path, rewards: Sequence[float] = LEARNED) -> list[Path]:
    """Two seeds of which all figures are made up."""
    folders = [root / "seed-0", root / "seed-1"]
    marks = {f"{judge}/{name}": 0.5 for judge in intelli.JUDGES for name in ("reward", *AXES)}
    marks |= {f"{judge}/best_of_{n}": n / 10 for judge in intelli.JUDGES for n in intelli_runs.BEST_OF}
    like = ("first_page_bias", "later_only", "unique_share", "mean_length", "truncated_share")
    marks |= dict.fromkeys(like, 0.25)
    for number, folder in enumerate(folders):
        for arm in intelli_runs.LADDER:
            sampled = {"sampling/draws": 1.0} if arm == "dapo" else {}
            key = "sampling/reward" if sampled else "train/reward"
            train = [{"stage": "train", "batch": i, key: x} | sampled for i, x in enumerate(rewards, 1)]
            val = [
                {"stage": "val", "batch": batch, "val/answers/accuracy_turn_1": accuracy}
                for batch, accuracy in ((0, 0.2), (len(rewards) // 2, 0.4), (len(rewards), 0.6))
            ]
            write(folder / arm, "metrics.jsonl", [*train, *val])
            write(folder / f"{arm}_measured", RESPONSES, [{"length": 9.0, "truncated": 0.1, "kept": 0.4}])
            answers = {"answers": {"accuracy": [0.6 + 0.2 * number]}}
            write(folder / f"{arm}_measured", "validation.json", [{"conditions": answers}])
        for arm in intelli_runs.ASKED:
            before, after = ({"answers": {"accuracy": [0.1]} | marks | {"oracle/reward": x}} for x in (1.0, 2.0))
            write(folder / arm, "validation_before.json", [{"conditions": before}])
            write(folder / arm, "validation.json", [{"conditions": after}])
            train = [{"stage": "train", "batch": i, "sampling/reward": 3 * x} for i, x in enumerate(rewards, 1)]
            val = [{"stage": "val"} | {f"val/answers/{judge}/reward": 1.0 for judge in intelli.JUDGES}] * (2 + number)
            write(folder / arm, "metrics.jsonl", [*train, *val])
        figures = {f"{axis}/accuracy": 0.8 for axis in AXES} | {"accuracy": 0.8, "balanced_accuracy": 0.7}
        judged = {
            f"{judge}{name}": figures
            for judge in ("annotators", "oracle")
            for name in ("", ", majority", ", source_mix", ", by_source")
        }
        write(folder, "heads.json", [dict.fromkeys(HEADS, judged | {"grounded": {"own": 0.9, "other": 0.2}})])
        (folder / "dapo" / "finished.json").write_text(json.dumps({"fit_seconds": 10.0}))
    return folders


def test_table_of_heads(tmp_path: Path) -> None:
    tables, text = intelli.report(made_up(tmp_path), "heads")
    assert set(HEADS) <= set(tables["accuracy by the oracle's labels"])
    assert tables["accuracy by the oracle's labels"]["last, mlp, frozen"] == [[0.8, 0.8]] * 4 + [[0.7, 0.7]]
    assert tables["accuracy by the annotators' labels"]["*majority*"] == [[0.8, 0.8]] * 4
    assert tables["grounded questions called so"]["all, linear, frozen"] == [[0.9, 0.9], [0.2, 0.2]]
    assert text.startswith("# heads")


def test_table_of_the_ladder(tmp_path: Path) -> None:
    """Dynamic sampling drew twice as much: at equal problems it is where it was halfway."""
    tables, text = intelli.report(made_up(tmp_path), "ladder")
    rows = tables["held-out accuracy"]
    assert list(rows) == list(intelli_runs.LADDER)
    assert rows["grpo"] == [[0.6, 0.8], [0.6, 0.6], [1.0, 1.0], [9.0, 9.0], [0.1, 0.1], [0.4, 0.4]]
    assert rows["dapo"][1:3] == [[0.4, 0.4], [2.0, 2.0]]
    assert text.count("this table counts") == len(intelli_runs.LADDER) and "71% of the gap" in text


def test_tables_of_questions(tmp_path: Path) -> None:
    tables, text = intelli.report(made_up(tmp_path), "ask")
    marks = tables["questions, 0 .. 3"]
    assert marks["sft, oracle"][0] == [1.0, 1.0] and marks["ask_hard, oracle"][0] == [2.0, 2.0]
    assert marks["ask_soft, judge"] == [[0.5, 0.5]] * 4
    chosen = tables["best of n of the warm-up, chosen by reward"]
    assert chosen["by oracle"] == [[n / 10] * 2 for n in intelli_runs.BEST_OF]
    assert tables["while training, sum"]["ask_hard, reward"] == [[1.0, 1.0]] * 2  # as long as the shortest
    assert tables["what they are like"]["sft"] == [[0.25, 0.25]] * 5
    assert "of 3; seed-0: 0.900 -> 2.400, 71%" in text


@pytest.mark.parametrize("part", ["ladder", "ask"])
def test_a_table_that_does_not_count(part: str, tmp_path: Path) -> None:
    text = intelli.report(made_up(tmp_path, LITTLE), part)[1]
    assert text.count("does not count") >= 1 and "learnability of" in text


def test_all_that_was_sampled_counts_as_reward(tmp_path: Path) -> None:
    """Of what dynamic sampling kept, rewards are near one half however good the model is."""
    kept = [{"stage": "train", "batch": i, "train/reward": 0.5, "sampling/reward": x} for i, x in enumerate([0.1, 0.9])]
    write(tmp_path, "metrics.jsonl", [*kept, {"stage": "train", "batch": 3}])
    assert intelli.raw_rewards(tmp_path, first=1, last=1) == (0.1, 0.9)
