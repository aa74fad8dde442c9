"""ColourFix and its teacher: the simulated ceilings of rl2f.md 14.1, golden hints, and nothing that leaks."""

import random
from collections.abc import Callable, Sequence
from itertools import accumulate, combinations, product
from typing import Any

import pytest

from lit_rl.environments import ColourFix, ColourHint, DidacticDialogue, Problem, TeacherContext, leaks
from lit_rl.environments.colour_fix import edges_of, first_clash
from lit_rl.episodes import Rollouts
from lit_rl.parties import PolicyParty, ScriptedParty
from lit_rl.policy import Policy, PolicyConfig
from lit_rl.rollout import Planned, play
from lit_rl.sampling import SamplingSettings
from lit_rl.tiny import TinyModel
from tests.environments.conftest import Game

GRAPH = Problem(id="g", domain="d", prompt="edges 0 1 , 0 3 , 2 4", gold="0 1 0 1 2", private={"answer": "01012"})


def hint(utterance: str, kind: Any = "edge", problem: Problem = GRAPH) -> str:
    attempt = ColourFix().verify(problem, utterance)
    return ColourHint(kind)(TeacherContext(problem, attempt, (), 0, utterance), 0)


@pytest.mark.parametrize(
    ("utterance", "edge", "vertex"),
    [
        ("ans 0 0 0 0 0", "clash 0 1", "change 1"),
        ("ans 0 1 2 0 1", "clash 0 3", "change 3"),
        ("ans 1 0 2 1 1", "clash 0 3", "change 0"),
        ("ans 0 1 1 2 1", "clash 2 4", "change 2"),
        ("ans 0 1 0 1 0", "clash 2 4", "change 4"),
        ("ans 0 1", "need 5 colours", "need 5 colours"),
        ("ans 0 1 0 1 2 0", "need 5 colours", "need 5 colours"),
        ("ans 0 1 0 1 red", "please answer or ask", "please answer or ask"),
        ("ans 0 1 0 1 9", "please answer or ask", "please answer or ask"),
        ("ask 3", "please answer or ask", "please answer or ask"),
        ("", "please answer or ask", "please answer or ask"),
    ],
)
def test_golden_hints(utterance: str, edge: str, vertex: str) -> None:
    assert (hint(utterance), hint(utterance, "vertex")) == (edge, vertex)


@pytest.mark.parametrize(
    ("utterance", "correct"),
    [
        ("ans 0 1 0 1 2", True),  # the hidden colouring
        ("ans 2 0 1 0 2", True),  # another proper one
        ("ans 0 1 2 0 1", False),
        ("ans 0 1 0 1 3", False),
        ("ans 01012", False),
        ("ans 0 1 0 1 2 .", False),
        ("ans 0 1 0 1 2 ans 2 0 1 0 2", False),  # two answers
        ("ans \u00b2 1 0 1 2", False),
    ],
)
def test_any_proper_colouring_counts(utterance: str, correct: bool) -> None:
    assert ColourFix().verify(GRAPH, utterance).correct is correct


def test_problems_are_as_specified() -> None:
    """Edges sorted and distinct, ends of different hidden colours; 18.7 of 243 colourings are proper on average."""
    tasks, proper = ColourFix(size=1000), 0
    for problem in (tasks[i] for i in range(1000)):
        edges = edges_of(problem.prompt)
        assert edges == sorted(set(edges)) and len(edges) == 6 and all(a < b for a, b in edges)
        assert problem.prompt == "edges " + " , ".join(f"{a} {b}" for a, b in edges)
        assert tasks.verify(problem, f"ans {problem.gold}").correct
        proper += sum(first_clash(edges, colouring) is None for colouring in product(range(3), repeat=5))
    assert proper / 1000 == pytest.approx(18.7, abs=1.0)
    assert (
        [tasks[i] for i in range(5)]
        == [ColourFix(size=9)[i] for i in range(5)]
        != [ColourFix(9, 1)[i] for i in range(5)]
    )


Colouring = list[int]
Strategy = Callable[[random.Random, Colouring, str, Sequence[tuple[int, int]]], Colouring]


def resample(rng: random.Random, colours: Colouring, words: str, edges: Sequence[tuple[int, int]]) -> Colouring:
    return [rng.randrange(3) for _ in colours]


def fewest_conflicts(rng: random.Random, colours: Colouring, words: str, edges: Sequence[tuple[int, int]]) -> Colouring:
    """Gives a random end of the edge named another colour, one that clashes least."""
    vertex = int(rng.choice(words.removeprefix("clash ").split()))
    neighbours = [colours[a + b - vertex] for a, b in edges if vertex in (a, b)]
    return recoloured(colours, vertex, min((neighbours.count(c), rng.random(), c) for c in others(colours[vertex]))[2])


def random_end(rng: random.Random, colours: Colouring, words: str, edges: Sequence[tuple[int, int]]) -> Colouring:
    vertex = int(rng.choice(words.split()[1:]))
    return recoloured(colours, vertex, rng.choice(others(colours[vertex])))


def others(colour: int) -> list[int]:
    return [other for other in range(3) if other != colour]


def recoloured(colours: Colouring, vertex: int, colour: int) -> Colouring:
    return [colour if v == vertex else c for v, c in enumerate(colours)]


@pytest.mark.parametrize(
    ("strategy", "kind", "expected"),
    [
        (resample, "edge", [0.080, 0.154, 0.281, 0.382, 0.537]),
        (random_end, "edge", [0.082, 0.239, 0.526, 0.708, 0.878]),
        (fewest_conflicts, "edge", [0.084, 0.348, 0.796, 0.917, 0.982]),
        (random_end, "vertex", [0.078, 0.227, 0.541, 0.770, 0.961]),
    ],
)
def test_simulated_ceilings(strategy: Strategy, kind: Any, expected: list[float]) -> None:
    """rl2f.md 14.1: accuracy within 1, 2, 4, 6 and 10 attempts, the first of them random."""
    count, rng = 3000, random.Random(4)
    tasks, teacher, solved = ColourFix(size=count), ColourHint(kind), [0] * 11
    for problem in (tasks[i] for i in range(count)):
        edges, colours = edges_of(problem.prompt), [rng.randrange(3) for _ in range(5)]
        for turn in range(1, 11):
            utterance = f"ans {' '.join(map(str, colours))}"
            attempt = tasks.verify(problem, utterance)
            if attempt.correct:
                solved[turn] += 1
                break
            words = teacher(TeacherContext(problem, attempt, (), turn - 1, utterance), 0)
            colours = strategy(rng, colours, words, edges)
    accuracy = [total / count for total in accumulate(solved)]
    # Three standard errors of ours, at most 0.027, and the table's own 0.007.
    assert [accuracy[k] for k in (1, 2, 4, 6, 10)] == pytest.approx(expected, abs=0.034)


@pytest.mark.parametrize("kind", ["edge", "vertex"])
@pytest.mark.parametrize("options", [{}, {"vertices": 3, "edges": 2, "colours": 2}])
def test_the_teacher_leaks_nothing(kind: Any, options: dict[str, int]) -> None:
    """Over 3 000 random dialogues (sml.md 17.5), not even where nothing is public."""
    rng, tasks = random.Random(2), ColourFix(size=3000, **options)
    for index in range(len(tasks)):
        problem = tasks[index]
        utterances = [f"ans {' '.join(str(rng.randrange(3)) for _ in range(tasks.vertices))}" for _ in range(4)]
        utterances[rng.randrange(4)] = rng.choice(["ans 0 1", "ask", "so", ""])
        dialogue = DidacticDialogue(problem, tasks)
        game = Game(dialogue, lambda context, _: ColourHint(kind)(context, 0)).play(utterances)
        assert not any(info["leak"] for info in game.infos)
        for words in game.heard():
            assert not any(leaks(words, secret, "") for secret in dialogue.secrets)


def test_both_spellings_of_the_hidden_colouring_are_secret() -> None:
    dialogue = DidacticDialogue(GRAPH, ColourFix())
    game = Game(dialogue, lambda *_: next(drafts))
    drafts = iter(["try 01012", "try 0 1 0 1 2", "clash 0 1", "clash 0 1", "clash 0 1"])
    game.play(["ans 0 0 0 0 0"] * 4)
    assert [info["leak"] for info in game.infos] == [True, True, False, False, False]


WORDS = "edges , ans clash need colours please answer or ask That is not correct . Please try again"


def test_a_tiny_model_plays() -> None:
    tiny = TinyModel(words=WORDS.split(), numbers=6, hidden_size=16, layers=1, heads=2)
    policy = Policy(PolicyConfig(tiny=tiny, prefill={"student": "ans "}))
    tasks = ColourFix(size=4)
    planned = [
        Planned(environment=DidacticDialogue(tasks[i], tasks, max_turns=3), index=i, task_id=str(i), group=i)
        for i in range(4)
    ]
    student = PolicyParty(settings=SamplingSettings(max_tokens=7), adapter="student")
    parties = {"student": student, "teacher": ScriptedParty(ColourHint(), "teacher")}
    episodes = play(planned, parties, policy, seed=0).episodes
    rollouts = Rollouts.from_episodes(episodes, trained=["student"], parties=["student", "teacher"])
    for row, episode in enumerate(episodes):
        told = policy.tokenizer.decode(rollouts.input_ids[row][rollouts.party_ids[row] == 1]).replace(" <end>", "")
        assert told.split() == " ".join(turn.text for turn in episode.turns_of("teacher")).split()
    assert "need 5 colours" in {turn.text for episode in episodes for turn in episode.turns_of("teacher")}


def test_every_pair_of_colours_can_be_an_edge() -> None:
    most = ColourFix(size=3, vertices=4, edges=6, colours=4)  # a complete graph
    assert edges_of(most[0].prompt) == list(combinations(range(4), 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size is 0; it must be at least 1"),
        ({"vertices": 2}, "vertices is 2; it must be at least 3"),
        ({"colours": 1}, "colours is 1; it must be at least 2"),
        ({"edges": 9}, r"edges is 9; 5 vertices in 3 colours allow 1 .. 8 edges"),
        ({"edges": 0}, "edges is 0"),
    ],
)
def test_bad_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ColourFix(**options)
    with pytest.raises(ValueError, match="kind is 'face'"):
        ColourHint("face")
    with pytest.raises(IndexError):
        ColourFix(size=5)[5]
