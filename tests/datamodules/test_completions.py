"""Online completions: who is paid what, by a verifier, a function or a reward model."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_rl.datamodules import CompletionDataModule
from lit_rl.environments import NumberSearch, Problem
from lit_rl.environments.base import Reply
from lit_rl.environments.completion import Completion
from lit_rl.sampling import SamplingSettings

Attach = Callable[..., Any]
TASKS = NumberSearch(15)


def data(**options: Any) -> CompletionDataModule:
    small = {"num_validation_tasks": 3, "tasks_per_batch": 2, "group_size": 4, "seed": 0}
    return CompletionDataModule(TASKS, **small | {"student": SamplingSettings(max_tokens=2)} | options)


def test_the_verifier_pays_by_default(attach: Attach) -> None:
    batch = next(iter(attach(data()).train_dataloader()))
    assert batch.input_ids.shape[0] == 8 and batch.rewards.shape == (8, 1)
    assert batch.group_ids.tolist() == [0] * 4 + [1] * 4
    infos = [episode.turns[0].info for episode in batch.episodes]
    assert torch.equal(batch.rewards[:, 0], torch.tensor([float(info["correct"]) for info in infos]))
    assert torch.equal(batch.reward_parts["correct"], batch.rewards)
    assert all(info["prompt"] == "find n in 0 14" for info in infos)


def test_the_verdict_is_a_copy_and_noise_differs_by_condition(attach: Attach) -> None:
    settings = SamplingSettings(max_tokens=8)
    module = attach(data(student=settings, evaluation=settings, tasks_per_batch=4))
    batch = next(iter(module.train_dataloader()))
    verdicts = batch.rewards.clone()
    batch.rewards += 1.0
    assert torch.equal(batch.reward_parts["correct"], verdicts)
    (held_out, *_) = module.val_dataloader()
    trained = {episode.index: episode.turns[0].text for episode in batch.episodes}
    played = {episode.index: episode.turns[0].text for episode in next(iter(held_out)).episodes}
    assert played.keys() <= trained.keys()
    assert any(trained[index] != text for index, text in played.items()), "one prompt, one index, other noise"


def test_a_function_pays(attach: Attach) -> None:
    def length(problem: Problem, completion: str) -> float:
        return len(completion.split()) + 100.0 * int(problem.gold)

    batch = next(iter(attach(data(quality=length)).train_dataloader()))
    expected = [len(e.turns[0].text.split()) + 100.0 * int(e.turns[0].info["gold"]) for e in batch.episodes]
    assert batch.rewards[:, 0].tolist() == expected
    assert set(batch.reward_parts) == {"correct"} and not torch.equal(batch.reward_parts["correct"], batch.rewards)


class Judge:
    """A reward model of two dimensions that notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Sequence[str], Sequence[str]]] = []

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> dict[str, Tensor]:
        self.asked.append((prompts, completions))
        effort = torch.arange(len(prompts), dtype=torch.float32)
        return {"effort": effort, "evidence": effort * 2, "reward": effort * 3}


def test_a_reward_model_sees_the_whole_batch_once(attach: Attach) -> None:
    judge = Judge()
    batch = next(iter(attach(data(quality=judge)).train_dataloader()))
    ((prompts, completions),) = judge.asked
    assert list(completions) == [e.turns[0].text for e in batch.episodes] and set(prompts) == {"find n in 0 14"}
    assert batch.rewards[:, 0].tolist() == [3.0 * i for i in range(8)]
    assert batch.reward_parts["evidence"][:, 0].tolist() == [2.0 * i for i in range(8)]
    assert set(batch.reward_parts) == {"correct", "effort", "evidence"}


@pytest.mark.parametrize(
    ("quality", "said"),
    [
        (lambda problem, text: float("nan"), "nan"),
        (type("M", (), {"score": lambda self, p, c: {"effort": torch.zeros(len(p))}})(), "'reward' has to be among"),
        (type("M", (), {"score": lambda self, p, c: {"reward": torch.zeros(1)}})(), r"shape \(1,\) for 8 completions"),
    ],
)
def test_a_reward_that_is_none_is_refused(attach: Attach, quality: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        next(iter(attach(data(quality=quality)).train_dataloader()))


def test_validation_plays_held_out_tasks_under_both_conditions(attach: Attach) -> None:
    sampled, greedy = attach(data(validation_group_size=2), "validate").val_dataloader()
    first, second = next(iter(sampled)), next(iter(greedy))
    assert first.label == "answers" and second.label == "answers_greedy"
    assert {int(e.task_id) for e in first.episodes} == {12, 13, 14} and len(first.episodes) == 6
    by_task = {e.task_id: e.turns[0].text for e in second.episodes}
    assert all(e.turns[0].text == by_task[e.task_id] for e in second.episodes), "greedy: one answer a task"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"conditions": ["teacher"]}, "data.conditions has 'teacher'"),
        ({"conditions": []}, "data.conditions is empty"),
        ({"quality": 3}, "data.quality is a int"),
        ({"group_size": 0}, "data.group_size is 0"),
    ],
)
def test_bad_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        data(**options)


def test_a_party_nobody_trains_is_refused(attach: Attach) -> None:
    module = attach(data(party="speaker"), trained_parties=("student",))
    with pytest.raises(ValueError, match="data.party is 'speaker', but .* trains"):
        module.setup("fit")


def test_what_a_turn_tells_of_the_problem() -> None:
    problem = Problem(id="p", domain="d", prompt="find n in 0 14", gold="3", meta={"labels": ["3", "4"], "secret": 1})
    world = Completion(problem, TASKS, party="speaker", instruction="Think.")
    ask = world.begin().ask
    assert ask is not None and ask.party == "speaker" and [m.role for m in ask.messages] == ["system", "user"]
    outcome = world.act(Reply(text="ans 3"))
    assert outcome.terminated and outcome.rewards == {"speaker": 1.0} and outcome.stop_reason == "solved"
    assert outcome.info["labels"] == ["3", "4"] and "secret" not in outcome.info and "aliases" not in outcome.info
