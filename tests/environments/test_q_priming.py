"""Q-priming (sml.md, sections 8 and 17.13)."""

import math
import re
from collections.abc import Sequence
from typing import Any

import pytest

from lit_rl.environments import DidacticDialogue, DigitEdit, DigitHint, Problem, TeacherContext
from lit_rl.environments.base import Message, Reply
from lit_rl.environments.leaks import leaks
from lit_rl.environments.q_priming import WRITER, QPrimedDialogue, question_probability
from lit_rl.environments.question_writers import QUESTION_INSTRUCTION, AskWrongDigit, FixedQuestion, question_in
from lit_rl.verification.attempts import Attempt
from tests.environments.conftest import Game

SUMS = DigitEdit("add", size=200)


class PrimedGame(Game):
    """With a writer of questions; everybody's views are kept as `lit_rl.rollout` keeps them."""

    def __init__(self, dialogue: Any, teacher: Any, writer: Any):
        super().__init__(dialogue, self._reply)
        self.speak, self.write = teacher, writer

    def _reply(self, context: TeacherContext, messages: Sequence[Message]) -> Reply | str:
        asked_now = self.dialogue.drafts > 0
        return self.write(context, messages) if asked_now else self.speak(context, 0)


def primed(index: int = 0, seed: int = 0, turns: int = 4, **options: Any) -> QPrimedDialogue:
    return QPrimedDialogue(DidacticDialogue(SUMS[index], SUMS, max_turns=turns), seed=seed, **options)


def wrong_for(problem: Problem) -> str:
    first, *rest = problem.gold.split()
    return f"ans {9 - int(first)} {' '.join(rest)}"


def play(dialogue: QPrimedDialogue, utterances: Sequence[str], write: Any = None) -> PrimedGame:
    game = PrimedGame(dialogue, DigitHint(), write or (lambda context, _: AskWrongDigit()(context, 0)))
    game.play(utterances)
    return game


def test_golden_probabilities_of_section_8() -> None:
    chances = [question_probability(turn) for turn in range(4)]
    assert chances == [0.75, 0.5625, 0.421875, 0.31640625]
    assert sum(chances) == 2.05078125
    assert math.prod(1 - chance for chance in chances) == pytest.approx(0.0432252884, abs=1e-10)
    assert [question_probability(turn, q_index_base=0) for turn in range(4)] == [1.0, 0.75, 0.5625, 0.421875]


def test_how_often_wrong_turns_are_replaced_17_13() -> None:
    """20 000 draws, in dialogues of four wrong turns; 4 sigma of the binomial at each turn and for none at all."""
    problem, draws = SUMS[0], 5_000
    wrong = wrong_for(problem)
    counts, without = [0] * 4, 0
    for seed in range(draws):
        dialogue = primed(seed=seed)
        dialogue.begin()
        questions = 0
        for turn in range(4):
            outcome = dialogue.act(Reply(text=wrong))
            if outcome.ask is not None and outcome.ask.party == WRITER:
                counts[turn], questions = counts[turn] + 1, questions + 1
                outcome = dialogue.act(Reply(text="ask digit 1"))
            if outcome.ask is not None:
                dialogue.act(Reply(text="digit 1 up"))
        without += not questions
    for chance, count in zip(map(question_probability, range(4)), counts, strict=True):
        assert abs(count - draws * chance) < 4 * math.sqrt(draws * chance * (1 - chance))
    none = 0.0432252884
    assert abs(without - draws * none) < 4 * math.sqrt(draws * none * (1 - none))


def test_correct_turns_are_never_replaced_17_13() -> None:
    for index in range(200):
        game = play(primed(index, seed=index, q_index_base=0, decay=1.0), [f"ans {SUMS[index].gold}"])
        assert [party for party, _ in game.said] == ["student"] and game.rewards == [1.0]


def test_a_discarded_attempt_leaves_no_trace_17_13() -> None:
    """Attempts that are replaced are marked; neither they nor what is private is in any later view of the student."""
    replaced = 0
    for index in range(100):
        wrong = wrong_for(SUMS[index]) + " please" * 3
        game = play(primed(index, seed=index), [wrong, wrong, f"ans {SUMS[index].gold}", wrong])
        asked = [turn for turn in game.outcomes if turn.info.get("asked")]
        assert all(turn.info["kind"] == "question" and turn.info["correct"] is False for turn in asked)
        replaced += len(asked)
        wrong_heard = sum(message.content == wrong for message in game.views["student"])
        wrong_said = sum(text == wrong for party, text in game.said if party == "student")
        assert wrong_said - wrong_heard == len(asked)
        contents = [message.content for message in game.views["student"]]
        assert not any(leaks(said, SUMS[index].gold, "") for said in contents[:-1])
        roles = [message.role for message in game.views["student"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
    assert replaced > 50


def test_the_student_goes_on_as_if_it_had_asked() -> None:
    dialogue = primed(decay=1.0)
    begun = dialogue.begin()
    assert begun.ask is not None
    told = dialogue.act(Reply(text=wrong_for(SUMS[0])))
    assert told.ask is not None and told.ask.party == WRITER and told.ask.restart and told.ask.exchange == 0
    asked = dialogue.act(Reply(text="ask digit 1"))
    assert asked.ask is not None and asked.ask.party == "teacher"
    assert asked.ask.context.utterance == "ask digit 1" and asked.ask.context.attempt.kind == "question"
    assert wrong_for(SUMS[0]) not in str(asked.ask.messages)
    after = dialogue.act(Reply(text="digit 1 even"))
    assert after.ask is not None and after.ask.restart and after.ask.exchange == 1
    first, question, answer = after.ask.messages
    assert (first,) == begun.ask.messages
    assert question == Message("assistant", "ask digit 1", "student", 0)
    assert answer == Message("user", "digit 1 even", "teacher", 0)


def test_a_leaking_question_is_written_again_then_dropped() -> None:
    gold = SUMS[0].gold
    drafts = iter([f"ask is it {gold}", "digit", f"ask ans {gold}", "ask digit 1"])
    game = play(primed(decay=1.0, turns=2), [wrong_for(SUMS[0])] * 2, lambda *_: next(drafts, "ask digit 2"))
    infos = [outcome.info for outcome in game.outcomes if "asked" in outcome.info]
    assert [info["leak"] for info in infos[:4]] == [True, False, True, False]  # of the second the form is wrong
    assert [info["asked"] for info in infos[:4]] == [False, False, False, True]
    assert [info["attempts"] for info in infos[:4]] == [1, 2, 3, 4]
    hopeless = play(primed(decay=1.0, turns=2), [wrong_for(SUMS[0])] * 2, lambda *_: f"ask is it {gold}")
    assert [party for party, _ in hopeless.said] == ["student", *[WRITER] * 4, "teacher", "student", *[WRITER] * 4]
    assert not any(outcome.info.get("asked") for outcome in hopeless.outcomes)
    assert hopeless.views["student"][1].content == wrong_for(SUMS[0])  # the attempt stands


@pytest.mark.parametrize("spared", [False, True])
def test_the_last_turn_is_spared_on_request(spared: bool) -> None:
    game = play(primed(decay=1.0, turns=2, no_question_in_last_turn=spared), [wrong_for(SUMS[0])] * 2)
    assert sum(party == WRITER for party, _ in game.said) == (1 if spared else 2)


def test_what_a_model_that_writes_is_told() -> None:
    seen: list[str] = []

    def write(context: TeacherContext, messages: Sequence[Message]) -> Reply:
        seen.append(messages[-1].content)
        assert len(messages) == 1  # never its earlier briefings
        return Reply(text="the gold is 1 <question> ask digit 2 </question> so", stop_reason="end")

    problem = Problem(id="p", domain="d", prompt="add {attempt} 1", gold="1 3 2", private={"answer": "{private} 132"})
    dialogue = QPrimedDialogue(DidacticDialogue(problem, SUMS), seed=0, decay=1.0)
    PrimedGame(dialogue, DigitHint(), write).play(["ans 1 2 2", "ans 1 1 1", "ans 1 3 2"])
    assert "add {attempt} 1" in seen[0] and "answer: {private} 132" in seen[0]  # filled in once, whatever it holds
    assert "ans 1 2 2" in seen[0] and "ans 1 1 1" in seen[1]
    assert "You: ask digit 2\nTeacher: digit 2 odd" in seen[1] and "ans 1 2 2" not in seen[1]


def test_question_in() -> None:
    assert question_in(Reply(text=" ask ")) == "ask"
    assert question_in(Reply(text="ask", stop_reason="end")) is None  # a model is told to use a block
    assert question_in(Reply(text="<question> a </question> b <question>c?</question>", stop_reason="end")) == "c?"
    assert question_in(Reply(text="<question> </question>", stop_reason="end")) is None


def test_scripted_writers() -> None:
    problem = Problem(id="p", domain="d", prompt="add 47 85", gold="1 3 2")

    def written(answer: str | None, key: int = 0) -> str:
        return AskWrongDigit()(TeacherContext(problem, Attempt("answer", answer), (), 0), key)

    assert [written(answer) for answer in ("1 2 2", "2 3 2", "1 3 3")] == [f"ask digit {n}" for n in (2, 1, 3)]
    assert {written("1 3", key) for key in range(3)} == {written(None, key) for key in range(3)}
    assert FixedQuestion()(TeacherContext(problem, Attempt("malformed"), (), 0), 0) == "ask"


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="decay is 1.5"):
        primed(decay=1.5)
    with pytest.raises(ValueError, match="q_index_base is 2; turns are counted from 0 or 1"):
        primed(q_index_base=2)
    with pytest.raises(ValueError, match=re.escape("must contain {attempt}")):
        primed(instruction=QUESTION_INSTRUCTION.replace("{attempt}", ""))
    with pytest.raises(ValueError, match="FixedQuestion.text is empty"):
        FixedQuestion(" ")
