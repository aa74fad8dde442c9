"""Tasks told in parts (sml.md 10.2, 15.3): golden conversations, rules of the user, classes of replies, records."""

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lit_rl.environments import (
    USER_INSTRUCTION,
    Attempt,
    ShardedDialogue,
    ShardedLinear,
    ShardedProblem,
    ShardedSource,
    ShardedTasks,
    UserContext,
    classify_reply,
    max_messages,
    scripted_user,
)
from lit_rl.environments.base import Ask, Outcome, Reply
from lit_rl.environments.sharded import MAX_DRAFTS
from lit_rl.environments.sharded_user import _judges
from lit_rl.episodes import Rollouts
from lit_rl.parties import PolicyParty, ScriptedParty
from lit_rl.policy import Policy, PolicyConfig
from lit_rl.rollout import Planned, play
from lit_rl.sampling import SamplingSettings
from lit_rl.tiny import TinyModel
from lit_rl.verification import boxed_answer

User = Callable[[Ask], Reply]


def script(ask: Ask) -> Reply:
    return Reply(text=scripted_user(ask.context, 0))


class Talk:
    """Plays a conversation and keeps what was said, and what was made of it."""

    def __init__(self, dialogue: ShardedDialogue, utterances: Sequence[str], user: User = script):
        outcome, remaining = dialogue.begin(), iter(utterances)
        self.heard: list[str] = []
        self.student: list[dict[str, Any]] = []
        self.user: list[dict[str, Any]] = []
        self.asks: list[Ask] = []
        while (ask := outcome.ask) is not None:
            if ask.party == "student":
                self.heard.append(ask.messages[0].content)
                outcome = dialogue.act(Reply(text=next(remaining), stop_reason="end"))
                self.student.append(dict(outcome.info))
            else:
                self.asks.append(ask)
                outcome = dialogue.act(user(ask))
                self.user.append(dict(outcome.info))
        self.end: Outcome = outcome
        self.left = list(remaining)


def linear(prompt: str = "p = 3 ; q = 2 ; x = 4", reveal: Any = "always") -> tuple[ShardedProblem, ShardedLinear]:
    tasks = ShardedLinear(reveal=reveal)
    return next(tasks[i] for i in range(1000) if tasks[i].question.startswith(prompt)), tasks


def talk(utterances: Sequence[str], reveal: Any = "always", user: User = script) -> Talk:
    return Talk(ShardedDialogue(*linear(reveal=reveal)), utterances, user)


# -- conversations ---------------------------------------------------------------------------------------------------


def test_golden_task() -> None:
    """sml.md 15.3."""
    problem, tasks = linear()
    assert problem.question == "p = 3 ; q = 2 ; x = 4 ; compute p * x + q"
    assert problem.shards == ("compute p * x + q", "p = 3", "q = 2", "x = 4")
    assert tasks.verify(problem, "ans 1 4").correct and not tasks.verify(problem, "ans 14").correct
    assert {len(tasks[i].gold.split()) for i in range(1000)} == {2}
    assert len({tasks[i].question for i in range(1000)}) == 1000


def test_golden_conversation_where_every_message_tells_a_part() -> None:
    """The reply types of sml.md 16.7: incomplete turns are 1 to 3."""
    said = talk(["ans 0 1", "ask x", "ans 0 2", "ans 1 4"])
    assert said.heard == ["compute p * x + q", "p = 3", "q = 2", "x = 4"]
    assert [info["reply_class"] for info in said.student] == ["answer", "clarification", "answer", "answer"]
    assert [info["incomplete"] for info in said.student] == [True, True, True, False]
    assert [info["correct"] for info in said.student] == [False, False, False, True]
    assert [info["part"] for info in said.user] == [1, 2, 3]
    assert (said.end.stop_reason, said.end.terminated, dict(said.end.rewards)) == ("solved", True, {"student": 1.0})


def test_a_conversation_ends_after_the_reply_to_the_last_part() -> None:
    said = talk(["so"] * 9)
    assert (said.end.stop_reason, said.end.terminated, dict(said.end.rewards)) == ("all_told", True, {})
    assert len(said.student) == 4
    whole = linear()[0].whole()
    said = Talk(ShardedDialogue(whole, linear()[1]), ["ans 0 0"] * 2)
    assert (said.end.stop_reason, said.heard, len(said.student)) == ("all_told", [whole.question], 1)
    assert said.student[0]["incomplete"] is False


def test_a_lucky_early_answer_ends_it() -> None:
    said = talk(["ans 1 4"])
    assert said.end.stop_reason == "solved" and said.student[0]["incomplete"] is True


def test_on_ask_tells_what_is_asked_for() -> None:
    utterances = ["ask x", "ask x", "ans 0 1", "ask p ask q", "ask q ans 0 5", "ans 1 4"]
    said = talk(utterances, "on_ask")
    assert said.heard == ["compute p * x + q", "x = 4", "hm", "hm", "p = 3", "q = 2"]
    assert [info["reply_class"] for info in said.student] == [
        *("clarification", "clarification", "answer", "interrogation", "answer", "answer"),
    ]
    assert [info["kind"] for info in said.student][-2:] == ["both", "answer"]
    assert said.end.stop_reason == "solved"


def test_a_user_who_tells_nothing_is_stopped_by_the_cap() -> None:
    """sml.md 10.2: 2 n + 2 messages."""
    said = talk(["ans 0 0"] * 20, "on_ask")
    assert (said.end.stop_reason, said.end.truncated, len(said.student)) == ("max_messages", True, 10)
    assert [max_messages(n) for n in (1, 2, 4)] == [1, 6, 10]


@pytest.mark.parametrize("reveal", ["always", "on_ask"])
def test_property_15_over_random_conversations(reveal: Any) -> None:
    """sml.md 17.15: at most one new part a message, none twice, no verdict, an end within the cap; 2 000 of them."""
    rng, tasks = random.Random(0), ShardedLinear(reveal=reveal)
    words = ["ask p", "ask q", "ask x", "ask", "so", "", "ans 1 4", "ans 0", "ask p ask x", "ans 0 1 ans 0 2"]
    for _ in range(2000):
        problem = tasks[rng.randrange(1000)]
        said = Talk(ShardedDialogue(problem, tasks), rng.choices(words, k=10))
        parts = [info["part"] for info in said.user if info["part"] is not None]
        assert len(set(parts)) == len(parts) and 0 not in parts
        for message, info in zip(said.heard[1:], said.user, strict=True):
            assert message == ("hm" if info["part"] is None else problem.shards[info["part"]])
            assert not _judges(message, "") and info["heard"] and info["attempts"] == 1
        assert len(said.student) <= 10 and len(said.user) == len(said.student) - 1
        assert said.end.stop_reason in ("solved", "all_told", "max_messages")
        assert [info["incomplete"] for info in said.student] == [
            len([part for part in (i["part"] for i in said.user[:turn]) if part is not None]) < 3
            for turn in range(len(said.student))
        ]


# -- a user who is a model -------------------------------------------------------------------------------------------


def speaker(texts: Sequence[str]) -> User:
    remaining = iter(texts)
    return lambda ask: Reply(text=next(remaining), stop_reason="end")


def test_a_model_tells_a_part_in_its_own_words() -> None:
    texts = ["First, x. <part>3</part> <say>x is four</say>", "<part>none</part><say>I do not know that.</say>"]
    said = talk(["ask x", "ask y", "ans 1 4"], user=speaker(texts))
    assert said.heard[1:] == ["x is four", "I do not know that."]
    assert [info["part"] for info in said.user] == [3, None]
    system, conversation = (message.content for message in said.asks[1].messages)
    assert "0: compute p * x + q\n3: x = 4" in system and "1: p = 3\n2: q = 2" in system
    assert conversation == "You: compute p * x + q\n\nAssistant: ask x\n\nYou: x is four\n\nAssistant: ask y"
    assert all(ask.restart for ask in said.asks), "the parts left change, so all is told anew"
    assert not any("1 4" in message.content for ask in said.asks for message in ask.messages), "the user has no answer"


@pytest.mark.parametrize(
    "text",
    [
        "p is three",
        "<say>p is three</say>",
        "<part>1</part>",
        "<part>1</part><say> </say>",
        "<part>0</part><say>compute p * x + q</say>",
        "<part>7</part><say>z = 3</say>",
        "<part>1</part><say>p = 3 and x = 4</say>",
        "<part>none</part><say>Well, q = 2</say>",
        "<part>1</part><say>That is not right. p is 3</say>",
        "<part>none</part><say>Your answer is incorrect.</say>",
        "<part>none</part><say>That's wrong</say>",
        "<think><part>1</part><say>p is three</say>",
    ],
)
def test_a_user_who_breaks_the_rules_speaks_again_and_then_the_script_does(text: str) -> None:
    said = talk(["ask p", "ans 1 4"], user=lambda ask: Reply(text=text, stop_reason="end"))
    assert said.heard[1:] == ["p = 3"]
    assert [info["attempts"] for info in said.user] == list(range(1, MAX_DRAFTS + 1))
    assert [info["heard"] for info in said.user] == [False] * MAX_DRAFTS
    assert [info["part"] for info in said.user] == [None] * (MAX_DRAFTS - 1) + [1]


def test_a_part_may_hold_words_that_judge() -> None:
    problem = ShardedProblem(id="s", domain="d", question="q", gold="1", shards=("count", "the correct ones only"))
    dialogue = ShardedDialogue(problem, linear()[1])
    said = Talk(dialogue, ["ask", "ans 1"], speaker(["<part>1</part><say>Only correct ones</say>"]))
    assert said.heard[1:] == ["Only correct ones"]


def test_a_script_tells_a_part_word_for_word() -> None:
    def user(ask: Ask) -> Reply:
        context: UserContext = ask.context
        assert context.turn == ask.exchange
        return Reply(text={"ask x": "x = 4", "ask p": "p = 3 q = 2", "so": "hello"}[context.utterance])

    said = talk(["ask x", "so", "ask p", "ans 1 4"], user=user)
    assert said.heard[1:] == ["x = 4", "hello", "p = 3"]
    assert [info["part"] for info in said.user if info["heard"]] == [3, None]


def test_hidden_reasoning_does_not_reach_the_user() -> None:
    said = talk(["<think>it is 14</think> ask p", "ans 1 4"])
    assert said.asks[0].messages[1].content.endswith("Assistant:  ask p")


def test_a_tiny_model_plays_both() -> None:
    """Its words keep no rule, so the student hears the tasks' own script; the rows hold what was heard."""
    words = re.findall(r"\w+|[^\w\s]+", f"{USER_INSTRUCTION} compute p q x hm ans ask You Assistant : * + =")
    policy = Policy(
        PolicyConfig(tiny=TinyModel(words=words, numbers=10, hidden_size=16, layers=1, heads=2, max_length=512))
    )
    tasks = ShardedLinear(reveal="always")
    student = PolicyParty(settings=SamplingSettings(max_tokens=4), adapter="student")
    base = PolicyParty(settings=SamplingSettings(max_tokens=4), adapter="user")
    for user, drafts in ((base, MAX_DRAFTS), (ScriptedParty(scripted_user, "user"), 1)):
        planned = [
            Planned(environment=ShardedDialogue(tasks[i], tasks), index=i, task_id=str(i), group=i) for i in range(3)
        ]
        episodes = play(planned, {"student": student, "user": user}, policy, seed=0).episodes
        rollouts = Rollouts.from_episodes(episodes, trained=["student"], parties=["student", "user"])
        for row, episode in enumerate(episodes):
            assert len(episode.turns_of("student")) == 4 and len(episode.turns_of("user")) == 3 * drafts
            told = policy.tokenizer.decode(rollouts.input_ids[row][rollouts.party_ids[row] == 1])
            assert told.replace(" <end>", "").split() == " ".join(tasks[row].shards[1:]).split()


# -- classes ---------------------------------------------------------------------------------------------------------

LONG = "the numbers matter here and " * 10


@pytest.mark.parametrize(
    ("utterance", "expected"),
    [
        (r"It is \boxed{4}.", "answer"),
        (r"Is that all? I say \boxed{4}. I cannot help more.", "answer"),
        (r"\boxed{4} or, with sugar, \boxed{5}", "hedge"),
        (r"\boxed{4}, that is \boxed{4.0}", "answer"),
        ("How many apples are there?", "clarification"),
        (f"{LONG}. How many?", "discussion"),
        ("How many apples? And pears?", "interrogation"),
        ("How many??", "clarification"),
        ("I can't answer that.", "refusal"),
        ("I\u2019m sorry, I am unable to really help you.", "refusal"),
        ("There is not enough information.", "refusal"),
        ("I cannot compute this yet. How many apples?", "clarification"),
        ("Let me think about apples.", "discussion"),
        ("See http://a.b/c?d=e for more", "discussion"),
        ("", "missing"),
        (" \n", "missing"),
        ("<think>4?</think>", "missing"),
    ],
)
def test_classes_of_boxed_replies(utterance: str, expected: str) -> None:
    assert classify_reply(utterance, boxed_answer(utterance, "7"), "boxed") == expected


@pytest.mark.parametrize(
    ("utterance", "expected"),
    [
        ("ans 1 4", "answer"),
        ("ask p ans 1 4", "answer"),
        ("ans 1 4 ans 1 5", "hedge"),
        ("ask p", "clarification"),
        ("ask p ask q", "interrogation"),
        ("ans", "discussion"),
        ("task", "discussion"),
        ("", "missing"),
    ],
)
def test_classes_of_marked_replies(utterance: str, expected: str) -> None:
    problem, tasks = linear()
    assert classify_reply(utterance, tasks.verify(problem, utterance), "marked") == expected


def test_another_classifier_decides_what_is_scored() -> None:
    def never(problem: ShardedProblem, utterance: str, attempt: Attempt) -> Any:
        assert attempt.correct
        return "discussion"

    said = Talk(ShardedDialogue(*linear(), classifier=never), ["ans 1 4"] * 9)
    assert said.end.stop_reason == "all_told"
    assert {(i["reply_class"], i["kind"], i["answer"], i["correct"]) for i in said.student} == {
        ("discussion", "malformed", None, False)
    }


# -- records ---------------------------------------------------------------------------------------------------------

ROW = {
    "task": "math",
    "task_id": "m-1",
    "question": "Ann has 3 apples and buys 4. How many has she?",
    "answer": 7,
    "shards": [{"shard_id": 1, "shard": "How many apples has Ann?"}, {"shard_id": 2, "shard": "she had 3"}],
}


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    file = folder / "shards.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_records_of_a_file(tmp_path: Path) -> None:
    tasks = ShardedTasks(write(tmp_path, ROW, ROW | {"task_id": 5}))
    assert isinstance(tasks, ShardedSource) and len(tasks) == 2 and tasks[1].id == "5"
    problem = tasks[0]
    assert (problem.domain, problem.gold) == ("math", "7")
    assert problem.shards == ("How many apples has Ann?", "she had 3")
    assert tasks.verify(problem, r"\boxed{7}").correct
    said = Talk(ShardedDialogue(problem, tasks), ["So?", r"\boxed{7}"])
    assert said.heard[0].endswith("\n\nHow many apples has Ann?") and said.heard[1] == "she had 3"
    plain = Talk(ShardedDialogue(problem, tasks, student_instruction=""), [r"\boxed{7}"])
    assert plain.heard == ["How many apples has Ann?"]
    with pytest.raises(IndexError):
        tasks[2]


def test_records_of_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    file = tmp_path / "shards.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW]), file)
    assert ShardedTasks(file, answer_format="marked")[0].shards == ("How many apples has Ann?", "she had 3")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": None}, "row 2: there is no column 'answer'"),
        ({"question": " "}, "row 2: question is ' '; wanted text"),
        ({"task_id": "m-1"}, "row 2: the task_id 'm-1' is that of row 1 too"),
        ({"shards": []}, "row 2: shards must be a list of at least one"),
        ({"shards": "how many"}, "row 2: shards must be a list of at least one"),
        ({"shards": ["how many"]}, "row 2: shard 1 is how many; it must be an object"),
        ({"shards": [{"shard_id": 1}]}, "row 2: shard 1 is .* it must be an object"),
        ({"shards": [{"shard_id": 1, "shard": ""}]}, r"row 2: shards\[1\].shard is ''"),
        ({"shards": [{"shard_id": 1, "shard": "a"}, {"shard_id": 1, "shard": "b"}]}, "row 2: two shards .* shard_id 1"),
    ],
)
def test_bad_records_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = write(tmp_path, ROW, ROW | {"task_id": "m-2"} | change)
    with pytest.raises(ValueError, match=rf"shards.jsonl, {message}"):
        ShardedTasks(file)


def test_bad_options(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="answer_format is 'free'"):
        ShardedTasks(write(tmp_path, ROW), answer_format="free")
    with pytest.raises(ValueError, match="reveal is 'never'"):
        ShardedLinear(reveal="never")
    for size in (0, 1001):
        with pytest.raises(ValueError, match=f"size is {size}; there are 1 .. 1000"):
            ShardedLinear(size)
    with pytest.raises(ValueError, match="ShardedProblem s has no shards"):
        ShardedProblem(id="s", domain="d", question="q", gold="1", shards=())
    for wanted in ("{told}", "{left}", "<part>", "<say>"):
        with pytest.raises(ValueError, match=f"user_instruction must contain {wanted}"):
            ShardedDialogue(*linear(), user_instruction=USER_INSTRUCTION.replace(wanted, ""))
    with pytest.raises(IndexError):
        ShardedLinear(5)[5]
