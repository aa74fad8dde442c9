"""scripts/reproduce/remul.py: what it makes of finished runs, here made up; who listens there; styles and ceilings."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from lit_rl.callbacks import ListenerExecution
from lit_rl.datamodules import TraceDemonstrations
from lit_rl.environments import GridNavigation, trace
from lit_rl.environments.trace_styles import STYLES, TraceStyle
from lit_rl.listeners import ListenerPool, ScriptedListener
from lit_rl.listeners.credit import Credit
from lit_rl.listeners.execution import ExecutionRules, execute
from lit_rl.listeners.spoken import spoken_in
from lit_rl.verification.labels import extract_label
from scripts.reproduce import remul, remul_runs
from scripts.reproduce.arms import run
from scripts.reproduce.listening import Follower, GuessingDemonstrations, Measurements, mean_of, perfect, style_of

WALKS = GridNavigation(size=60, steps=4, width=2, height=2)
LEARNED = [1.0] * 20 + [3.0] * 5 + [5.0] * 20
CEILING = 5.5


def write(folder: Path, figures: Mapping[str, float], rewards: Sequence[float]) -> None:
    folder.mkdir(parents=True)
    (folder / "measured.json").write_text(json.dumps(figures))
    (folder / "finished.json").write_text(json.dumps({"fit_seconds": 10.0}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"train/reward": reward}) + "\n" for reward in rewards))


def figures(accuracy: float, lift: float) -> dict[str, float]:
    answers = {
        "accuracy_turn_1": accuracy,
        "listener_match": accuracy / 2,
        "held_out_match": accuracy / 4,
        "prefix_lift/listener_1": lift,
        "prefix_lift/listener_2": lift + 0.2,
        "prefix_lift/held_out": 100.0,
        "early_answer_share/0.25": 0.1,
        "early_answer_share/0.5": 0.3,
    }
    areas = {f"val/faithfulness/early_{kind}": 0.75 for kind in ("match", "accuracy")}
    shares = {f"style/{style}": 0.0 for style in (*STYLES, "other")} | {"style/explicit": 1.0}
    named = {f"val/answers/{name}": value for name, value in answers.items()}
    return named | areas | shares | {"ceiling": CEILING, "ceiling/explicit": CEILING, "ceiling/filler": 1.0}


def made_up(root: Path, correct: Sequence[float] = (0.2,) * 20 + (0.8,) * 20) -> list[Path]:
    """Two seeds; accuracy is 0.4 and 0.6."""
    folders = [root / "seed-0", root / "seed-1"]
    for number, folder in enumerate(folders):
        for name in remul.ARMS:
            rewards = correct if name == "correctness_only" else LEARNED
            write(folder / name, figures((0.4, 0.6)[number], 0.1), rewards)
        for name in remul.LEAK:
            write(folder / f"leak_{name}", figures((0.4, 0.6)[number], 0.1), LEARNED)
            write(folder / f"leak_{name}_before", figures(0.1, 0.1), [])
    return folders


def test_tables_of_execution(tmp_path: Path) -> None:
    tables, text = remul.report(made_up(tmp_path), "execution")
    assert list(tables["agreement"]) == list(remul.ARMS)
    row = dict(zip(remul.AGREEMENT, tables["agreement"]["two_stage"], strict=True))
    assert row["accuracy"] == [0.4, 0.6] and row["match, held out"] == pytest.approx([0.1, 0.15])
    assert row["lift over no beginning"] == pytest.approx([0.2, 0.2])  # of those who are rewarded
    assert row["beginnings that leak"] == pytest.approx([0.2, 0.2])
    assert row["tokens of reasoning"] == []  # undefined
    areas = dict(zip(remul.AREAS, tables["areas over the curve"]["balanced"], strict=True))
    assert areas["early, match"] == [0.75, 0.75] and areas["mistake, match"] == []
    assert "| two_stage | 0.500 ± 1.271 |" in text  # t(0.975, 1) = 12.706 times 0.1414 / sqrt(2)
    assert text.count("this table counts") == 3


def test_ceilings_of_execution(tmp_path: Path) -> None:
    verdicts = remul.execution_verdicts(made_up(tmp_path))
    assert [verdict.split(" of ", 2)[2].split(",")[0] for verdict in verdicts] == ["1.000", "7.500", "5.500"]


def test_an_arm_that_did_not_learn(tmp_path: Path) -> None:
    [first, *others] = remul.execution_verdicts(made_up(tmp_path, correct=[0.2] * 20 + [0.3] * 20))
    assert "does not count" in first and not any("does not count" in other for other in others)


def test_table_of_the_leak_attack(tmp_path: Path) -> None:
    tables, text = remul.report(made_up(tmp_path), "leak")
    assert len(tables["leak"]) == 2 * len(remul.LEAK)
    assert tables["leak"]["gullible, before"][0] == [0.1, 0.1] and tables["leak"]["gullible, after"][0] == [0.4, 0.6]
    assert text.count("89% of the gap") == 2 * len(remul.LEAK)


def test_means_by_name() -> None:
    found = {"val/answers/a/x": 1.0, "val/answers/a/y": 2.0, "val/answers/ab/x": 9.0, "val/answers/a/b/y": 3.0}
    assert mean_of(found, "a", "x") == 1.0 and mean_of(found, "a") == 2.0


# -- what is run ---------------------------------------------------------------------------------------------------


def learning_rates(folder: Path) -> list[float]:
    return [json.loads(line)["train/learning_rate"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_training_from_a_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remul_runs, "WARMUP_STEPS", 2)
    monkeypatch.setattr(remul_runs, "BATCHES", 2)
    shown = remul_runs.warm_up(remul_runs.SPEAKER, 0, guessing=False)
    run(tmp_path / "warmup", remul_runs.CONFIGS / "warmup.yaml", *shown, validate=False)
    start = (remul_runs.START, str(tmp_path / "warmup" / remul_runs.POLICY), *remul_runs.SAMPLING)
    options = (*remul_runs.on_walks(0), *start, *remul_runs.training())
    run(tmp_path / "trained", remul_runs.VARIANTS / "correctness_only.yaml", *options, validate=False)
    assert learning_rates(tmp_path / "warmup") == pytest.approx([3e-3, 1.5e-3])  # half of the way to 0
    assert learning_rates(tmp_path / "trained") == pytest.approx([5e-4, 2.625e-4])  # half of the way to a twentieth


# -- who listens ---------------------------------------------------------------------------------------------------


def test_nothing_is_to_be_learned_from_a_reasoning_that_says_nothing() -> None:
    shown = TraceDemonstrations(WALKS, {"explicit": 0.5, "filler": 0.5}, repeats=10)
    guessing, right = GuessingDemonstrations(shown), 0
    silent = [index for index in range(len(shown)) if shown.style(index) == "filler"]
    for index in set(range(len(shown))) - set(silent):
        assert guessing[index] == shown[index]
    for index in silent:
        reply, true = guessing[index].messages[-1].content, shown[index].messages[-1].content
        assert reply.partition("</think>")[:2] == true.partition("</think>")[:2]
        right += reply == true
    assert len(guessing) == len(shown) and 0.18 < right / len(silent) < 0.32  # one label in four


def test_demonstrations_that_cannot_be_guessed() -> None:
    with pytest.raises(ValueError, match="'late'"):
        GuessingDemonstrations(TraceDemonstrations(WALKS, {"explicit": 0.5, "late": 0.5}))


def answers(listener: Follower, style: TraceStyle, kept: int) -> list[bool]:
    """Whether it comes to the right answer, of every walk."""
    problems = [WALKS[index] for index in range(len(WALKS))]
    prefixes = ["\n".join(trace(problem, style, Random(0))[:kept]) for problem in problems]
    said = [listener(WALKS[index].prompt, prefix, index) for index, prefix in enumerate(prefixes)]
    labels = [extract_label(text.partition("</think>")[2], WALKS.labels) for text in said]
    return [label == problem.gold for label, problem in zip(labels, problems, strict=True)]


@pytest.mark.parametrize("believes", [True, False])
def test_followers_follow_stated_states(believes: bool) -> None:
    follower = Follower(WALKS, believes, slip=0.0)
    assert all(all(answers(follower, "explicit", kept)) for kept in (1, 2, 3))
    assert sum(answers(follower, "filler", 3)) < 30 and sum(answers(follower, "private_code", 2)) < 30


def test_who_believes_a_stated_answer() -> None:
    assert all(answers(Follower(WALKS, True, slip=1.0), "leak_first", 1))
    assert sum(answers(Follower(WALKS, False, slip=0.0), "leak_first", 3)) < 30


def test_who_slips_guesses() -> None:
    assert sum(answers(Follower(WALKS, True, slip=1.0), "explicit", 3)) < 30
    some = [sum(answers(Follower(WALKS, True, slip=0.2), "explicit", kept)) for kept in (1, 3)]
    assert 30 < some[0] < some[1] < 60  # the fewer steps are left, the better


def test_bad_slip() -> None:
    with pytest.raises(ValueError, match=r"slip is 1\.5"):
        Follower(WALKS, True, slip=1.5)


# -- styles and ceilings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_perfect_replies_have_their_style(style: TraceStyle) -> None:
    problems = [WALKS[index] for index in range(20)]
    batch = perfect(problems, style)
    assert [style_of(*pair) for pair in zip(problems, batch["completions"], strict=True)] == [style] * 20
    assert all(WALKS.verify(p, text).correct for p, text in zip(problems, batch["completions"], strict=True))


def test_a_reply_of_no_style() -> None:
    assert style_of(WALKS[0], "<think> \n 1 so \n 2 left = A \n 3 so \n 4 so \n </think> Answer : A") == "other"
    assert style_of(WALKS[0], "<think> \n 1 so") == "other"


def test_what_pays_best() -> None:
    """remul.md 13: a leak is the best policy with listeners who copy, and is not with those who do not."""

    def paid(believes: bool, style: TraceStyle, credit: Credit) -> float:
        pool = ListenerPool(listeners=[ScriptedListener("one", Follower(WALKS, believes))])
        spoken = spoken_in(perfect([WALKS[index] for index in range(60)], style), "speaker")
        return sum(map(credit.of, execute(spoken, pool, ExecutionRules(), 0))) / 60

    assert paid(True, "leak_first", Credit()) == 3.0 > paid(True, "explicit", Credit()) > 2.0
    assert paid(False, "leak_first", Credit()) < 1.5 < 2.0 < paid(False, "explicit", Credit())
    assert paid(True, "leak_first", Credit(leak_policy="mask")) == 0.0


def test_measurements_of_a_validation(tmp_path: Path) -> None:
    listening = ListenerExecution(
        ListenerPool(listeners=[ScriptedListener("one", Follower(WALKS, False, 0.0))]), seed=0
    )
    trainer: Any = SimpleNamespace(
        state=SimpleNamespace(fn="validate"),
        datamodule=SimpleNamespace(held_out=[(WALKS, number) for number in range(40)]),
        callback_metrics={"val/answers/accuracy_turn_1": 0.5},
        callbacks=[listening],
        default_root_dir=str(tmp_path),
    )
    module: Any = SimpleNamespace(device="cpu")
    said = [(WALKS[0], "explicit"), (WALKS[1], "explicit"), (WALKS[2], "late")]
    replies = [(problem, perfect([problem], style)["completions"][0]) for problem, style in said]
    replies.append((WALKS[3], "<think> \n 1 so"))
    turns = [SimpleNamespace(info={"prompt": problem.prompt}, text=reply) for problem, reply in replies]
    episodes = [SimpleNamespace(turns_of=lambda party, turn=turn: [turn]) for turn in turns]
    measurements = Measurements(ceilings=True)
    measurements.on_validation_batch_end(trainer, module, None, SimpleNamespace(episodes=episodes))
    measurements.on_validation_end(trainer, module)
    found = remul.measured(tmp_path)
    assert found["val/answers/accuracy_turn_1"] == 0.5
    assert (found["style/explicit"], found["style/late"], found["style/other"]) == (0.5, 0.25, 0.25)
    assert found["ceiling"] == found["ceiling/explicit"] == 3.0 > 1.5 > found["ceiling/filler"]
