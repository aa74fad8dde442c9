import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from lit_rl.datamodules import Dialogue, DidacticDataModule, RolloutStream, online
from lit_rl.datamodules.order import ShuffledOrder, run_seed
from lit_rl.environments import HigherLower, NumberSearch, TeacherContext
from lit_rl.environments.base import Reply
from lit_rl.environments.teacher_words import RETRY
from lit_rl.episodes import Rollouts
from lit_rl.parties import Call, PartyError
from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.sampling import SamplingSettings

Attach = Callable[..., DidacticDataModule]
SHORT = SamplingSettings(max_tokens=1)


def data(**options: Any) -> DidacticDataModule:
    tasks = options.pop("tasks", None) or NumberSearch(15)
    teacher = options.pop("teacher", None) or HigherLower()
    defaults = {"num_validation_tasks": 5, "tasks_per_batch": 4, "group_size": 3, "batches_per_epoch": 3}
    return DidacticDataModule(tasks, teacher, student=SHORT, **(defaults | options))


def heard(batch: Rollouts) -> set[str]:
    """All the teacher's words, and the fixed messages, that any student heard in these dialogues."""
    return {turn.text for episode in batch.episodes for turn in episode.turns if turn.party == "teacher"}


def test_training_batches(attach: Attach) -> None:
    module = attach(data())
    batches = list(module.train_dataloader())
    assert [len(batch.episodes) for batch in batches] == [12, 12, 12]
    golds = [episode.task_id for batch in batches for episode in batch.episodes]
    assert set(golds) <= {str(i) for i in range(10)}, "held-out tasks were trained on"
    assert all(golds[i] == golds[i + 1] == golds[i + 2] for i in range(0, 36, 3))  # whole groups
    indices = [episode.index for batch in batches for episode in batch.episodes]
    assert indices == list(range(36))  # sampling noise never repeats
    assert heard(batches[0]) <= {"higher", "lower", "please answer or ask"}
    assert batches[0].figures["time/sampling_seconds"] > 0


def test_the_same_seed_plays_the_same_dialogues(attach: Attach) -> None:
    first, again, other = (next(iter(attach(data(seed=seed)).train_dataloader())) for seed in (1, 1, 2))
    assert torch.equal(first.input_ids, again.input_ids)
    assert torch.equal(first.old_log_probs, again.old_log_probs)
    assert not torch.equal(first.input_ids, other.input_ids)


def test_every_pass_sees_every_task_once() -> None:
    order = ShuffledOrder(7, seed=3)
    passes = [[order[place] for place in range(start, start + 7)] for start in (0, 7, 14)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3
    assert order[3] == passes[0][3]  # an earlier pass comes out the same again


def test_seed_of_the_run_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert (run_seed(None), run_seed(0)) == (7, 0)
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert run_seed(None) == 0


def test_validation_plays_every_held_out_task_again_each_time(attach: Attach) -> None:
    module = attach(data(validation_group_size=2, max_rows=4, fit_conditions=("teacher", "retry_greedy")))
    streams = module.val_dataloader()
    assert [len(stream) for stream in streams] == [3, 3]
    for _ in range(2):  # Lightning builds the streams once and goes through them at every validation
        for stream, label in zip(streams, ("teacher", "retry_greedy"), strict=True):
            batches = list(stream)
            assert {batch.label for batch in batches} == {label}
            played = [episode.task_id for batch in batches for episode in batch.episodes]
            assert sorted(played, key=int) == ["10", "10", "11", "11", "12", "12", "13", "13", "14", "14"]


def test_conditions_of_validate(attach: Attach) -> None:
    module = attach(data(), function="validate")
    policy: Any = module.trainer.lightning_module.policy
    streams = module.val_dataloader()
    by_label = {batch.label: batch for stream in streams for batch in stream}
    assert set(by_label) == {"teacher", "retry", "shuffled", "resample", "teacher_greedy"}
    assert heard(by_label["retry"]) == heard(by_label["resample"]) == set()
    row = by_label["retry"].episodes[0].turns[1]
    assert policy.tokenizer.decode(row.prompt_ids).count(RETRY.split()[0]) == 1
    for episode in by_label["resample"].episodes:  # no history
        assert all(turn.new_row for turn in episode.turns)
    greedy = [tuple(turn.text for turn in e.turns_of("student")) for e in by_label["teacher_greedy"].episodes]
    assert greedy == [tuple(t.text for t in e.turns_of("student")) for e in next(iter(streams[4])).episodes]


SELF = ("teacher", "self_crit", "shuffled_crit", "false_criticism", "self_crit_greedy")


def test_conditions_without_a_teacher(attach: Attach) -> None:
    """To the last attempt, whatever the verifier says; the first attempt is that of "teacher", noise and all."""
    options: dict[str, Any] = {"evaluation": SamplingSettings(max_tokens=2), "max_critique_tokens": 3}
    options |= {"dialogue": Dialogue(max_turns=3, accept_message="correct"), "num_validation_tasks": 10}
    module = attach(data(conditions=SELF, **options), function="validate")
    taught, own, shuffled, falsely, greedy = (next(iter(stream)) for stream in module.val_dataloader())
    for teacher, episode, other in zip(taught.episodes, own.episodes, shuffled.episodes, strict=True):
        assert {turn.party for turn in episode.turns + other.turns} == {"student"}
        assert [turn.info.get("critique", False) for turn in episode.turns] == [False, True, False, True, False]
        assert all(len(turn.completion_ids) <= 3 for turn in episode.turns)
        assert len(other.turns) == 3 and other.turns[0].text == episode.turns[0].text == teacher.turns[0].text
    assert own.rewards.shape == taught.rewards.shape  # critiques belong to the exchange of their attempt
    again = next(iter(attach(data(conditions=SELF, **options), function="validate").val_dataloader()[2]))
    assert [[t.text for t in e.turns] for e in again.episodes] == [[t.text for t in e.turns] for e in shuffled.episodes]
    for episode, teacher in zip(falsely.episodes, taught.episodes, strict=True):
        probed = [turn.info["held"] for turn in episode.turns if "held" in turn.info]
        assert len(probed) == any(turn.info.get("correct") for turn in episode.turns)
        assert teacher.task_id == episode.task_id
    assert len({tuple(t.text for t in e.turns) for e in greedy.episodes}) == 1  # one prompt, no noise


def test_shuffled_critiques_are_of_another_problem(attach: Attach) -> None:
    """What the student says of its own attempts there, each at its turn."""
    module = attach(data(conditions=("shuffled_crit",), dialogue=Dialogue(max_turns=3)), function="validate")
    asked: list[str] = []
    another = module._another
    module._another = lambda *args: asked.append(found.gold) or found if (found := another(*args)) else found  # type: ignore[func-returns-value]
    (batch,) = module.val_dataloader()[0]
    policy: Any = module.trainer.lightning_module.policy
    assert len(asked) == 5 and not any(gold == e.task_id for gold, e in zip(asked, batch.episodes, strict=True))
    places = [(module.tasks, int(e.task_id), e.index) for e in batch.episodes]
    critiques = module._critiques_elsewhere(places, "teacher", module.evaluation)
    for episode in batch.episodes:
        for said, turn in zip(critiques[episode.index], episode.turns[1:], strict=True):
            assert policy.tokenizer.decode(turn.prompt_ids).split("<user>")[1].split("<end>")[0].strip() == said


def test_a_base_as_critic_needs_adapters(attach: Attach, policy: Any) -> None:
    module = attach(data(conditions=("self_crit_base",)), function="validate")
    with pytest.raises(ValueError, match="'self_crit_base', which needs policy.adapters that can be off"):
        module.val_dataloader()
    with_adapter = Policy(
        PolicyConfig(path=policy.path, adapters={"student": LoRA(rank=2)}, prefill={"student": "ans "})
    )
    attach(module, function="validate", policy=with_adapter)
    (batch,) = module.val_dataloader()[0]
    assert [turn.party for turn in batch.episodes[0].turns] == ["student", "critic"] * 3 + ["student"]


def test_shuffled_teacher_has_another_answer_in_mind(attach: Attach) -> None:
    def tell(context: TeacherContext, key: int) -> str:
        golds.append(context.problem.gold)
        return "higher"

    golds: list[str] = []
    module = attach(data(teacher=tell, feedback="shuffled", tasks_per_batch=1, group_size=8))
    (batch,) = list(itertools.islice(module.train_dataloader(), 1))
    assert golds and batch.episodes[0].task_id not in golds


def test_leaking_dialogues_are_dropped_from_learning(attach: Attach) -> None:
    def tell(context: TeacherContext, key: int) -> str:
        return f"ans is {context.problem.gold}" if key % 2 else "higher"

    rules = {"teacher": tell, "tasks_per_batch": 8, "dialogue": Dialogue(max_turns=3, on_leak="drop")}
    batch = next(iter(attach(data(**rules)).train_dataloader()))
    leaked = {e.index for e in batch.episodes if any(t.info.get("leak") for t in e.turns)}
    assert 0 < len(leaked) < len(batch.episodes)
    assert batch.figures["train/leaking_dialogues"] == len(leaked)
    for row, index in enumerate(batch.episode_ids.tolist()):
        assert bool(batch.loss_mask[row].any()) == (index not in leaked)
        assert bool(batch.old_log_probs[row].any()) == (index not in leaked)
    flagged = next(iter(attach(data(**rules | {"dialogue": Dialogue(max_turns=3, on_leak="flag")})).train_dataloader()))
    assert bool(flagged.loss_mask.any(1).all())


def test_a_teacher_that_raises_stops_the_run_or_is_counted(attach: Attach) -> None:
    def tell(context: TeacherContext, key: int) -> str:
        if key % 3 == 0:
            raise RuntimeError("no words")
        return "higher"

    with pytest.raises(PartyError, match="'teacher' in episode .*no words"):
        next(iter(attach(data(teacher=tell)).train_dataloader()))
    with pytest.warns(UserWarning, match="dialogues of this batch were dropped; the first: .*no words"):
        batch = next(iter(attach(data(teacher=tell, on_error="drop")).train_dataloader()))
    assert batch.figures["train/dropped_episodes"] == 12 - len(batch.episodes) > 0


def test_a_batch_of_which_nothing_is_left_says_why(attach: Attach) -> None:
    def tell(context: TeacherContext, key: int) -> str:
        raise RuntimeError("no words")

    module = attach(data(teacher=tell, on_error="drop", tasks_per_batch=1, group_size=2))
    with pytest.raises(RuntimeError, match="All 2 dialogues of this batch were dropped; the first: .*no words"):
        next(iter(module.train_dataloader()))


def test_a_teacher_that_counts_its_requests_has_them_logged(attach: Attach) -> None:
    class Counting:
        def reply(self, calls: Sequence[Call]) -> list[Reply]:
            return [Reply(text="higher") for _ in calls]

        def figures(self) -> dict[str, float]:
            return {"calls": 7.0}

    batch = next(iter(attach(data(teacher=Counting())).train_dataloader()))
    assert batch.figures["time/teacher_calls"] == 7.0


def test_a_prompt_that_does_not_fit_is_named_before_anything_is_played(attach: Attach) -> None:
    class Long(NumberSearch):
        def __getitem__(self, index: int) -> Any:
            problem = super().__getitem__(index)
            return type(problem)(id=problem.id, domain="long", prompt="find " * 200, gold=problem.gold)

    with pytest.raises(ValueError, match=r"Task \d+: its prompt of 2\d\d tokens .* do not fit into 128 tokens"):
        next(iter(attach(data(tasks=Long(15))).train_dataloader()))


def test_ranks_play_what_one_process_plays(attach: Attach, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = next(iter(attach(data()).train_dataloader()))
    monkeypatch.setattr(online, "world_size", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(online, "rank", lambda rank=rank: rank)
        parts.append(next(iter(attach(data()).train_dataloader())))
    texts = [[turn.text for turn in e.turns] for part in parts for e in part.episodes]
    assert texts == [[turn.text for turn in e.turns] for e in whole.episodes]
    held_out = [e.task_id for rank in (0, 1) for e in _validated(attach, monkeypatch, rank)]
    assert sorted(held_out, key=int) == ["10", "11", "12", "13", "14"]
    with pytest.raises(ValueError, match="tasks_per_batch is 3, which 2 ranks cannot share evenly"):
        next(iter(attach(data(tasks_per_batch=3)).train_dataloader()))


def _validated(attach: Attach, monkeypatch: pytest.MonkeyPatch, rank: int) -> list[Any]:
    monkeypatch.setattr(online, "rank", lambda: rank)
    return [e for batch in attach(data()).val_dataloader()[0] for e in batch.episodes]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conditions": ["techer"]}, "data.conditions has 'techer'"),
        ({"num_validation_tasks": 15}, "none is left to train on"),
        ({"group_size": 0}, "data.group_size is 0"),
        ({"max_critique_tokens": 0}, "data.max_critique_tokens is 0"),
        ({"student": SamplingSettings(temperature=0.0)}, "temperature > 0"),
        ({"student": SamplingSettings(top_p=0.9)}, "top_p = 1"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DidacticDataModule(NumberSearch(15), HigherLower(), **({"num_validation_tasks": 5} | options))


def test_empty_tasks_are_refused() -> None:
    class Empty(NumberSearch):
        def __len__(self) -> int:
            return 0

    with pytest.raises(ValueError, match=r"data.tasks \(NumberSearch\) is empty"):
        DidacticDataModule(Empty(), HigherLower())


def test_stream_goes_on_where_it_stood() -> None:
    made: list[int] = []
    stream = RolloutStream(lambda number: made.append(number) or number, 4)  # type: ignore[func-returns-value, return-value]
    next(iterator := iter(stream))
    next(iterator)
    state = stream.state_dict()
    resumed = RolloutStream(lambda number: made.append(number) or number, 4)  # type: ignore[func-returns-value, return-value]
    resumed.load_state_dict(state)
    assert list(resumed) == [2, 3]  # type: ignore[comparison-overlap]
    assert list(resumed) == [4, 5, 6, 7]  # type: ignore[comparison-overlap]
    with pytest.raises(ValueError, match="num_batches is 0"):
        RolloutStream(lambda number: None, 0)  # type: ignore[return-value]
