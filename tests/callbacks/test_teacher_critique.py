"""The teacher's words as targets, also for a module that knows nothing of lit-rl."""

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lit_rl.callbacks import TeacherCritiquePrediction
from lit_rl.callbacks.teacher_critique import critique_weights
from lit_rl.datamodules import RolloutStream
from lit_rl.episodes import Episode, Heard, Rollouts, Turn

FILTERS = ("all", "solved", "next_correct")


def student(exchange: int, said: list[int], prompt: list[int], correct: bool = False, **more: Any) -> Turn:
    """After the problem, or after ``<t> w w <e> <s>`` with two words of the teacher."""
    heard = (Heard("teacher", exchange - 1, 1, 4),) if exchange else ()
    return Turn(
        party="student", exchange=exchange, text="", prompt_ids=prompt, completion_ids=said, heard=heard,
        log_probs=[-1.0] * len(said), info={"correct": correct}, **{"new_row": not exchange} | more,
    )  # fmt: skip


def dialogue(solved_at: int | None, turns: int = 3, index: int = 0, accept: bool = False, **teacher: Any) -> Episode:
    """Header 2 of the teacher, 3 of the student, 4 ends a turn; ``teacher`` is the info of the teacher's turns."""
    taken: list[Turn] = []
    for t in range(turns if solved_at is None else solved_at + 1):
        prompt = [2, 33 + t, 31, 4, 3] if t else [1, 2, 10, 11, 12, 4, 3]
        taken.append(student(t, [20 + t, 4], prompt, correct=t == solved_at))
        if t != solved_at and t + 1 < turns:
            taken.append(Turn(party="teacher", exchange=t, text="", info=dict(teacher)))
    if accept and solved_at is not None:
        heard = (Heard("teacher", solved_at, 1, 3),)
        taken.append(
            Turn(party="student", exchange=solved_at, text="", prompt_ids=[2, 40, 4], heard=heard,
                 stop_reason="epilogue")
        )  # fmt: skip
    return Episode(index=index, task_id="t", group=0, seed=0, turns=taken, terminated=solved_at is not None)


def rows(*episodes: Episode, **options: Any) -> Rollouts:
    return Rollouts.from_episodes(
        episodes, trained=["student"], parties=["student", "teacher"], **{"min_exchanges": 3} | options
    )


def marked(batch: Any, **options: Any) -> Any:
    callback: Any = TeacherCritiquePrediction(**options)
    callback.on_train_batch_start(None, None, batch, 0)
    return batch


def messages(batch: Any) -> list[list[int]]:
    """Exchanges whose message has weight, for each row."""
    return [
        sorted(set(batch.turn_ids[b][batch.target_weights[b] > 0].tolist())) for b in range(batch.input_ids.shape[0])
    ]


# -- masks -------------------------------------------------------------------------------------------------------------


def test_masks_of_the_golden_row() -> None:
    """rl2f.md 15.4: feedback and its end of turn, then, with acceptance, positions 18 and 19."""
    turns = [
        student(0, [20, 4], [1, 2, 10, 11, 12, 4, 3]),
        Turn(party="teacher", exchange=0, text=""),
        student(1, [21, 22, 4], [2, 30, 31, 4, 3], correct=True),
    ]
    plain = marked(rows(Episode(index=0, task_id="t", group=0, seed=0, turns=list(turns))))
    assert plain.input_ids[0].tolist() == [1, 2, 10, 11, 12, 4, 3, 20, 4, 2, 30, 31, 4, 3, 21, 22, 4]
    assert plain.target_mask[0].nonzero().flatten().tolist() == [10, 11, 12]
    accepted = Turn(
        party="student", exchange=1, text="", prompt_ids=[2, 40, 4], heard=(Heard("teacher", 1, 1, 3),),
        stop_reason="epilogue",
    )  # fmt: skip
    batch = marked(rows(Episode(index=0, task_id="t", group=0, seed=0, turns=[*turns, accepted])))
    assert batch.input_ids[0, 17:].tolist() == [2, 40, 4]
    assert batch.target_mask[0].nonzero().flatten().tolist() == [10, 11, 12, 18, 19]
    assert batch.target_weights[0].nonzero().flatten().tolist() == [10, 11, 12, 18, 19]
    assert batch.turn_ids[0, 18:].tolist() == [1, 1]
    assert torch.equal(batch.loss_mask[0, :17], plain.loss_mask[0]) and not batch.loss_mask[0, 17:].any()
    assert torch.equal(batch.rewards, plain.rewards)


def test_nothing_else_of_the_batch_changes() -> None:
    before, after = rows(dialogue(1), dialogue(None, index=1)), marked(rows(dialogue(1), dialogue(None, index=1)))
    for name in ("input_ids", "loss_mask", "turn_ids", "party_ids", "old_log_probs", "rewards"):
        assert torch.equal(getattr(before, name), getattr(after, name))
    assert after.advantages is None
    # Problem and headers (rl2f.md 16.4), and what was sampled, are no targets.
    assert not (after.target_mask & (after.loss_mask | (after.party_ids != 1))).any()
    assert (after.input_ids[after.target_mask] == 4).sum() == 1 + 2  # the end of each message


@given(st.lists(st.sampled_from([None, 0, 1, 2]), min_size=1, max_size=5))
def test_one_message_less_than_turns(solved_at: list[int | None]) -> None:
    """rl2f.md 16.7: no feedback after a correct or a final attempt."""
    batch = marked(rows(*(dialogue(at, index=i) for i, at in enumerate(solved_at))))
    for found, episode in zip(messages(batch), batch.episodes, strict=True):
        assert found == list(range(len(episode.turns_of("student")) - 1))


def test_one_turn_has_no_targets() -> None:
    """rl2f.md 16.13."""
    batch = marked(rows(dialogue(0), dialogue(None, turns=1, index=1), min_exchanges=1))
    assert not batch.target_mask.any() and not batch.target_weights.any()


# -- weights -----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(-1, 3), min_size=1, max_size=6),
    st.integers(0, 2**24 - 1),
)
def test_filters_are_nested(solved_at: list[int], leaks: int) -> None:
    """rl2f.md 16.6."""
    leaked = torch.tensor([[bool(leaks >> (4 * e + n) & 1) for n in range(4)] for e in range(len(solved_at))])
    every, solved, right = (critique_weights(torch.tensor(solved_at), leaked, name) for name in FILTERS)
    assert (right <= solved).all() and (solved <= every).all()
    assert not every[leaked].any() and every[~leaked].all()
    assert not solved[torch.tensor(solved_at) < 0].any()


def test_what_each_filter_keeps() -> None:
    def kept(name: str, **options: Any) -> list[list[int]]:
        episodes = [dialogue(2, index=0, **options), dialogue(1, index=1, **options), dialogue(None, index=2)]
        return messages(marked(rows(*episodes), critique_filter=name))

    assert kept("all") == [[0, 1], [0], [0, 1]]
    assert kept("solved") == [[0, 1], [0], []]
    assert kept("next_correct") == [[1], [0], []]
    # The message that follows the solving turn says that it is right, and is learned always.
    assert kept("all", accept=True) == [[0, 1, 2], [0, 1], [0, 1]]
    assert kept("next_correct", accept=True) == [[1, 2], [0, 1], []]


def test_leaks_that_were_heard_are_no_targets() -> None:
    leaky = dialogue(2, index=0, leak=True, heard=True)
    redrawn = dialogue(2, index=1, leak=True, heard=False)  # the student heard something else
    dropped = dialogue(2, index=2, leak=False, heard=True, drop=True)
    for name in FILTERS[:2]:
        assert messages(marked(rows(leaky, redrawn, dropped), critique_filter=name)) == [[], [0, 1], []]


def test_a_message_that_several_rows_repeat_counts_once() -> None:
    """A template that renders every prompt anew gives each turn a row with all that was heard before."""
    third = [1, 2, 10, 4, 3, 20, 4, 2, 30, 31, 4, 3, 21, 4, 2, 32, 31, 4, 3]
    turns = [
        student(0, [20, 4], [1, 2, 10, 4, 3]),
        Turn(party="student", exchange=1, text="", prompt_ids=third[:12], completion_ids=[21, 4], log_probs=[-1.0] * 2,
             heard=(Heard("teacher", 0, 8, 11),), new_row=True),
        Turn(party="student", exchange=2, text="", prompt_ids=third, completion_ids=[22, 4], log_probs=[-1.0] * 2,
             heard=(Heard("teacher", 0, 8, 11), Heard("teacher", 1, 15, 18)), new_row=True),
    ]  # fmt: skip
    batch = marked(rows(Episode(index=0, task_id="t", group=0, seed=0, turns=turns)))
    assert messages(batch) == [[], [0], [1]]


def test_rows_of_a_teacher_that_is_trained_hold_no_targets() -> None:
    turns = [
        student(0, [20, 4], [1, 2, 10, 4, 3]),
        Turn(party="teacher", exchange=0, text="", prompt_ids=[1, 20, 4], completion_ids=[30, 31, 4],
             log_probs=[-1.0] * 3, new_row=True),
        student(1, [21, 4], [2, 30, 31, 4, 3]),
    ]  # fmt: skip
    both = Rollouts.from_episodes(
        [Episode(index=0, task_id="t", group=0, seed=0, turns=turns)],
        trained=["student", "teacher"],
        parties=["student", "teacher"],
    )
    assert messages(marked(both)) == [[0], []]


# -- somebody else's project -------------------------------------------------------------------------------------------


class Foreign(L.LightningModule):
    """Predicts targets from the token before; automatic optimization, a loss of its own."""

    def __init__(self, batches: Sequence[Any]):
        super().__init__()
        self.table = nn.Embedding(50, 50)
        nn.init.zeros_(self.table.weight)
        self.batches = batches
        self.losses: list[float] = []

    def _loss(self, batch: Any) -> torch.Tensor:
        logits, ids = self.table(batch.input_ids[:, :-1]), batch.input_ids[:, 1:]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view(ids.shape)
        weights = batch.target_weights[:, 1:] * batch.target_mask[:, 1:]
        return (loss * weights).sum() / weights.sum().clamp(min=1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = self._loss(batch)
        self.losses.append(float(loss))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/critique_loss", self._loss(batch), batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.3)

    def train_dataloader(self) -> Any:
        return RolloutStream(self.batches.__getitem__, len(self.batches))

    def val_dataloader(self) -> Any:
        return RolloutStream(lambda number: rows(dialogue(1)), 1)


def test_a_foreign_module_learns_to_predict_the_teacher() -> None:
    module = Foreign([rows(dialogue(None, index=i)) for i in range(60)])
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[TeacherCritiquePrediction()],
    )  # fmt: skip
    trainer.fit(module)
    assert module.losses[0] == pytest.approx(math.log(50), abs=1e-5)
    assert module.losses[-1] < 0.3  # "31 4" is sure, and which of two words comes first is not: ln 2 / 3
    assert float(trainer.callback_metrics["val/critique_loss"]) < 0.4
    # Nothing but the tokens before a target was moved (rl2f.md 16.3).
    moved = set(module.table.weight.detach().abs().sum(1).nonzero().flatten().tolist())
    assert moved == {2, 34, 35, 31}


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_wrong_options_and_batches() -> None:
    with pytest.raises(ValueError, match="critique_filter is 'no_leak'; use one of .*Leaks are left out by each"):
        TeacherCritiquePrediction("no_leak")
    with pytest.raises(ValueError, match=r"there is no party 'tutor' in the batch, only \['student', 'teacher'\]"):
        marked(rows(dialogue(1)), teacher="tutor")
    with pytest.raises(ValueError, match="needs batches of rollouts; this one is a Tensor"):
        marked(torch.zeros(2))


def test_a_rank_without_rows_has_no_targets() -> None:
    batch = marked(rows(dialogue(1)).without_rows())
    assert batch.target_mask.shape == batch.target_weights.shape == batch.loss_mask.shape and len(batch) == 0
