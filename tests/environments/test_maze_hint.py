"""MazeHint (rl2f.md 14.4): golden walks, mazes that can be solved, walls nobody is told of, and nothing that leaks."""

import random

import pytest

from lit_rl.environments import DidacticDialogue, MazeFeedback, MazeHint, Problem, TeacherContext, leaks
from lit_rl.environments.maze_hint import MOVES, Wall, moved, shortest_ways
from lit_rl.episodes import Rollouts
from lit_rl.parties import PolicyParty, ScriptedParty
from lit_rl.policy import Policy, PolicyConfig
from lit_rl.rollout import Planned, play
from lit_rl.sampling import SamplingSettings
from lit_rl.tiny import TinyModel
from tests.environments.conftest import Game

# . .|.   a wall right of (0, 1), and one below (1, 0)
# . . .
# -
# . . .
MAZE = Problem(
    id="m",
    domain="maze_hint",
    prompt="maze 3 start 0 0 goal 0 2",
    gold="D R R U",
    private={"answer": "DRRU", "walls": "0 1 R , 1 0 D", "max_moves": "5"},
)
TASKS = MazeHint(max_moves=5)


@pytest.mark.parametrize(
    ("utterance", "words"),
    [
        ("ans R R", "step 2 blocked"),
        ("ans D D", "step 2 blocked"),
        ("ans U", "step 1 blocked"),
        ("ans D R D D", "step 4 blocked"),
        ("ans R D R U L", "step 5 blocked"),
        ("ans R D", "not at goal"),
        ("ans R D R U D", "not at goal"),
        ("ans R D R U U U", "at most 5 moves"),
        ("ans R L R D R U", "at most 5 moves"),  # to the goal, but too late
        ("ans R D up", "please answer or ask"),
        ("ans r", "please answer or ask"),
        ("ask", "please answer or ask"),
        ("R D R U", "please answer or ask"),
        ("", "please answer or ask"),
    ],
)
def test_golden_walks(utterance: str, words: str) -> None:
    attempt = TASKS.verify(MAZE, utterance)
    assert not attempt.correct
    assert MazeFeedback()(TeacherContext(MAZE, attempt, (), 0, utterance), 0) == words


@pytest.mark.parametrize("utterance", ["ans D R R U", "ans R D R U", "way : ans D R R U"])
def test_any_way_to_the_goal_counts(utterance: str) -> None:
    assert TASKS.verify(MAZE, utterance).correct


@pytest.mark.parametrize("options", [{}, {"walls": 0}, {"walls": 23}, {"width": 2, "walls": 3, "max_moves": 1}])
def test_every_maze_can_be_solved_in_time_by_its_answer(options: dict[str, int]) -> None:
    tasks = MazeHint(size=200, seed=1, **options)
    for problem in (tasks[i] for i in range(200)):
        assert tasks.verify(problem, f"ans {problem.gold}").correct
        assert 1 <= len(problem.gold.split()) <= tasks.max_moves
        assert len(problem.private["walls"].split(" , ")) == max(1, tasks.walls)


def test_the_public_text_has_no_walls() -> None:
    """It is a function of width, start and goal; other mazes with the same text have other walls."""
    tasks = MazeHint(size=2000)
    walls: dict[str, set[str]] = {}
    for problem in (tasks[i] for i in range(2000)):
        word, width, start, row, column, goal, *end = problem.prompt.split()
        assert (word, width, start, goal) == ("maze", "4", "start", "goal") and len(end) == 2
        assert [row, column] != end and all(0 <= int(n) < 4 for n in (row, column, *end))
        walls.setdefault(problem.prompt, set()).add(problem.private["walls"])
    assert len(walls) <= 16 * 15
    assert max(len(known) for known in walls.values()) > 5


def test_who_remembers_every_blocked_step_gets_there() -> None:
    """Each message shows one more wall, so an attempt for each wall and one more are enough."""
    tasks, teacher, turns = MazeHint(size=300, seed=2), MazeFeedback(), []
    for problem in (tasks[i] for i in range(300)):
        _, _, _, row, column, _, *goal = problem.prompt.split()
        start, known = (int(row), int(column)), set[Wall]()
        for turn in range(1, tasks.walls + 2):
            moves = shortest_ways(4, frozenset(known), start, 8)[int(goal[0]), int(goal[1])]
            utterance = f"ans {' '.join(moves)}"
            attempt = tasks.verify(problem, utterance)
            if attempt.correct:
                turns.append(turn)
                break
            words = teacher(TeacherContext(problem, attempt, (), 0, utterance), 0).split()
            assert words[::2] == ["step", "blocked"]
            cell = start
            for move in moves[: int(words[1]) - 1]:
                after = moved(cell, move, 4, frozenset())
                assert after is not None
                cell = after
            move = moves[int(words[1]) - 1]
            beyond = (cell[0] + MOVES[move][0], cell[1] + MOVES[move][1])
            wall = (*min(cell, beyond), "R" if move in "LR" else "D")
            assert wall not in known
            known.add(wall)
    assert len(turns) == 300 and 1 < sum(turns) / 300 < 3


def test_the_teacher_leaks_nothing() -> None:
    """Over 3 000 random dialogues (sml.md 17.5), not even where nothing is public."""
    rng, tasks = random.Random(0), MazeHint(size=3000)
    for index in range(3000):
        utterances = [f"ans {' '.join(rng.choices('UDLR', k=rng.randint(1, 10)))}" for _ in range(4)]
        utterances[rng.randrange(4)] = rng.choice(["ans", "ask", "so", "ans U x", ""])
        dialogue = DidacticDialogue(tasks[index], tasks)
        game = Game(dialogue, lambda context, _: MazeFeedback()(context, 0)).play(utterances)
        assert not any(info["leak"] for info in game.infos)
        for words in game.heard():
            assert not any(leaks(words, secret, "") for secret in dialogue.secrets)


def test_problems_depend_on_the_seed_alone() -> None:
    def made(seed: int) -> list[Problem]:
        return [MazeHint(size=20, seed=seed)[i] for i in range(20)]

    assert made(0) == made(0) != made(1)


WORDS = "maze start goal ans U D L R step blocked not at most moves please answer or ask"


def test_a_tiny_model_plays() -> None:
    tiny = TinyModel(words=WORDS.split(), numbers=10, hidden_size=16, layers=1, heads=2)
    policy = Policy(PolicyConfig(tiny=tiny, prefill={"student": "ans "}))
    tasks = MazeHint(size=4)
    planned = [
        Planned(environment=DidacticDialogue(tasks[i], tasks, max_turns=3), index=i, task_id=str(i), group=i)
        for i in range(4)
    ]
    student = PolicyParty(settings=SamplingSettings(max_tokens=2), adapter="student")
    parties = {"student": student, "teacher": ScriptedParty(MazeFeedback(), "teacher")}
    episodes = play(planned, parties, policy, seed=0).episodes
    rollouts = Rollouts.from_episodes(episodes, trained=["student"], parties=["student", "teacher"])
    for row, episode in enumerate(episodes):
        told = policy.tokenizer.decode(rollouts.input_ids[row][rollouts.party_ids[row] == 1]).replace(" <end>", "")
        assert told.split() == " ".join(turn.text for turn in episode.turns_of("teacher")).split()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size is 0; it must be at least 1"),
        ({"width": 1}, "width is 1; it must be at least 2"),
        ({"max_moves": 0}, "max_moves is 0"),
        ({"walls": 24}, r"walls is 24; width 4 has room for 0 .. 23"),
        ({"walls": -1}, "walls is -1"),
    ],
)
def test_bad_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MazeHint(**options)
    with pytest.raises(IndexError):
        MazeHint(size=5)[5]
