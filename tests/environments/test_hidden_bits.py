"""HiddenBits (sml.md 15.4, 16.5): exact optima against played dialogues and against every strategy there is."""

import random
from functools import cache

import pytest

from lit_rl.environments import BitTeacher, DidacticDialogue, HiddenBits, TeacherContext, best_asks, leaks, plan_value
from lit_rl.environments.base import Reply
from lit_rl.episodes import Rollouts
from lit_rl.parties import PolicyParty, ScriptedParty
from lit_rl.policy import Policy, PolicyConfig
from lit_rl.rollout import Planned, play
from lit_rl.sampling import SamplingSettings
from lit_rl.tiny import TinyModel
from tests.environments.conftest import Game


@pytest.mark.parametrize(
    ("asks", "solved", "discounted", "plain"),
    [(0, 0.5, 0.316625, 0.5), (1, 0.75, 0.38325, 0.75), (2, 1.0, 0.4165, 1.0), (3, 1.0, 0.343, 1.0)],
)
def test_golden_plans(asks: int, solved: float, discounted: float, plain: float) -> None:
    """sml.md 16.5, 3 bits in 4 turns."""
    plan = plan_value(3, 4, asks, gamma=0.7)
    assert (plan.solved, plan.value) == pytest.approx((solved, discounted))
    assert plan_value(3, 4, asks).value == pytest.approx(plain)


@pytest.mark.parametrize(
    ("bits", "penalty", "asks", "value"),
    [
        (3, 0.0, 2, 0.4165),
        (3, 0.25, 2, 0.35525),
        (3, 0.5, 3, 0.343),
        (2, 0.0, 0, 0.63325),
        (2, 0.25, 1, 0.5075),
        (2, 0.5, 2, 0.49),
    ],
)
def test_golden_optima(bits: int, penalty: float, asks: int, value: float) -> None:
    """sml.md 16.5: the penalty decides how many questions are best (gamma 0.7)."""
    assert best_asks(bits, 4, gamma=0.7, penalty=penalty) == asks
    assert plan_value(bits, 4, asks, gamma=0.7, penalty=penalty).value == pytest.approx(value)


@pytest.mark.parametrize("gamma", [0.5, 0.7, 1.0])
@pytest.mark.parametrize("penalty", [0.0, 0.25, 1.0])
@pytest.mark.parametrize(("bits", "turns"), [(1, 3), (2, 4), (3, 4), (3, 5)])
def test_no_strategy_beats_the_best_plan(bits: int, turns: int, gamma: float, penalty: float) -> None:
    """Dynamic programming over all that can be known: questions and guesses in any order, or saying nothing."""

    @cache
    def best(left: frozenset[int], asked: int, turns: int) -> float:
        if not turns:
            return 0.0
        values = [gamma * best(left, asked, turns - 1)]
        if asked < bits:
            on = frozenset(n for n in left if n >> (bits - 1 - asked) & 1)
            parts = [part for part in (on, left - on) if part]
            values.append(sum(len(part) / len(left) * gamma * best(part, asked + 1, turns - 1) for part in parts))
        for number in left:
            rest = left - {number}
            missed = -penalty + gamma * best(rest, asked, turns - 1) if rest else 0.0
            values.append((1 + len(rest) * missed) / len(left))
        return max(values)

    optimum = best(frozenset(range(2**bits)), 0, turns)
    asks = best_asks(bits, turns, gamma, penalty)
    assert plan_value(bits, turns, asks, gamma, penalty).value == pytest.approx(optimum)
    ceiling = HiddenBits(bits).ceiling(turns)
    assert ceiling == [max(plan_value(bits, k, asks).solved for asks in range(k + 1)) for k in range(1, turns + 1)]


def planned_words(bits: int, asks: int, told: list[str], guesses: int) -> str:
    """What a student with a plan says, who has heard ``told`` and guessed so many times."""
    if len(told) < asks:
        return "ask"
    known = sum((word == "on") << (bits - 1 - i) for i, word in enumerate(told))
    return f"ans {known + guesses}"


@pytest.mark.parametrize(("bits", "asks"), [(3, 0), (3, 1), (3, 2), (3, 3), (2, 1)])
def test_played_plans_are_worth_what_is_said(bits: int, asks: int) -> None:
    """Over all hidden numbers, with penalty 0.25 and gamma 0.7."""
    tasks, teacher, solved, value = HiddenBits(bits), BitTeacher(), 0.0, 0.0
    for problem in (tasks[i] for i in range(len(tasks))):
        dialogue = DidacticDialogue(problem, tasks, wrong_attempt_penalty=0.25)
        told: list[str] = []
        outcome, guesses, turn = dialogue.begin(), 0, 0
        while (ask := outcome.ask) is not None:
            if ask.party == "student":
                words = planned_words(bits, asks, told, guesses)
                guesses += words != "ask"
                outcome = dialogue.act(reply(words))
                value += 0.7**turn * outcome.rewards.get("student", 0.0) / len(tasks)
                turn += 1
            else:
                said = teacher(ask.context, 0)
                told += [said] if said in ("on", "off") else []
                outcome = dialogue.act(reply(said))
        solved += (outcome.stop_reason == "solved") / len(tasks)
    plan = plan_value(bits, 4, asks, gamma=0.7, penalty=0.25)
    assert (solved, value) == pytest.approx((plan.solved, plan.value))


def reply(text: str) -> Reply:
    return Reply(text=text)


def test_the_teacher_tells_one_bit_after_the_other() -> None:
    tasks = HiddenBits(3)
    said = ["ask", "ans 0 ask", "ask", "so", "ask please", "ask", "ans 1", "ans 1 ans 2", "ans 6"]
    dialogue = DidacticDialogue(tasks[6], tasks, max_turns=9)  # 6 is 1 1 0
    game = Game(dialogue, lambda context, _: BitTeacher()(context, 0)).play(said)
    please = "please answer or ask"
    assert game.heard() == ["on", "no", "on", please, "off", "no", "no", please]
    assert game.outcomes[-1].stop_reason == "solved"


def test_turns_are_incomplete_until_all_bits_are_told() -> None:
    tasks = HiddenBits(2)
    dialogue = DidacticDialogue(tasks[1], tasks)
    game = Game(dialogue, lambda context, messages: BitTeacher()(context, 0)).play(["ans 3", "ask", "ask", "ans 1"])
    turns = [outcome.info for outcome in game.outcomes if "kind" in outcome.info]
    assert [turn["incomplete"] for turn in turns] == [True, True, True, False]


def test_the_teacher_leaks_nothing() -> None:
    """Over 3 000 random dialogues (sml.md 17.5), not even where nothing is public; and what it tells is true."""
    rng, tasks = random.Random(0), HiddenBits(4)
    for _ in range(3000):
        problem = tasks[rng.randrange(16)]
        utterances = [rng.choice(["ask", "ask", f"ans {rng.randrange(16)}", "so", ""]) for _ in range(6)]
        dialogue = DidacticDialogue(problem, tasks, max_turns=6)
        game = Game(dialogue, lambda context, _: BitTeacher()(context, 0)).play(utterances)
        told = [words for words in game.heard() if words in ("on", "off")]
        assert [word == "on" for word in told] == [bit == "1" for bit in problem.private["bits"][: len(told)]]
        assert not any(info["leak"] for info in game.infos)
        assert not any(leaks(words, secret, "") for words in game.heard() for secret in dialogue.secrets)


WORDS = "find bits ans ask on off no please answer or"


def test_a_tiny_model_plays() -> None:
    policy = Policy(PolicyConfig(tiny=TinyModel(words=WORDS.split(), numbers=8, hidden_size=16, layers=1, heads=2)))
    tasks = HiddenBits(3)
    planned = [
        Planned(environment=DidacticDialogue(tasks[i], tasks), index=i, task_id=str(i), group=i) for i in range(8)
    ]
    student = PolicyParty(settings=SamplingSettings(max_tokens=3), adapter="student")
    parties = {"student": student, "teacher": ScriptedParty(BitTeacher(), "teacher")}
    episodes = play(planned, parties, policy, seed=0).episodes
    rollouts = Rollouts.from_episodes(episodes, trained=["student"], parties=["student", "teacher"])
    for row, episode in enumerate(episodes):
        told = policy.tokenizer.decode(rollouts.input_ids[row][rollouts.party_ids[row] == 1]).replace(" <end>", "")
        assert told.split() == " ".join(turn.text for turn in episode.turns_of("teacher")).split()
    kinds = {turn.info["kind"] for episode in episodes for turn in episode.turns_of("student")}
    assert {"question", "answer"} <= kinds


def test_bad_options() -> None:
    for bits in (0, 17):
        with pytest.raises(ValueError, match=f"bits is {bits}; it must lie in 1 .. 16"):
            HiddenBits(bits)
    for arguments in ({"bits": 0}, {"turns": 0}, {"asks": 5}, {"asks": -1}, {"gamma": 1.1}, {"penalty": -0.1}):
        with pytest.raises(ValueError, match="plan_value: "):
            plan_value(**({"bits": 3, "turns": 4, "asks": 1} | arguments))
    with pytest.raises(IndexError):
        HiddenBits(2)[4]


def test_another_problem_in_mind() -> None:
    """The "shuffled" control: the bits are those of the other problem."""
    tasks = HiddenBits(2)
    attempt = tasks.verify(tasks[0], "ask")
    assert BitTeacher()(TeacherContext(tasks[3], attempt, (), 0, "ask"), 0) == "on"
