import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_rl.episodes import Episode, Rollouts, Turn
from lit_rl.reporting.dialogue import ShownCredit, ShownDialogue, opening_of, outcome, shown_dialogue
from lit_rl.reporting.dialogues import as_plain, ends_then_middles, read_dialogues
from lit_rl.reporting.episode_log import MAGIC, LoggedTurn, batch_record, read_episodes
from tests.reporting.made_up_run import ID, WordLevel, make_run


def spoken(party: str, exchange: int, words: str, heard: str = "", log_prob: float = -1.0, **options: object) -> Turn:
    ids = [ID[word] for word in words.split()]
    said = words.removesuffix(" <end>")
    return Turn(party=party, exchange=exchange, text=said, prompt_ids=[ID[w] for w in heard.split()],
                completion_ids=ids, log_probs=[log_prob - k for k in range(len(ids))], **options)  # fmt: skip


def told(party: str, exchange: int, words: str) -> Turn:
    return Turn(party=party, exchange=exchange, text=words)


def logged(
    turns: Sequence[Turn], path: Path, trained: Sequence[str] = ("student",), **options: object
) -> ShownDialogue:
    """One dialogue through the log; each token's advantage is its place in its row."""
    episode = Episode(index=0, task_id="9", group=0, seed=0, turns=list(turns), **{"stop_reason": "solved", **options})
    batch = Rollouts.from_episodes([episode], trained=trained, parties=["student", "teacher"], policy_version=3)
    batch.advantages = torch.arange(batch.input_ids.shape[1]).float().expand(len(batch), -1) * batch.loss_mask
    path.write_bytes(MAGIC + batch_record(batch, batch_number=0, step=0, sample_size=9, tokenizer=WordLevel()))
    return shown_dialogue(next(read_episodes(path)))


def test_every_sampled_token_gets_its_own_numbers(tmp_path: Path) -> None:
    shown = logged(
        [
            spoken("student", 0, "ans 7 <end>", "<user> find n <end> <assistant>",
                   info={"correct": False, "answer": "7"}),
            told("teacher", 0, "higher"),
            spoken("student", 1, "ans 9 <end>", "<user> higher <end> <assistant>", -4.0, reward=1.0,
                   info={"correct": True, "answer": "9", "kind": "answer"}),
        ],
        tmp_path / "log",
    )  # fmt: skip
    first, teacher, second = shown.turns
    assert first.tokens == ["ans", " 7", " <end>"] and first.heard == "find n" and first.text == ""
    assert first.log_probs == [-1.0, -2.0, -3.0] and second.log_probs == [-4.0, -5.0, -6.0]
    assert first.advantages == [5.0, 6.0, 7.0]  # after five tokens heard
    assert second.advantages == [12.0, 13.0, 14.0]  # after the three above and four heard
    assert (teacher.text, teacher.tokens, second.heard) == ("higher", None, "")  # the teacher's turn shows it
    assert (first.verdict, first.remark, second.verdict) == ("wrong", "", "right")  # one sees the 7
    assert (shown.outcome, shown.solved, shown.reward, shown.task) == ("solved in turn 2", True, 1.0, "9")


def test_a_turn_with_a_row_of_its_own_finds_its_tokens(tmp_path: Path) -> None:
    shown = logged(
        [
            spoken("student", 0, "ans 7 <end>", "<user> find n <end>", new_row=True),
            spoken("student", 1, "ans 8 <end>", "<user> find n <end>", -5.0, new_row=True),
        ],
        tmp_path / "log",
    )
    assert shown.turns[1].log_probs == [-5.0, -6.0, -7.0] and shown.turns[1].advantages == [4.0, 5.0, 6.0]
    assert shown.turns[1].heard == "find n"  # nobody said it, so the turn says what was heard
    assert shown.solved is None


def test_two_trained_parties_of_one_exchange(tmp_path: Path) -> None:
    turns = [spoken("student", 0, "ans 7", "find n"), spoken("teacher", 0, "higher", "ans 7", -0.5)]
    shown = logged(turns, tmp_path / "log", trained=["student", "teacher"])
    assert shown.turns[0].log_probs == [-1.0, -2.0] and shown.turns[1].log_probs == [-0.5]
    assert shown.turns[1].advantages == 2.0  # one number where all are alike


def test_tokens_of_parties_not_trained_have_no_numbers(tmp_path: Path) -> None:
    turns = [spoken("student", 0, "ans 7", "find n"), spoken("teacher", 0, "higher", "ans 7")]
    teacher = logged(turns, tmp_path / "log").turns[1]
    assert teacher.tokens == ["higher"] and teacher.log_probs == [] and teacher.advantages == []


def test_a_prefill_stands_before_the_tokens_and_is_not_heard(tmp_path: Path) -> None:
    turns = [
        Turn(party="student", exchange=0, text="ans 7", prompt_ids=[ID["find"], ID["n"], ID["ans"]],
             completion_ids=[ID["7"], ID["<end>"]], log_probs=[-1.0, -2.0], stop_reason="end"),
        told("teacher", 0, "higher"),
    ]  # fmt: skip
    first = logged(turns, tmp_path / "log").turns[0]
    assert (first.heard, first.opening, first.tokens) == ("find n", "ans", ["7", " <end>"])


@pytest.mark.parametrize(
    ("text", "tokens", "opening"),
    [("ans 7", ("7",), "ans"), ("ans", ("<system>",), "ans"), ("7", ("7", " <end>"), ""), ("ans 7", ("8",), ""),
     ("ans 7", ("8", " <end>"), ""), ("ans 7", (), ""), ("ans 7", None, "")],
)  # fmt: skip
def test_openings(text: str, tokens: tuple[str, ...] | None, opening: str) -> None:
    turn = LoggedTurn("student", 0, text, 0.0, "end", {}, tokens, None)
    assert opening_of(turn) == opening


def test_a_draft_nobody_heard_hides_not_what_was_heard(tmp_path: Path) -> None:
    for heard in (True, False):
        turns = [
            spoken("student", 0, "ans 7", "find n"),
            Turn(party="teacher", exchange=0, text="it is 9", info={"leak": not heard, "heard": heard}),
            spoken("student", 1, "ans 8", "lower"),
        ]
        assert logged(turns, tmp_path / "log").turns[2].heard == ("" if heard else "lower")


def test_remarks_say_what_does_not_meet_the_eye(tmp_path: Path) -> None:
    def remark(words: str, stop_reason: str = "end", **info: object) -> str:
        turn = spoken("student", 0, words, "find n", info=info, stop_reason=stop_reason)
        return logged([turn], tmp_path / "log").turns[0].remark

    assert remark("ans 7", answer="7", kind="answer") == ""
    assert remark("7 n", answer="7", kind="answer") == "7"
    assert remark("n n", answer=None, kind="malformed") == "malformed"
    assert remark("n n n", "length", answer=None) == "cut off at its limit of tokens"
    assert remark("n", "length", answer=None, kind="malformed") == "malformed"


def test_a_constrained_or_strange_number_is_none(tmp_path: Path) -> None:
    turn = spoken("student", 0, "ans 7", "find n", float("-inf"))
    assert logged([turn], tmp_path / "log").turns[0].log_probs == [None, None]


def test_epilogues_are_no_turns(tmp_path: Path) -> None:
    turns = [spoken("student", 0, "ans 7", "find n"), spoken("student", 0, "", "higher", stop_reason="epilogue")]
    assert len(logged(turns, tmp_path / "log").turns) == 1


def test_long_dialogues_are_cut_and_say_by_how_much(tmp_path: Path) -> None:
    turns = [spoken("student", 0, " ".join(["higher"] * 5000), "find n"), told("teacher", 0, "x" * 1000)]
    first, second = logged(turns, tmp_path / "log").turns
    assert first.tokens is not None and isinstance(first.advantages, list)
    assert len(first.tokens) == len(first.log_probs) == len(first.advantages)
    assert len("".join(first.tokens)) + (first.cut or 0) == len(" ".join(["higher"] * 5000))
    assert second.cut is not None and len(second.text) + second.cut == 1000


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(("solved", 2, 3), "solved in turn 3"), (("max_turns", None, 4), "not solved in 4 turns"),
     (("max_turns", None, 1), "not solved in 1 turn"), (("context_full", None, 2), "context full"),
     (("", None, 1), "ended")],
)  # fmt: skip
def test_outcomes(arguments: tuple[str, int | None, int], text: str) -> None:
    assert outcome(*arguments) == text


def test_every_beginning_of_the_order_covers_the_range() -> None:
    for count in (0, 1, 2, 3, 10, 257):
        assert sorted(ends_then_middles(count)) == list(range(count))
    assert list(ends_then_middles(9))[:5] == [0, 8, 4, 2, 6]
    first = sorted(list(ends_then_middles(1000))[:65])
    assert max(np.diff(first)) <= 16


def test_the_first_and_the_last_batch_are_always_there(run_folder: Path) -> None:
    for most in (1, 8, 40, 300):
        found = read_dialogues(run_folder / "episodes.bin", max_dialogues=most)
        train = found.views["train"]
        assert (train[0].batch, train[-1].batch) == (0, 59)
        assert [batch.batch for batch in train] == sorted({batch.batch for batch in train})
        shown = sum(len(batch.dialogues) for batches in found.views.values() for batch in batches)
        assert shown <= max(most, 4)  # the first and the last of two labels
    assert found.logged == {"train": 60, "teacher": 3}
    assert [batch.batch for batch in found.views["teacher"]] == [20, 40, 60]


def test_bytes_are_bounded(run_folder: Path) -> None:
    for most in (20_000, 60_000):
        found = read_dialogues(run_folder / "episodes.bin", max_bytes=most)
        plain = [as_plain(batch) for batches in found.views.values() for batch in batches]
        assert most / 4 < len(json.dumps(plain, separators=(",", ":"))) <= most


def test_a_torn_log_gives_what_is_whole(run_folder: Path) -> None:
    path = run_folder / "episodes.bin"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found = read_dialogues(path)
    assert found.note is None and 20 < found.views["train"][-1].batch < 40
    path.write_bytes(MAGIC[:5])
    assert read_dialogues(path).note == "episodes.bin holds no text yet."


def test_a_damaged_log_says_so_and_gives_what_precedes(run_folder: Path) -> None:
    path = run_folder / "episodes.bin"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    found = read_dialogues(path)
    assert found.note is not None and "is damaged" in found.note and str(path) not in found.note
    assert found.views["train"][0].batch == 0
    path.write_bytes(b"PK something else entirely")
    assert "is not an episode log" in (read_dialogues(path).note or "")
    assert "was not used" in (read_dialogues(run_folder / "none.bin").note or "")


def test_a_log_without_text_says_so(tmp_path: Path) -> None:
    episode = Episode(index=0, task_id="9", group=0, seed=0, turns=[spoken("student", 0, "ans 7", "find n")])
    batch = Rollouts.from_episodes([episode], trained=["student"], parties=["student"])
    (tmp_path / "log").write_bytes(MAGIC + batch_record(batch, batch_number=0, step=0, sample_size=0))
    found = read_dialogues(tmp_path / "log")
    assert found.views == {} and found.note == "log was written without text."


def test_the_scale_is_that_of_the_greatest_advantages(run_folder: Path) -> None:
    found = read_dialogues(run_folder / "episodes.bin")
    sizes = [
        abs(turn.advantages)
        for batch in found.views["train"]
        for dialogue in batch.dialogues
        for turn in dialogue.turns
        if isinstance(turn.advantages, float)
    ]
    assert 0.5 * max(sizes) < found.scale <= max(sizes) * 1.05


def test_a_thousand_batches_are_read_in_seconds(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "long", batches=1000, episodes=8)
    start = time.perf_counter()
    found = read_dialogues(folder / "episodes.bin")
    assert time.perf_counter() - start < 5
    assert found.logged["train"] == 1000 and found.views["train"][-1].batch == 999


def test_segments_and_the_advantages_of_both_levels(tmp_path: Path) -> None:
    heard = "<user> find n <end> <assistant>"
    turns = [
        spoken("student", k, f"ans {7 + k} <end>", heard, new_row=True, info={"subgoal": subgoal})
        for k, subgoal in enumerate(["find", "find", "open"])
    ]
    episode = Episode(index=0, task_id="9", group=0, seed=0, turns=turns, stop_reason="solved")
    batch = Rollouts.from_episodes([episode], trained=["student"], parties=["student"])
    batch.extras["boundary"] = torch.tensor([True, False, True])
    batch.extras["advantage_high"] = torch.tensor([0.5, 0.0, -0.25])
    batch.extras["advantage_low"] = torch.tensor([0.125, 0.0, -1.0])
    batch.advantages = torch.ones(batch.input_ids.shape) * batch.loss_mask
    first = batch.loss_mask[1].nonzero()[0]
    batch.loss_mask[1, first] = False  # as of a subgoal that was kept
    path = tmp_path / "log"
    path.write_bytes(MAGIC + batch_record(batch, batch_number=0, step=0, sample_size=9, tokenizer=WordLevel()))
    shown = shown_dialogue(next(read_episodes(path))).turns
    assert [turn.credit for turn in shown] == [
        ShownCredit(begins=True, subgoal="find", switch=None, high=0.5, low=0.125),
        ShownCredit(begins=False, subgoal="find", switch=None, high=None, low=0.0),
        ShownCredit(begins=True, subgoal="open", switch=None, high=-0.25, low=-1.0),
    ]
    assert shown[1].advantages == [None, 1.0, 1.0] and shown[1].log_probs[0] is None
