"""REMUL end to end on a model of 0.1 M parameters (remul.md, properties 22 and 23)."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml

from lit_rl.callbacks.listener_execution import ListenerExecution
from lit_rl.datamodules.completions import CompletionDataModule
from lit_rl.datamodules.masked_answers import MaskedAnswers
from lit_rl.datamodules.trace_demonstrations import TraceDemonstrations
from lit_rl.demonstrations import demonstration_rows
from lit_rl.environments.navigation import GridNavigation
from lit_rl.environments.trace_solutions import solution_of, stated, step_number
from lit_rl.environments.trace_styles import trace_style
from lit_rl.episodes import Episode
from lit_rl.listeners import ListenerPool, ScriptedListener
from lit_rl.methods import SupervisedFineTuning
from lit_rl.methods.masked_answers import MaskedAnswerFineTuning
from lit_rl.methods.remul import REMUL
from lit_rl.policy import LoRA, PolicyConfig
from lit_rl.sampling import SamplingSettings
from lit_rl.tiny import TinyModel
from lit_rl.verification.traces import split_trace, split_units
from tests.methods.worlds import learn, loaded, trainer

pytestmark = pytest.mark.slow
WARMUP = Path(__file__).parents[2] / "configs/remul/warmup.yaml"
TASKS = GridNavigation(size=2000, steps=4)
PROBLEMS = {problem.prompt: problem for problem in (TASKS[i] for i in range(2000))}
SHORT = SamplingSettings(max_tokens=48)


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that states every step in half of its traces, mostly right, and says nothing in the other half."""
    folder = tmp_path_factory.mktemp("warm")
    tiny = TinyModel(**yaml.safe_load(WARMUP.read_text())["model"]["init_args"]["policy"]["tiny"])
    slower = partial(torch.optim.lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.0, total_iters=7 * 31)
    method = loaded(SupervisedFineTuning(PolicyConfig(tiny=tiny), learning_rate=3e-3, lr_scheduler=slower))
    assert method.policy is not None
    demonstrations = TraceDemonstrations(TASKS, {"explicit": 0.5, "filler": 0.5})
    rows = demonstration_rows(
        [demonstrations[i] for i in range(2000)], method.policy, party="speaker", policy_version=0
    )
    batches = [rows.select(torch.arange(64 * n, 64 * n + 64)) for n in range(31)]
    learn(method, batches * 7)
    method.export(folder)
    return str(folder)


def follows(question: str, prefix: str, key: int) -> str:
    """Goes on from the last state that was stated, without a mistake; guesses where none was."""
    problem = PROBLEMS[question]
    lines = [line for line in split_units(prefix) if stated(line) in problem.meta["labels"]]
    if not lines:
        return guesses(question, prefix, key)
    state, number = str(stated(lines[-1])), step_number(lines[-1])
    for step in solution_of(problem).steps[number or 0 :]:
        state = step.to[state]
    return f"</think> Answer : {state}"


def guesses(question: str, prefix: str, key: int) -> str:
    return f"</think> Answer : {'ABCDEFGHI'[key % 9]}"


def silent(question: str, prefix: str, key: int) -> str:
    return "</think>"


def shares(episodes: list[Episode]) -> tuple[float, float]:
    """Of replies that state every step, and of right answers."""
    styles = [
        trace_style(TASKS[int(episode.task_id)], split_units(split_trace(episode.turns[0].text).reasoning))
        for episode in episodes
    ]
    right = [bool(episode.turns[0].info["correct"]) for episode in episodes]
    return styles.count("explicit") / len(styles), sum(right) / len(right)


class Watch(L.Callback):
    """Keeps the shares of every batch."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(shares(batch.episodes))


class AroundTraining(L.Callback):
    """Shares among the replies to held-out tasks, before and after."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def on_train_start(self, trainer: Any, pl_module: L.LightningModule) -> None:
        places = [(TASKS, i, i) for i in range(1600, 2000)]
        self.seen.append(shares(trainer.datamodule.play_held_out(places, "answers").episodes))

    on_train_end = on_train_start


def first_stage(
    speaker: str, script: Callable[[str, str, int], str], **options: Any
) -> tuple[REMUL, list[tuple[float, float]]]:
    watch = Watch()
    pool = ListenerPool(listeners=[ScriptedListener(name, script) for name in ("one", "two")])
    method = REMUL(PolicyConfig(path=speaker), learning_rate=1e-3, kl_coef=0.0, **options)
    data = CompletionDataModule(
        TASKS, party="speaker", tasks_per_batch=8, group_size=8, batches_per_epoch=12, student=SHORT, seed=0
    )
    running = trainer(callbacks=[ListenerExecution(pool, empty_prefix=False), watch])
    running.fit(method, datamodule=data)
    return method, watch.seen


def mean(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    explicit, right = torch.tensor(pairs).mean(0).tolist()
    return explicit, right


def test_it_learns_to_be_followed_and_then_to_be_right_22_23(speaker: str, tmp_path: Path) -> None:
    method, seen = first_stage(speaker, follows)
    assert 0.3 < seen[0][0] < 0.7
    explicit, _ = mean(seen[-3:])
    assert explicit > 0.85
    method.export(tmp_path)
    adapters = {"speaker": LoRA(rank=32, alpha=128.0)}
    second = MaskedAnswerFineTuning(PolicyConfig(path=str(tmp_path), adapters=adapters), learning_rate=3e-4)
    answers = MaskedAnswers(
        TASKS, traces=SamplingSettings(temperature=0.7, max_tokens=48), answer_template="Answer : {answer}",
        num_problems=512, batch_size=64, seed=0,
    )  # fmt: skip
    around = AroundTraining()
    trainer(tmp_path, callbacks=[around]).fit(second, datamodule=answers)
    (explicit, right), (explicit_after, right_after) = around.seen
    assert explicit_after > explicit - 0.1 and right_after > right - 0.05
    assert right > 0.6, "or there was nothing to lose"


def test_a_constant_reward_teaches_nothing_22(speaker: str) -> None:
    """Listeners who never give an answer; Adam would make full steps of the smallest entropy bonus."""
    _, seen = first_stage(speaker, silent, entropy_coef=0.0)
    assert abs(mean(seen[-3:])[0] - mean(seen[:3])[0]) < 0.2
