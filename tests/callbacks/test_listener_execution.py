"""Listeners' agreement as a part of the reward, in our batches and in a project that is not ours."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import lightning as L
import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor
from torch.utils.data import DataLoader

from lit_rl.callbacks.listener_execution import ListenerExecution
from lit_rl.episodes import Episode, Rollouts, Turn
from lit_rl.listeners import ListenerPool, LocalListener, PartyListener, PolicyListener
from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.remote import RemoteParty
from lit_rl.sampling import SamplingSettings
from lit_rl.tiny import TinyModel
from tests.listeners.worlds import (
    LABELS,
    Recording,
    lines,
    matrix_listeners,
    matrix_replies,
    reply,
    rollouts_of,
    said,
)

WORDS = [*"ABCDEF", "Who", "is", "it", "in", "?", "Answer", ":", "<think>", "</think>", "\n", "r"]
TINY = TinyModel(
    words=[*WORDS, *(f"step{n}" for n in range(1, 9))], numbers=4, hidden_size=16, layers=1, heads=2, max_length=96
)


def matrix_callback(**options: Any) -> ListenerExecution:
    return ListenerExecution(ListenerPool(listeners=[*matrix_listeners()]), **options)


def start(callback: Any, batch: Any, module: Any = None) -> Any:
    callback.on_train_batch_start(None, module, batch, 0)
    return batch


# -- batches of rollouts -----------------------------------------------------------------------------------------------


def test_the_part_of_the_match_matrix() -> None:
    """remul.md 11.1, and what else the callback writes: figures."""
    batch = rollouts_of({0: matrix_replies()})
    rewards = batch.rewards.clone()
    start(matrix_callback(), batch)
    part = batch.reward_parts["listener_match"]
    assert part.dtype == torch.float32 and part.tolist() == [[7], [3], [8], [1], [0]]
    assert torch.equal(batch.rewards, rewards) and batch.advantages is None and batch.target_mask is None
    assert batch.figures["train/listener_match"] == pytest.approx(19 / 45)
    assert batch.figures["train/listener_match/listener2/0.5"] == pytest.approx(2 / 5)
    assert batch.figures["time/listening_seconds"] > 0
    batch.validate()


def test_the_gold_answer_changes_nothing() -> None:
    """Property 7."""
    parts = [
        start(matrix_callback(), rollouts_of({0: matrix_replies()}, gold=gold)).reward_parts["listener_match"]
        for gold in "BC"
    ]
    assert torch.equal(*parts)


def test_options_change_what_is_paid() -> None:
    """A mean, other fractions, no empty prefix; a penalty on the beginnings that leak."""
    replies = {0: matrix_replies()}
    mean = start(matrix_callback(reward_scale="mean"), rollouts_of(replies)).reward_parts["listener_match"]
    torch.testing.assert_close(mean, torch.tensor([[7.0], [3], [8], [1], [0]]) / 9)
    batch = start(matrix_callback(fractions=(0.75,), empty_prefix=False), rollouts_of(replies))
    assert batch.reward_parts["listener_match"].tolist() == [[3], [2], [3], [1], [0]]
    assert not any("empty_prefix" in name or "lift" in name for name in batch.figures)
    leaking = {0: [reply("Answer: B\n" + lines("r", 3), "B")]}
    pool = ListenerPool(listeners=[Recording()])
    for policy, reward in ((None, 3), ("mask", 0), ("penalise", -3)):
        batch = start(ListenerExecution(pool, leak_policy=policy, leak_penalty=2.0), rollouts_of(leaking))
        assert batch.reward_parts["listener_match"].tolist() == [[reward]]


def test_rows_of_others_and_other_exchanges_get_nothing() -> None:
    """Two rows of the speaker (one per turn) repeat both turns' parts, those of its partner are zero."""

    def turn(party: str, exchange: int, text: str) -> Turn:
        facts = {"prompt": "Who?", "labels": list(LABELS)} if party == "speaker" else {}
        return Turn(party=party, exchange=exchange, text=text, prompt_ids=[1], completion_ids=[2], log_probs=[-1.0],
                    new_row=True, info=facts)  # fmt: skip

    turns = [turn("speaker", 0, reply(lines("r"), "B")), turn("helper", 0, "hm"), turn("speaker", 1, "nothing")]
    turns += [turn("helper", 1, "hm"), turn("speaker", 2, reply(lines("r"), "B"))]
    episode = Episode(index=7, task_id="t", group=0, seed=0, turns=turns)
    batch = Rollouts.from_episodes([episode], trained=["speaker", "helper"], parties=["helper", "speaker"])
    start(ListenerExecution(ListenerPool(listeners=[Recording()])), batch)
    owner = batch.party_ids.amax(1).tolist()
    part = batch.reward_parts["listener_match"]
    assert sorted(owner) == [0, 0, 1, 1, 1] and part.shape == batch.rewards.shape
    for row, party in enumerate(owner):
        assert part[row].tolist() == ([3, 0, 3] if party == 1 else [0, 0, 0])


def test_a_batch_may_be_split_in_any_way() -> None:
    """Property 11, on the batch: noise is that of the run, the rollout, the listener and the fraction."""

    def noisy(request: Any) -> str:
        return said(LABELS[request.key % 3])

    def part(*groups: int, seed: int = 0) -> list[float]:
        batch = rollouts_of({group: [reply(lines("r"), a) for a in "ABC"] for group in groups})
        callback = ListenerExecution(
            ListenerPool(listeners=[Recording("a", noisy), Recording("b", noisy)], mode="random_one"), seed=seed
        )
        return start(callback, batch).reward_parts["listener_match"].flatten().tolist()

    assert part(0, 1, 2) == [*part(0), *part(1), *part(2)]
    assert part(2, 0) == [*part(2), *part(0)]
    assert part(0, 1, 2, seed=1) != part(0, 1, 2)


def test_the_seed_of_the_run_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Recording()
    callback = ListenerExecution(ListenerPool(listeners=[listener]))
    keys = []
    for seed in ("3", "3", "4"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        listener.heard.clear()
        start(callback, rollouts_of({0: [reply(lines("r"), "B")]}))
        keys.append([request.key for request in listener.heard])
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(2), "needs batches of rollouts or a dictionary with .* this one is a Tensor"),
        ({"questions": [], "completions": []}, "the batch has no 'labels'"),
        ({"questions": ["q"], "completions": ["c"], "labels": []}, "1 'completions', but 0 'labels'"),
        (rollouts_of({0: ["x"]}, prompt="q"), "no party 'walker' in the batch"),
    ],
)
def test_batches_without_what_is_needed_are_refused(batch: Any, message: str) -> None:
    callback = ListenerExecution(ListenerPool(listeners=[Recording()]), speaker="walker")
    with pytest.raises(ValueError, match=message):
        start(callback, batch)


def test_tasks_without_labels_are_refused() -> None:
    batch = rollouts_of({0: ["x"]})
    turns = batch.episodes[0].turns
    turns[0] = replace(turns[0], info={"prompt": "Who?"})
    with pytest.raises(ValueError, match=r"episode 0 \(task task 0\) has no 'labels' in its info; use tasks whose"):
        start(matrix_callback(), batch)


# -- real models -------------------------------------------------------------------------------------------------------


class Rewarded(L.LightningModule):
    """A foreign module with a policy of ours: pushes up what listeners agree with."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = Policy(PolicyConfig(tiny=TINY, adapters={"speaker": LoRA(rank=2), "friend": LoRA(rank=2)}))

    def training_step(self, batch: Rollouts, batch_idx: int) -> Tensor:
        with self.policy.acting_as("speaker"):
            log_probs, _ = self.policy.log_probs(batch.input_ids, batch.loss_mask)
        return -(log_probs.sum(1) * (1 + batch.reward_parts["listener_match"].sum(1))).sum()

    def validation_step(self, batch: Rollouts, batch_idx: int) -> None:
        assert "listener_match" in batch.reward_parts

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.policy.parameter_groups()["speaker"], lr=0.5)


class Batches:
    def __init__(self, label: str = "train"):
        self.label = label

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Rollouts]:
        for first in (0, 2):
            replies = [reply(" \n ".join(f"r step{n}" for n in range(1, 5)), a) for a in "AB"]
            yield rollouts_of({first: replies, first + 1: replies}, label=self.label)


def test_models_listen_while_another_is_trained(tmp_path: Any) -> None:
    """Property 6: two local models, the base and an adapter listen; none of their parameters changes by training."""
    settings = SamplingSettings(max_tokens=12)
    other = replace(TINY, seed=1)
    local = LocalListener("local", PolicyConfig(tiny=other), settings=settings)
    listeners = [
        local,
        PolicyListener("base", settings=settings),
        PolicyListener("friend", "friend", settings=settings),
    ]
    far = LocalListener("far", PolicyConfig(tiny=TINY, max_length=16), settings=settings, prompt_mode="raw")
    callback = ListenerExecution(ListenerPool(listeners=[*listeners], held_out=[far]), empty_prefix=True)
    module = Rewarded()
    before = {name: value.clone() for name, value in module.policy.state_dict().items()}
    trainer = L.Trainer(
        default_root_dir=tmp_path, callbacks=[callback], max_epochs=1, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=1,
    )  # fmt: skip
    trainer.fit(module, Batches(), Batches("answers"))
    changed = {n for n, v in module.policy.state_dict().items() if not torch.equal(v, before[n])}
    assert changed and all("speaker" in name for name in changed)
    fresh = Policy(PolicyConfig(tiny=other))
    assert local._policy is not None
    assert all(torch.equal(v, local._policy.state_dict()[n]) for n, v in fresh.state_dict().items())
    assert all(p.grad is None for p in local._policy.parameters())
    assert not any("local" in name for name, _ in module.named_parameters())
    metrics = trainer.callback_metrics
    names = {"local", "base", "friend", "far"}
    assert {f"val/answers/listener_match/{name}/0.5" for name in names} <= set(metrics)
    assert {f"val/answers/none_share/{name}" for name in names} <= set(metrics)
    # Question 6, tags and breaks 3, 3 a line: the longest beginning needs 18 of 16 tokens.
    assert float(metrics["val/answers/no_room_share/far"]) == pytest.approx(1 / 3)
    assert "val/answers/held_out_match" in metrics and "val/answers/prefix_lift/local" in metrics
    assert float(metrics["val/answers/trace_lines"]) == 4


# -- somebody else's project -------------------------------------------------------------------------------------------


class Foreign(L.LightningModule):
    """Knows nothing of lit-rl: batches are dictionaries of lists, and automatic optimization."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.rewards: list[list[float]] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        rewards = batch["reward_parts"]["listener_match"]
        self.rewards.append(rewards.flatten().tolist())
        return -(self.weight * rewards.sum())

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.rewards.append(batch["reward_parts"]["listener_match"].flatten().tolist())

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> DataLoader[Any]:
        rows = [("Who is it?", text, "ABCDEF") for text in matrix_replies()]
        return DataLoader(rows, batch_size=3, collate_fn=collate)

    val_dataloader = test_dataloader = train_dataloader


def collate(rows: list[tuple[str, str, str]]) -> dict[str, Any]:
    questions, completions, labels = (list(column) for column in zip(*rows, strict=True))
    return {
        "questions": questions,
        "completions": completions,
        "labels": labels,
        "group_ids": torch.tensor([0] * len(rows)),
    }


def test_a_module_that_knows_nothing_of_lit_rl(tmp_path: Any) -> None:
    module = Foreign()
    trainer = L.Trainer(
        default_root_dir=tmp_path, callbacks=[matrix_callback()], max_epochs=1, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module)
    assert module.rewards == [[7, 3, 8], [1, 0]] * 2  # training, then validation
    assert module.weight.item() == pytest.approx(0.1 * 19)
    metrics = trainer.callback_metrics
    assert float(metrics["val/listener_match"]) == pytest.approx(19 / 45)
    assert float(metrics["val/listener_match/listener1/0.25"]) == pytest.approx(2 / 5)
    assert float(metrics["train/listener_match"]) == pytest.approx(1 / 18)  # of the last batch
    trainer.test(module, verbose=False)
    assert float(trainer.callback_metrics["test/none_share/speaker"]) == pytest.approx(1 / 5)


def test_aliases_and_options_of_a_dictionary() -> None:
    module = Foreign()
    module.log = lambda *_, **__: None
    batch = {
        "questions": ["q", "q"],
        "completions": ["<think>\n" + lines("r") + "\n</think>\nNo", "<think>\n" + lines("r") + "\n</think>\nblue"],
        "labels": [["A", "B"]] * 2,
        "aliases": [{"yes": "A", "no": "B"}, {}],
        "options": [{}, {"A": "red", "B": "Blue"}],
    }
    start(ListenerExecution(ListenerPool(listeners=[Recording()])), batch, module)
    assert batch["reward_parts"]["listener_match"].tolist() == [[3], [3]]


# -- configs -----------------------------------------------------------------------------------------------------------

CONFIG = """
class_path: lit_rl.callbacks.listener_execution.ListenerExecution
init_args:
  pool:
    mode: all
    listeners:
    - class_path: lit_rl.listeners.LocalListener
      init_args:
        name: qwen
        policy: {path: Qwen/Qwen3-0.6B, dtype: bfloat16}
        settings: {temperature: 1.1, top_p: 0.9, repetition_penalty: 1.1, max_tokens: 64}
    - class_path: lit_rl.listeners.LocalListener
      init_args:
        name: tiny
        prompt_mode: raw
        policy:
          tiny: {words: [a, b], numbers: 3}
        tags: {open: "[T]", close: "[/T]"}
    - class_path: lit_rl.listeners.PolicyListener
      init_args: {name: base}
    held_out:
    - class_path: lit_rl.listeners.PartyListener
      init_args:
        name: hosted
        on_error: drop
        party:
          class_path: lit_rl.remote.RemoteParty
          init_args: {model: m, base_url: "http://localhost:1/v1", api_key_variable: null}
    - class_path: lit_rl.listeners.ScriptedListener
      init_args: {name: script, script: tests.listeners.worlds.said}
    fractions: {qwen: [0.5]}
  fractions: [0.25, 0.75]
  leak_policy: mask
"""


def parsed(text: str) -> Any:
    import yaml

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--callback", type=L.Callback)
    config = parser.parse_object({"callback": yaml.safe_load(text)})
    return parser.instantiate_classes(config).callback


def test_a_config_builds_the_whole_pool_and_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_model(*_: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Policy, "__init__", no_model)
    callback = parsed(CONFIG)
    assert isinstance(callback, ListenerExecution)
    names = [type(listener).__name__ for listener in callback.pool.everybody]
    assert names == ["LocalListener", "LocalListener", "PolicyListener", "PartyListener", "ScriptedListener"]
    qwen, tiny, _, hosted, _ = callback.pool.everybody
    assert isinstance(qwen, LocalListener) and isinstance(tiny, LocalListener) and isinstance(hosted, PartyListener)
    assert (
        qwen.settings.repetition_penalty == 1.1 and tiny.tags.close == "[/T]" and isinstance(hosted.party, RemoteParty)
    )
    assert callback.pool.fractions == {"qwen": [0.5]} and callback.rules.fractions == (0.25, 0.75)


@pytest.mark.parametrize(
    ("old", "new"),
    [("mode: all", "mode: some"), ("name: tiny", "name: qwen"), ("leak_policy: mask", "leak_policy: forbid")],
)
def test_a_wrong_config_fails_before_anything_is_loaded(old: str, new: str) -> None:
    with pytest.raises(Exception, match=f"{new.split(': ')[1]}"):
        parsed(CONFIG.replace(old, new))
