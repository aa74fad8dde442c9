import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_rl.datamodules import DemonstrationDataModule, RightAnswers, StoredDialogues
from lit_rl.environments import HigherLower, NumberSearch
from lit_rl.environments.teacher_words import RETRY
from lit_rl.episodes import Rollouts
from lit_rl.policy import Policy

Attach = Callable[..., DemonstrationDataModule]


def targets(batch: Rollouts, policy: Policy) -> list[str]:
    assert batch.target_mask is not None
    return [
        policy.tokenizer.decode(ids[mask].tolist())
        for ids, mask in zip(batch.input_ids, batch.target_mask, strict=True)
    ]


def test_right_answers_are_the_targets(attach: Attach, policy: Policy) -> None:
    data = attach(DemonstrationDataModule(RightAnswers(NumberSearch(15)), batch_size=5, num_validation=5))
    batches = list(data.train_dataloader())
    assert len(batches) == 2
    said = sorted(int(text.split()[0]) for batch in batches for text in targets(batch, policy))
    assert said == list(range(10))  # one pass over what is not held out; the prefill is no target
    (stream,) = data.val_dataloader()
    for _ in range(2):
        assert sorted(int(t.split()[0]) for b in stream for t in targets(b, policy)) == list(range(10, 15))


def test_a_problem_may_be_shown_several_times() -> None:
    source = RightAnswers(NumberSearch(15), wrong_attempts=3, repeats=20)
    shown = [source[index] for index in range(len(source)) if source[index].id == "7"]
    assert len(source) == 300 and len(shown) == 20
    assert len({demonstration.messages for demonstration in shown}) > 10
    assert {demonstration.messages[-1].content for demonstration in shown} == {"ans 7"}


def test_wrong_attempts_come_first_and_are_not_learned(attach: Attach, policy: Policy) -> None:
    source = RightAnswers(NumberSearch(15), wrong_attempts=2)
    counts = {sum(message.role == "assistant" for message in source[i].messages) for i in range(15)}
    assert counts == {1, 2, 3}
    for i in range(15):
        *before, last = [m.content for m in source[i].messages if m.role == "assistant"]
        assert last == f"ans {i}" and last not in before
    assert {m.content for i in range(15) for m in source[i].messages[1:] if m.role == "user"} == {RETRY}
    data = attach(DemonstrationDataModule(source, batch_size=15, train_turns="final"))
    (batch,) = list(data.train_dataloader())
    assert sorted(targets(batch, policy)) == sorted(f"{i} <end>" for i in range(15))
    everything = attach(DemonstrationDataModule(source, batch_size=15))
    (whole,) = list(everything.train_dataloader())
    assert whole.target_mask is not None and batch.target_mask is not None
    assert int(whole.target_mask.sum()) > int(batch.target_mask.sum())
    assert torch.equal(whole.input_ids, batch.input_ids)


def test_what_follows_a_wrong_attempt() -> None:
    def heard(source: RightAnswers) -> list[tuple[int, int, str]]:
        """(right answer, wrong attempt, what followed it) of all dialogues."""
        return [
            (i, int(said.content.split()[1]), reply.content)
            for i in range(15)
            for said, reply in itertools.pairwise(source[i].messages)
            if said.role == "assistant"
        ]

    drawn = RightAnswers(NumberSearch(15), wrong_attempts=3, feedback=["higher", "lower"])
    words = [word for _, _, word in heard(drawn)]
    assert set(words) == {"higher", "lower"} and words == [word for _, _, word in heard(drawn)]
    taught = heard(RightAnswers(NumberSearch(15), wrong_attempts=3, feedback=HigherLower()))
    assert len(taught) > 10
    assert all((word == "higher") == (right > wrong) for right, wrong, word in taught)


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_stored_dialogues(attach: Attach, policy: Policy, tmp_path: Path) -> None:
    dialogue = [
        {"role": "user", "content": "find n"},
        {"role": "assistant", "content": "ans 3"},
        {"role": "user", "content": "higher"},
        {"role": "assistant", "content": "ans 4"},
    ]
    path = write(tmp_path / "dialogues.jsonl", [{"messages": dialogue}] * 2)
    data = attach(DemonstrationDataModule(StoredDialogues(path), batch_size=2))
    (batch,) = list(data.train_dataloader())
    assert targets(batch, policy) == ["3 <end> 4 <end>"] * 2
    assert batch.turn_ids[0][batch.target_mask[0]].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"messages": [{"role": "user"}]}], r"dialogues.jsonl, row 1: a message is not"),
        ([{"messages": [{"role": "user", "content": "find"}]}], r"row 1: no message has the role 'assistant'"),
        ([{"text": "a"}], r"dialogues.jsonl.*row 1.*messages"),
        ([], r"dialogues.jsonl.*empty|no rows"),
    ],
)
def test_bad_rows_name_file_and_row(rows: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        StoredDialogues(write(tmp_path / "dialogues.jsonl", rows))[0]


def test_options_are_checked(attach: Attach) -> None:
    with pytest.raises(ValueError, match="must contain {answer}"):
        RightAnswers(NumberSearch(15), "ans")
    with pytest.raises(ValueError, match="feedback is 'no'; give a list"):
        RightAnswers(NumberSearch(15), feedback="no")
    with pytest.raises(ValueError, match="repeats is 0"):
        RightAnswers(NumberSearch(15), repeats=0)
    with pytest.raises(ValueError, match="wrong_attempts is -1"):
        RightAnswers(NumberSearch(15), wrong_attempts=-1)
    with pytest.raises(ValueError, match="less than one batch of 64"):
        DemonstrationDataModule(RightAnswers(NumberSearch(15)))
    long = DemonstrationDataModule(RightAnswers(NumberSearch(15), "ans {answer}" + " is" * 200), batch_size=1)
    with pytest.raises(ValueError, match=r"Demonstration \d+ has 2\d\d tokens; the policy's rows hold 128"):
        next(iter(attach(long).train_dataloader()))
