"""A student that criticises itself: what it reads, when it stops, and what a perfect critic would make of it."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from lit_rl.environments import DidacticDialogue, HigherLower, NumberSearch
from lit_rl.environments.base import Reply
from lit_rl.environments.problems import Attempt, Problem
from lit_rl.environments.self_correction import FalseCriticism, SelfCorrection
from lit_rl.environments.teacher_words import RETRY
from lit_rl.episodes import Episode, Rollouts
from lit_rl.metrics import accuracy_by_turn
from lit_rl.parties import Call, PolicyParty, ScriptedParty
from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.rollout import Planned, play
from lit_rl.sampling import SamplingSettings
from lit_rl.tiny import TinyModel

SOURCE = NumberSearch(6)
STUDENT = PolicyParty(settings=SamplingSettings(max_tokens=3), adapter="student")
BASE = PolicyParty(settings=SamplingSettings(max_tokens=3), adapter=None)
WORDS = ["find", "n", "in", "ans", "higher", "lower", "please", "answer", "or", "ask", "correct"]
WORDS += ["That", "is", "not", ".", "Please", "try", "again"]


def make(**options: Any) -> Policy:
    """Random, and sure enough of some words to say them often."""
    tiny = TinyModel(words=WORDS, numbers=6, hidden_size=16, layers=1, heads=2, max_length=96, initializer_range=0.2)
    adapters = {"student": LoRA(rank=2, alpha=4.0)}
    return Policy(PolicyConfig(tiny=tiny, adapters=adapters, prefill={"student": "ans "}, **options))


@pytest.fixture(scope="module")
def policy() -> Policy:
    return make()


class Teacher:
    """Counts its calls."""

    def __init__(self) -> None:
        self.script, self.calls = ScriptedParty(HigherLower(), "teacher"), list[Call]()

    def reply(self, calls: Sequence[Call]) -> list[Reply]:
        self.calls += calls
        return self.script.reply(calls)


def run(
    policy: Policy, world: Any = SelfCorrection, count: int = 24, teacher: Any = None, **options: Any
) -> list[Episode]:
    source = options.pop("source", SOURCE)
    planned = [
        Planned(environment=world(source[i % 6], source, **options), index=i, task_id=str(i), group=i)
        for i in range(count)
    ]
    parties = {"student": STUDENT, "teacher": teacher or Teacher(), "critic": BASE}
    return play(planned, parties, policy, seed=3).episodes


def told(episode: Episode) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    return [(t.text, tuple(t.prompt_ids), tuple(t.completion_ids)) for t in episode.turns]


def decoded(policy: Policy, episode: Episode) -> str:
    rows = Rollouts.from_episodes([episode], trained=["student"], parties=["student", "teacher", "critic"])
    text: str = policy.tokenizer.decode(rows.input_ids[-1][rows.attention_mask[-1]])
    return text


# -- the row -----------------------------------------------------------------------------------------------------------


def test_problem_attempts_and_critiques_are_all_there_is(policy: Policy) -> None:
    """rl2f.md 16.8: no teacher is called, and the row is what the template makes of what the student said."""
    teacher = Teacher()
    episodes = run(policy, teacher=teacher, max_turns=3)
    assert not teacher.calls
    for episode in episodes:
        attempts = [turn for turn in episode.turns if "kind" in turn.info]
        critiques = [turn for turn in episode.turns if turn.info.get("critique")]
        assert [t.party for t in episode.turns] == ["student"] * 5
        assert (len(attempts), len(critiques)) == (3, 2)
        assert [t.exchange for t in episode.turns] == [0, 0, 1, 1, 2]
        wanted = f"<user> find n in 0 5 <end> <assistant> {said(policy, attempts[0], 'ans ')}"
        for critique, attempt in zip(critiques, attempts[1:], strict=True):
            wanted += f" <user> {said(policy, critique)} <assistant> {said(policy, attempt, 'ans ')}"
        cut = "" if attempts[-1].stop_reason == "end" else " <end>"  # nothing is appended to the last attempt
        assert decoded(policy, episode) + cut == wanted


def said(policy: Policy, turn: Any, prefill: str = "") -> str:
    text: str = prefill + policy.tokenizer.decode(turn.completion_ids)
    return text if turn.stop_reason == "end" else f"{text} <end>"  # cut, and ended for it


def test_a_row_per_turn_reads_the_same(policy: Policy) -> None:
    for episode in run(make(rows="turn"), count=4, max_turns=2):
        first, critique, second = episode.turns
        assert all(turn.new_row for turn in episode.turns)
        text = policy.tokenizer.decode(second.prompt_ids)
        assert text.startswith("<user> find n in 0 5 <end> <assistant> ans") and text.endswith("<end> <assistant> ans")
        assert first.text in text and critique.text in text


def test_another_critic_has_a_conversation_of_its_own(policy: Policy) -> None:
    """The base reads problem and attempts and speaks as a user; its words reach the student's row, its row does not."""
    for episode in run(policy, critic="critic", max_turns=3):
        assert [t.party for t in episode.turns] == ["student", "critic", "student", "critic", "student"]
        first, second = (t for t in episode.turns if t.party == "critic")
        attempts = [t for t in episode.turns if t.party == "student"]
        names = policy.tokenizer.decode
        assert names(first.prompt_ids) == (f"<user> find n in 0 5 <end> <assistant> {attempts[0].text} <end> <user>")
        assert names(second.prompt_ids).endswith(f"<assistant> {attempts[1].text} <end> <user>")
        assert names(attempts[1].prompt_ids).endswith(f"<user> {first.text} <end> <assistant> ans".replace("  ", " "))
        assert not attempts[1].heard  # no target of anybody


def test_given_critiques_are_heard_and_nobody_is_asked(policy: Policy) -> None:
    for episode in run(policy, critiques=["higher", "lower"], max_turns=4):
        assert [t.party for t in episode.turns] == ["student"] * 4
        heard = [policy.tokenizer.decode(t.prompt_ids).split("<user>")[1].split("<end>")[0] for t in episode.turns[1:]]
        assert [text.strip() for text in heard] == ["higher", "lower", "lower"]


def test_long_critiques_are_cut(policy: Policy) -> None:
    for episode in run(policy, max_critique_tokens=1):
        assert all(len(t.completion_ids) == 1 for t in episode.turns if t.info.get("critique"))


# -- stopping rules ----------------------------------------------------------------------------------------------------

ACCEPT = "Please"  # a word this policy says often


def rules(policy: Policy, source: Any = SOURCE) -> dict[str, list[Episode]]:
    options: dict[str, Any] = {"max_turns": 4, "accept_message": ACCEPT, "max_critique_tokens": 1, "source": source}
    return {stop: run(policy, stop=stop, count=60, **options) for stop in ("oracle", "none", "self")}


def test_the_rules_say_the_same_up_to_where_they_part(policy: Policy) -> None:
    """rl2f.md section 7: one random stream per dialogue; 16.15: and the same again with the same seed."""
    found, again = rules(policy), rules(policy)
    for oracle, none, own in zip(*found.values(), strict=True):
        assert told(oracle) == told(none)[: len(oracle.turns)] and told(own) == told(none)[: len(own.turns)]
        right = [t.info["correct"] for t in none.turns if "kind" in t.info]
        assert len(right) == 4
        assert len(oracle.turns) == (2 * right.index(True) + 1 if True in right else 7)
        accepts = [t.info["accepts"] for t in none.turns if t.info.get("critique")]
        assert len(own.turns) == (2 * accepts.index(True) + 2 if True in accepts else 7)
        assert own.stop_reason == ("accepted" if True in accepts else "max_turns")
    for stop, episodes in found.items():
        assert list(map(told, episodes)) == list(map(told, again[stop]))
        assert len({len(e.turns) for e in episodes}) == (1 if stop == "none" else 4), "the test needs all cases"


def test_acc_cum_is_at_least_what_the_others_reach(policy: Policy) -> None:
    """rl2f.md 16.10."""
    none = [[t.info["correct"] for t in e.turns if "kind" in t.info] for e in rules(policy)["none"]]
    own = [[t.info["correct"] for t in e.turns if "kind" in t.info][-1] for e in rules(policy)["self"]]
    cumulative = [sum(any(right[:k]) for right in none) for k in range(1, 5)]
    assert cumulative == sorted(cumulative)
    assert all(cumulative[k] >= sum(right[k] for right in none) for k in range(4))
    assert sum(own) <= cumulative[3]


class Liar(NumberSearch):
    """Calls everything right."""

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        return Attempt("answer", utterance, True)


@pytest.mark.parametrize("stop", ["none", "self"])
def test_no_word_of_the_verifier_reaches_a_blind_loop(stop: str, policy: Policy) -> None:
    """rl2f.md 16.8."""
    honest, lied = rules(policy)[stop], rules(policy, Liar(6))[stop]
    assert list(map(told, honest)) == list(map(told, lied))


def test_a_perfect_critic_is_the_teacher(policy: Policy) -> None:
    """rl2f.md 16.9: to the token, under the same seed."""
    taught = run(policy, DidacticDialogue)
    corrected = run(policy, critic="teacher", stop="oracle")
    assert list(map(told, taught)) == list(map(told, corrected))
    for ours, theirs in zip(taught, corrected, strict=True):
        assert [t.info.get("correct") for t in ours.turns] == [t.info.get("correct") for t in theirs.turns]
        assert (ours.stop_reason, ours.terminated) == (theirs.stop_reason, theirs.terminated)
    assert {e.stop_reason for e in taught} == {"solved", "max_turns"}


def bisected(size: int, target: int, turns: int, hint: Any) -> int:
    """The turn at which a student finds the target that bisects by its critic's words; -1 never."""
    source = NumberSearch(size)
    world = SelfCorrection(source[target], source, max_turns=turns, stop="oracle", critic="critic")
    low, high, turn, outcome = 0, size - 1, -1, world.begin()
    while outcome.ask is not None:
        middle = (low + high) // 2
        if outcome.ask.party == "critic":
            said = hint(target > middle)
            low, high = (middle + 1, high) if said == "higher" else (low, middle - 1)
            outcome = world.act(Reply(text=said))
        else:
            turn += 1
            outcome = world.act(Reply(text=f"ans {(low + high) // 2}" if low <= high else "ans 99"))
    return turn if outcome.stop_reason == "solved" else -1


@pytest.mark.parametrize(
    ("size", "reliability", "wanted"),
    [
        (15, 1.0, [0.066667, 0.2, 0.466667, 1.0]),
        (15, 0.9, [0.066667, 0.186667, 0.402667, 0.791467]),
        (15, 0.5, [0.066667, 0.133333, 0.2, 0.266667]),  # 16.11: an uninformative critic is worth k / 15
        (7, 0.9, [0.142857, 0.4, 0.862857]),
    ],
)
def test_a_noisy_critic_of_a_student_that_bisects(size: int, reliability: float, wanted: list[float]) -> None:
    """rl2f.md 15.1."""
    rng, each = random.Random(0), 300

    def hint(up: bool) -> str:
        return "higher" if up == (rng.random() < reliability) else "lower"

    turns = [bisected(size, target, len(wanted), hint) for target in range(size) for _ in range(each)]
    found = accuracy_by_turn(torch.tensor(turns), len(wanted)).tolist()
    for k, accuracy in enumerate(wanted):
        error = (accuracy * (1 - accuracy) / len(turns)) ** 0.5
        assert found[k] == pytest.approx(accuracy, abs=3 * error + 1e-6)


# -- false criticism ---------------------------------------------------------------------------------------------------


def test_a_right_answer_is_called_wrong_once(policy: Policy) -> None:
    """rl2f.md 16.14: after a dialogue that is the teacher's own to the token, and is not learned from."""

    def world(problem: Problem, source: Any) -> FalseCriticism:
        return FalseCriticism(DidacticDialogue(problem, source, accept_message="correct"), RETRY)

    taught, probed = run(policy, DidacticDialogue), run(policy, world)
    solved = 0
    for dialogue, probe in zip(taught, probed, strict=True):
        assert told(dialogue) == told(probe)[: len(dialogue.turns)]
        if dialogue.stop_reason != "solved":
            assert len(probe.turns) == len(dialogue.turns)
            continue
        solved += 1
        last, rest = probe.turns[-1], probe.turns[-2]
        assert len(probe.turns) == len(dialogue.turns) + 1 and probe.stop_reason == "solved"
        assert rest.reward == 1 and last.reward == 0 and last.exchange == rest.exchange
        assert "That is not correct" in policy.tokenizer.decode(last.prompt_ids)
        assert last.info == {"held": bool(SOURCE.verify(SOURCE[probe.index % 6], last.text).correct)}
    assert solved


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop": "never"}, r"stop is 'never'; it must be one of \['oracle', 'none', 'self'\]"),
        ({"stop": "self"}, "stop is 'self', which needs an accept_message"),
        ({"max_turns": 0}, "max_turns is 0; it must be at least 1"),
        ({"max_critique_tokens": 0}, "max_critique_tokens is 0"),
        ({"critiques": []}, "critiques is empty; give at least one"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelfCorrection(SOURCE[0], SOURCE, **options)
