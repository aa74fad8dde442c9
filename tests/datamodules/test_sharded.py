"""Sharded evaluation: what is played, that it repeats, what is logged of it, and bad options."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch

from lit_rl.datamodules import ShardedDataModule, sharded
from lit_rl.environments import ShardedLinear, UserContext
from lit_rl.episodes import Rollouts
from lit_rl.methods.evaluation import Evaluation
from lit_rl.parties import PartyError
from lit_rl.policy import Policy, PolicyConfig
from lit_rl.sampling import SamplingSettings
from lit_rl.tiny import TinyModel

WORDS = "compute p q x = * + ; ans ask hm"


@pytest.fixture(scope="module")
def linear_policy() -> Policy:
    tiny = TinyModel(words=WORDS.split(), numbers=10, hidden_size=16, layers=1, heads=2, max_length=256)
    return Policy(PolicyConfig(tiny=tiny))


@pytest.fixture
def played(linear_policy: Policy) -> Callable[..., list[list[Rollouts]]]:
    """The batches of each condition, as ``lit-rl validate`` would play them."""

    def played(**options: Any) -> list[list[Rollouts]]:
        data = make(**options)
        module = SimpleNamespace(policy=linear_policy, policy_version=3)
        data.trainer = SimpleNamespace(lightning_module=module, state=SimpleNamespace(fn="validate"))
        return [list(stream) for stream in data.val_dataloader()]

    return played


def make(**options: Any) -> ShardedDataModule:
    defaults = {"runs": 2, "evaluation": SamplingSettings(max_tokens=4), "seed": 0}
    return ShardedDataModule(options.pop("tasks", ShardedLinear(5)), **(defaults | options))


def texts(batches: list[Rollouts]) -> list[list[str]]:
    return [[turn.text for turn in episode.turns] for batch in batches for episode in batch.episodes]


def test_every_task_is_played_so_many_times(played: Callable[..., list[list[Rollouts]]]) -> None:
    told, full = played(max_rows=4)
    assert [len(batch.episodes) for batch in told] == [4, 4, 2], "all runs of a task in one batch"
    assert {batch.label for batch in told} == {"sharded"} and {batch.label for batch in full} == {"full"}
    episodes = [episode for batch in told for episode in batch.episodes]
    assert [episode.group for episode in episodes] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [episode.index for episode in episodes] == list(range(10))
    assert len({episode.task_id for episode in episodes}) == 5
    assert {batch.rewards.shape[1] for batch in told} == {10} and {batch.rewards.shape[1] for batch in full} == {1}
    assert all(batch.policy_version == 3 and batch.parties == ("student", "user") for batch in told)
    for episode in (episode for batch in full for episode in batch.episodes):
        assert len(episode.turns) == 1, "the whole task is answered in one turn"


def test_the_same_seed_plays_the_same(played: Callable[..., list[list[Rollouts]]]) -> None:
    first, again, other = (played(seed=seed, conditions=["sharded"])[0] for seed in (1, 1, 2))
    assert texts(first) == texts(again) != texts(other)
    small = played(seed=1, conditions=["sharded"], max_rows=2)[0]
    assert texts(small) == texts(first), "how many share a batch changes nothing"


def test_greedy_runs_of_a_task_are_equal(played: Callable[..., list[list[Rollouts]]]) -> None:
    (batch,) = played(conditions=["sharded_greedy"])[0]
    said = texts([batch])
    assert said[::2] == said[1::2] and batch.label == "sharded_greedy"


def test_another_user_is_heard(played: Callable[..., list[list[Rollouts]]]) -> None:
    def silent(context: UserContext, key: int) -> str:
        return "hm"

    (batch,) = played(user=silent, conditions=["sharded"])[0]
    assert {turn.text for episode in batch.episodes for turn in episode.turns_of("user")} == {"hm"}
    assert {episode.stop_reason for episode in batch.episodes} <= {"max_messages", "solved"}


def test_a_user_that_raises_stops_the_run_or_is_counted(played: Callable[..., list[list[Rollouts]]]) -> None:
    def rude(context: UserContext, key: int) -> str:
        if key % 3 == 0:
            raise RuntimeError("no words")
        return context.suggestion

    with pytest.raises(PartyError, match="'user' in episode .*no words"):
        played(user=rude)
    (batch,) = played(user=rude, on_error="drop", conditions=["sharded"])[0]
    assert batch.figures["sharded/dropped_episodes"] == 10 - len(batch.episodes) > 0


def test_what_is_logged(played: Callable[..., list[list[Rollouts]]]) -> None:
    """The module's evaluation tells how the student talks, by condition, and starts anew."""
    evaluation = Evaluation("student", torch.device("cpu"))
    for batches in played(max_rows=4):
        for batch in batches:
            evaluation.update(batch)
    values = evaluation.compute()
    for name in ("performance", "aptitude", "unreliability", "score", "question_rate", "without_attempt"):
        assert f"sharded/{name}" in values and f"full/{name}" in values
    assert values["sharded/performance"] == values["sharded/accuracy_turn_10"]
    assert values["full/performance"] == values["full/accuracy_turn_1"]
    assert "sharded/premature_rate" in values and "full/premature_rate" not in values
    assert evaluation.compute() == {}


def test_ranks_share_the_tasks(played: Callable[..., list[list[Rollouts]]], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = texts(played(conditions=["sharded"])[0])
    monkeypatch.setattr(sharded, "world_size", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(sharded, "rank", lambda rank=rank: rank)
        parts.append(texts(played(conditions=["sharded"])[0]))
    assert parts[0] == whole[0:2] + whole[4:6] + whole[8:10] and parts[1] == whole[2:4] + whole[6:8]
    with pytest.raises(ValueError, match="There are 1 tasks for 2 processes"):
        played(num_tasks=1)


def test_it_only_evaluates() -> None:
    with pytest.raises(ValueError, match="only evaluates; run `lit-rl validate`"):
        make().setup("fit")
    make().setup("validate")
    with pytest.raises(RuntimeError, match="Rollouts need a policy"):
        list(_without_module(make()).val_dataloader()[0])


def _without_module(data: L.LightningDataModule) -> Any:
    data.trainer = SimpleNamespace(lightning_module=None)
    return data


class Empty(ShardedLinear):
    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conditions": ["shrded"]}, "data.conditions has 'shrded'"),
        ({"conditions": []}, "data.conditions is empty"),
        ({"runs": 0}, "data.runs is 0; it must be at least 1"),
        ({"num_tasks": 0}, "data.num_tasks is 0; it must be at least 1"),
        ({"num_tasks": 6}, "data.num_tasks is 6, but ShardedLinear-always has 5 tasks"),
        ({"max_rows": 0}, "data.max_rows is 0"),
        ({"user_instruction": "Talk."}, "user_instruction must contain {told}"),
        ({"tasks": Empty()}, r"data.tasks \(ShardedLinear-always\) is empty"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)
