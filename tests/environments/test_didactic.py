"""The rules of the didactic dialogue: who hears what, what is paid, when it ends, and what a teacher may say."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from lit_rl.environments import (
    STUDENT_INSTRUCTION,
    DidacticDialogue,
    HigherLower,
    NumberSearch,
    Problem,
    TeacherContext,
)
from lit_rl.environments.base import Message, Reply
from lit_rl.environments.teacher_words import CANNOT_SAY, RETRY
from lit_rl.verification import Attempt, boxed_answer
from tests.environments.conftest import Game

SOURCE = NumberSearch(15)
SECRET = Problem(
    id="s", domain="d", prompt="which one", gold="sesame", private={"answer": "sesame", "solution": "behind the door"}
)


class Words:
    """Answers are boxed words."""

    name = "words"
    answer_format = "boxed"

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Problem:
        return SECRET

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        return boxed_answer(utterance, problem.gold, problem.gold.__eq__)


def scripted(context: TeacherContext, messages: Sequence[Message]) -> str:
    return HigherLower()(context, 0)


def number(target: int, utterances: Sequence[str], teacher: Callable[..., Any] = scripted, **options: Any) -> Game:
    return Game(DidacticDialogue(SOURCE[target], SOURCE, **options), teacher).play(utterances)


def words(utterances: Sequence[str], teacher: Callable[..., Any], **options: Any) -> Game:
    return Game(DidacticDialogue(SECRET, Words(), **options), teacher).play(utterances)


def model(text: str, stop_reason: Any = "end") -> Callable[..., Reply]:
    """A model that always says the same; a remote one has no token ids."""
    return lambda context, messages: Reply(text=text, stop_reason=stop_reason)


# -- turns, payments, ends -------------------------------------------------------------------------------------


def test_n_student_turns_have_one_feedback_less() -> None:
    """Property 6: none after the right answer, none after the last turn; and property 7, one reward at most."""
    rng = random.Random(2)
    for _ in range(300):
        turns = rng.randint(1, 6)
        spoken = [rng.choice(["ans 3", "ans 5", "ask it", "so", "ans 1 ans 2"]) for _ in range(turns)]
        game = number(5, spoken, max_turns=turns)
        solved = spoken.index("ans 5") + 1 if "ans 5" in spoken else None
        parties = [party for party, _ in game.said]
        taken = solved or turns
        assert parties == ["student", "teacher"] * (taken - 1) + ["student"]
        assert game.rewards == [0.0] * (taken - 1) + [1.0 if solved else 0.0]
        last = game.outcomes[-1]
        assert (last.stop_reason, last.terminated, last.truncated) == (
            ("solved", True, False) if solved else ("max_turns", False, True)
        )


def test_what_is_known_of_a_turn() -> None:
    game = number(5, ["ans 3", "ask it", "so", "ans 1 ans 2", "ans 3 ask", "ans 5"], max_turns=6)
    facts = [tuple(outcome.info.values()) for outcome in game.outcomes[::2]]
    assert facts == [
        ("answer", "3", False),
        ("question", None, False),
        ("malformed", None, False),
        ("hedge", None, False),
        ("both", "3", False),
        ("answer", "5", True),
    ]
    assert list(game.outcomes[0].info) == ["kind", "answer", "correct"]
    assert game.infos == [{"leak": False, "attempts": 1, "heard": True}] * 5


def test_penalties_are_taken_from_their_own_turn() -> None:
    spoken = ["ans 3", "ask it", "so", "ans 1 ans 2", "ans 3 ask", "ans 5"]
    game = number(5, spoken, max_turns=6, wrong_attempt_penalty=0.25, question_cost=0.1)
    assert game.rewards == [-0.25, -0.1, -0.25, -0.25, -0.25, 1.0]
    assert number(5, ["ans 3", "ans 4"], max_turns=2, wrong_attempt_penalty=0.5).rewards == [-0.5, -0.5], "the last too"


def test_two_empty_turns_in_a_row_end_it() -> None:
    game = number(5, ["", "ans 3", " ", "\n", "ans 5"], max_turns=5)
    assert [party for party, _ in game.said].count("student") == 4
    assert game.outcomes[-1].stop_reason == "empty" and game.outcomes[-1].truncated
    assert number(5, ["", ""], max_turns=2).outcomes[-1].stop_reason == "empty"
    independent = number(5, ["", "", "", "ans 5"], feedback="resample")
    assert independent.outcomes[-1].stop_reason == "solved"


# -- what is heard ---------------------------------------------------------------------------------------------


def test_a_script_knows_problem_attempt_and_history() -> None:
    seen: list[TeacherContext] = []

    def teacher(context: TeacherContext, messages: object) -> str:
        seen.append(context)
        return f"hint {len(seen)}"

    number(5, ["ans 3", "ask it", "ans 5"], teacher)
    assert seen == [
        TeacherContext(SOURCE[5], Attempt("answer", "3"), (), 0, "ans 3"),
        TeacherContext(SOURCE[5], Attempt("question"), (("ans 3", "hint 1"),), 1, "ask it"),
    ]


@pytest.mark.parametrize("instruction", ["Answer briefly.", "", None])
def test_the_student_reads_its_instruction_before_the_problem(instruction: str | None) -> None:
    first = DidacticDialogue(SOURCE[5], SOURCE, student_instruction=instruction).begin()
    boxed = DidacticDialogue(SECRET, Words(), student_instruction=instruction).begin()
    assert first.ask is not None and boxed.ask is not None
    before = f"{instruction}\n\n" if instruction else ""
    assert first.ask.messages == (Message("user", f"{before}find n in 0 14"),)
    default = f"{STUDENT_INSTRUCTION}\n\n" if instruction is None else before
    assert boxed.ask.messages == (Message("user", f"{default}which one"),)


def test_private_knowledge_reaches_the_teacher_and_never_the_student() -> None:
    """Property 4, under every kind of feedback."""
    other = Problem(id="o", domain="d", prompt="another", gold="abracadabra", private={"answer": "abracadabra"})
    for feedback in ("teacher", "retry", "shuffled", "resample"):
        briefed: list[str] = []

        def teacher(context: object, messages: Sequence[Message], briefed: list[str] = briefed) -> str:
            briefed.extend(message.content for message in messages)
            return "think of a door"

        option = {"shuffled_problem": other} if feedback == "shuffled" else {}
        game = words([r"\boxed{no}", "why?", "so", r"\boxed{never}"], teacher, feedback=feedback, **option)
        asked = [outcome.ask for outcome in game.outcomes if outcome.ask and outcome.ask.party == "student"]
        told = " ".join(m.content for ask in asked for m in ask.messages) + " ".join(
            m.content for m in game.views["student"]
        )
        for secret in ("sesame", "door" if feedback in ("retry", "resample") else "behind", "abracadabra", "another"):
            assert secret not in told, feedback
        private = " ".join(briefed)
        if feedback == "teacher":
            assert "answer: sesame" in private and "solution: behind the door" in private and "which one" in private
        elif feedback == "shuffled":
            assert "abracadabra" in private and "another" in private and "sesame" not in private
        else:
            assert not briefed and "teacher" not in game.views


def test_retry_says_one_fixed_thing() -> None:
    game = number(5, ["ans 3", "ask it", "so", "ans 5"], feedback="retry")
    assert game.heard() == [RETRY] * 3 and game.views.keys() == {"student"}
    assert game.outcomes[-1].stop_reason == "solved"


def test_resample_poses_the_problem_anew() -> None:
    game = number(5, ["ans 3", "ans 3", "ans 4", "ans 5"], feedback="resample", student_instruction="Think.")
    for k, outcome in enumerate(game.outcomes[:-1], start=1):
        assert outcome.ask is not None and outcome.ask.restart and outcome.ask.exchange == k
        assert outcome.ask.messages == (Message("user", "Think.\n\nfind n in 0 14"),)
    assert game.rewards == [0.0, 0.0, 0.0, 1.0]


def test_shuffled_words_are_about_the_other_problem() -> None:
    game = number(2, ["ans 7", "ans 6", "ans 2"], feedback="shuffled", shuffled_problem=SOURCE[14])
    assert game.heard() == ["higher", "higher"] and game.outcomes[-1].stop_reason == "solved"


def test_exchanges_and_speakers_are_marked() -> None:
    """Feedback carries the number of the exchange it answers, the student's next turn the following one."""
    game = number(5, ["ans 3", "ans 4", "ans 5"])
    asks = [outcome.ask for outcome in game.outcomes if outcome.ask]
    assert [(ask.party, ask.exchange) for ask in asks] == [
        ("teacher", 0),
        ("student", 1),
        ("teacher", 1),
        ("student", 2),
    ]
    assert [message for message in game.views["student"] if message.party == "teacher"] == [
        Message("user", "higher", "teacher", 0),
        Message("user", "higher", "teacher", 1),
    ]


# -- a model as teacher ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_reason", ["end", "length", "said"])
def test_only_the_feedback_block_is_forwarded(stop_reason: Any) -> None:
    said = "It is not that. <feedback>too tame</feedback> or <feedback>\n Look behind it. </feedback> Good luck."
    game = words([r"\boxed{no}", r"\boxed{sesame}"], model(said, stop_reason))
    assert game.heard() == ["Look behind it."]


@pytest.mark.parametrize(
    "said",
    [
        "Look behind it.",
        "<feedback>Look behind",
        "<feedback> </feedback>",
        "<think><feedback>sesame</feedback>",
        "",
    ],
)
def test_without_a_block_a_fixed_message_is_heard(said: str) -> None:
    game = words([r"\boxed{no}", "Where is it?", r"\boxed{sesame}"], model(said))
    assert game.heard() == [RETRY, CANNOT_SAY]
    assert game.infos == [{"leak": False, "attempts": 1, "heard": False}] * 2


def test_a_script_is_forwarded_as_it_is() -> None:
    assert words(["so", r"\boxed{sesame}"], model(" look behind ", "said")).heard() == ["look behind"]
    assert words(["so", r"\boxed{sesame}"], model(" ", "said")).heard() == [RETRY], "there must be something to hear"


def test_the_view_of_a_model_is_what_was_said_and_heard() -> None:
    """Whatever was redrawn or replaced, it sees its briefing, then the dialogue with roles swapped."""
    rng, block = random.Random(3), "<feedback> {} </feedback>"
    drafts = ["so. " + block.format("look"), "nothing to forward", "sure: " + block.format("say sesame")]
    spoken: list[tuple[str, str]] = []

    def teacher(context: TeacherContext, messages: Sequence[Message]) -> Reply:
        system, *rest = messages
        assert system.role == "system" and "sesame" in system.content and "which one" in system.content
        assert [message.role for message in rest] == (["user", "assistant"] * len(rest))[: len(rest)]
        heard = [feedback for _, feedback in context.history]
        wanted = [utterance for utterance, _ in context.history] + [context.utterance]
        assert [message.content for message in rest[::2]] == wanted
        for message, feedback in zip(rest[1::2], heard, strict=True):
            assert message.content.endswith(block.format(feedback))
        spoken.append((context.utterance, rng.choice(drafts)))
        return Reply(text=spoken[-1][1], stop_reason="end")

    for _ in range(200):
        words([f"try {i}" for i in range(6)], teacher, max_turns=6)
    assert {text for _, text in spoken} == set(drafts)


def test_a_view_that_is_whole_only_grows() -> None:
    """While the student hears what the teacher said, nothing is rendered or computed twice."""
    game = words(["a", "b", "c", "d"], model("<feedback>look</feedback>"))
    asks = [outcome.ask for outcome in game.outcomes if outcome.ask and outcome.ask.party == "teacher"]
    assert [len(ask.messages) for ask in asks] == [2, 1, 1] and [ask.restart for ask in asks] == [True, False, False]


def test_a_teacher_instruction_of_ones_own() -> None:
    briefed: list[str] = []

    def teacher(context: object, messages: Sequence[Message]) -> str:
        briefed.append(messages[0].content)
        return "look"

    words(["so", "so"], teacher, max_turns=2, teacher_instruction="{x} {problem} | {private} | <feedback>")
    assert briefed == ["{x} which one | answer: sesame\nsolution: behind the door | <feedback>"]


# -- leaks -----------------------------------------------------------------------------------------------------


def test_a_leak_is_asked_for_again_three_times_at_most() -> None:
    game = words([r"\boxed{no}", "Where?", r"\boxed{sesame}"], lambda context, messages: "Say SESAME.")
    assert game.heard() == [RETRY, CANNOT_SAY]
    assert [info["attempts"] for info in game.infos] == [1, 2, 3, 4] * 2
    assert all(info["leak"] and not info["heard"] for info in game.infos)
    assert [party for party, _ in game.said].count("teacher") == 8 and game.rewards == [0.0, 0.0, 1.0]


def test_a_second_draft_may_be_better() -> None:
    drafts = iter(["It is sesame.", "Look behind it.", "Yes, sesame.", "sesame!", "Think of a cave."])
    game = words([r"\boxed{no}", r"\boxed{none}", r"\boxed{sesame}"], lambda context, messages: next(drafts))
    assert game.heard() == ["Look behind it.", "Think of a cave."]
    assert [(i["leak"], i["attempts"], i["heard"]) for i in game.infos] == [
        (True, 1, False),
        (False, 2, True),
        (True, 1, False),
        (True, 2, False),
        (False, 3, True),
    ]


def test_what_the_student_said_first_is_no_leak() -> None:
    game = words([r"sesame or \boxed{no}", r"\boxed{sesame}"], lambda context, messages: "sesame is better")
    assert game.heard() == ["sesame is better"] and not game.infos[0]["leak"]


def test_what_the_teacher_said_before_is_no_new_leak() -> None:
    game = words(["so", "so", r"\boxed{sesame}"], lambda context, messages: "Say sesame.", on_leak="flag")
    assert [info["leak"] for info in game.infos] == [True, False]


@pytest.mark.parametrize("on_leak", ["flag", "drop"])
def test_a_leak_may_be_kept_and_counted(on_leak: str) -> None:
    game = words([r"\boxed{no}", r"\boxed{sesame}"], lambda context, messages: "Say sesame.", on_leak=on_leak)
    assert game.heard() == ["Say sesame."] and game.rewards == [0.0, 1.0]
    wanted = {"leak": True, "attempts": 1, "heard": True} | ({"drop": True} if on_leak == "drop" else {})
    assert game.infos == [wanted]
    clean = words([r"\boxed{no}", r"\boxed{sesame}"], lambda context, messages: "Look.", on_leak=on_leak)
    assert clean.infos == [{"leak": False, "attempts": 1, "heard": True}]


def test_the_private_form_of_an_answer_leaks_too() -> None:
    problem = Problem(id="d", domain="d", prompt="add 47 85", gold="1 3 2", private={"answer": "132"})
    for message in ("it is 132", "it is 1 3 2"):
        game = Game(DidacticDialogue(problem, SOURCE, on_leak="flag"), model(message, "said")).play(["ans 1"] * 4)
        assert game.infos[0]["leak"]


def test_a_judge_sees_what_strings_do_not() -> None:
    asked: list[tuple[str, ...]] = []

    def judge(problem: Problem, gold: str, utterance: str, message: str) -> bool:
        asked.append((problem.id, gold, utterance, message))
        return "cave" in message

    game = words(["so", r"\boxed{sesame}"], lambda c, m: "what opens the cave", judge=judge, on_leak="flag")
    assert game.infos[0]["leak"] and asked == [("s", "sesame", "so", "what opens the cave")]
    clean = words(["so", r"\boxed{sesame}"], lambda c, m: "look", judge=judge, on_leak="flag")
    assert not clean.infos[0]["leak"]


# -- bad options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feedback": "praise"}, r"feedback is 'praise'; it must be one of \['teacher', 'retry'"),
        ({"on_leak": "ignore"}, r"on_leak is 'ignore'; it must be one of \['resample', 'flag', 'drop'\]"),
        ({"max_turns": 0}, "max_turns is 0"),
        ({"feedback": "shuffled"}, "needs a shuffled_problem"),
        ({"shuffled_problem": SECRET}, "nothing else takes one"),
        ({"question_cost": -0.1}, "question_cost is -0.1; it is subtracted"),
        ({"wrong_attempt_penalty": -1.0}, "wrong_attempt_penalty is -1.0"),
        ({"teacher_instruction": "{problem} <feedback>"}, "must contain {private}"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DidacticDialogue(SOURCE[0], SOURCE, **options)


# -- acceptance --------------------------------------------------------------------------------------------------------


def test_acceptance_follows_the_solving_attempt_alone() -> None:
    """For training rows: the last thing the student would have heard (rl2f.md 6.4)."""
    solved = number(11, ["ans 7", "ans 11"], accept_message="correct")
    (epilogue,) = [outcome.epilogue for outcome in solved.outcomes if outcome.epilogue is not None]
    assert solved.outcomes[-1].epilogue is epilogue and epilogue.party == "student" and epilogue.exchange == 1
    assert epilogue.messages == (Message("user", "correct", "teacher", 1),)
    assert solved.outcomes[-1].rewards == {"student": 1.0}
    unsolved = number(11, ["ans 7", "ans 8"], accept_message="correct", max_turns=2)
    assert all(outcome.epilogue is None for outcome in (*unsolved.outcomes, *number(11, ["ans 11"]).outcomes))
    with pytest.raises(ValueError, match="accept_message is blank; give the words of acceptance, or None"):
        DidacticDialogue(SOURCE[0], SOURCE, accept_message=" ")


# -- what checking an attempt showed ---------------------------------------------------------------------------


class CheckedWords(Words):
    """Answers whose check leaves something to tell the teacher."""

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        return replace(super().verify(problem, utterance), detail="test 2 wanted 9")


@pytest.mark.parametrize("feedback", ["teacher", "shuffled"])
def test_a_model_teacher_alone_hears_what_the_check_showed(feedback: str) -> None:
    other = replace(SECRET, id="o", prompt="another", gold="open", private={"answer": "open"})
    options = {"feedback": feedback, "shuffled_problem": other} if feedback == "shuffled" else {}
    dialogue = DidacticDialogue(SECRET, CheckedWords(), **options)
    game = Game(dialogue, model("<feedback>look again</feedback>")).play([r"\boxed{no}", r"\boxed{nor}"] * 2)
    told = {party: " ".join(message.content for message in view) for party, view in game.views.items()}
    assert "wanted 9" not in told["student"]
    assert ("wanted 9" in told["teacher"]) == (feedback == "teacher")
