"""Questions below which the user names an answer."""

from dataclasses import replace

import pytest

from lit_rl.environments import Attempt, HintedTasks, LabelledTasks, NumberSearch, Problem, ReasoningGymTasks
from lit_rl.environments.base import Reply
from lit_rl.environments.completion import Completion
from lit_rl.environments.navigation import GridNavigation

PLAIN = GridNavigation(size=30, steps=4)


def test_the_hint_stands_below_the_question_and_changes_nothing_else() -> None:
    tasks = HintedTasks(PLAIN, "so {hint} or {hint}")
    assert len(tasks) == 30 and tasks.name == PLAIN.name
    for index in range(30):
        plain, problem = PLAIN[index], tasks[index]
        assert problem.prompt == f"{plain.prompt}\nso {plain.gold} or {plain.gold}"
        assert problem.meta == {**plain.meta, "unhinted": plain.prompt, "hint": plain.gold}
        assert replace(problem, prompt=plain.prompt, meta=plain.meta) == plain


def test_a_wrong_hint_is_one_of_the_other_labels() -> None:
    tasks = HintedTasks(PLAIN, "so {hint}", "wrong")
    hints = [tasks[index].meta["hint"] for index in range(30)]
    assert all(hint in PLAIN.labels and hint != PLAIN[index].gold for index, hint in enumerate(hints))
    assert len(set(hints)) > 4
    assert hints == [HintedTasks(PLAIN, "so {hint}", "wrong")[index].meta["hint"] for index in range(30)]
    assert hints != [HintedTasks(PLAIN, "so {hint}", "wrong", seed=1)[index].meta["hint"] for index in range(30)]


def test_answers_are_verified_as_without_a_hint() -> None:
    """By the source itself, which sees its own prompt."""
    seen: list[str] = []

    class Watched(GridNavigation):
        def verify(self, problem: Problem, utterance: str) -> Attempt:
            seen.append(problem.prompt)
            return super().verify(problem, utterance)

    tasks = HintedTasks(Watched(size=5, steps=4), "so {hint}", "wrong")
    problem = tasks[3]
    assert tasks.verify(problem, f"<think> so </think> Answer : {problem.gold}").correct
    attempt = tasks.verify(problem, f"<think> so </think> Answer : {problem.meta['hint']}")
    assert attempt.answer == problem.meta["hint"] and not attempt.correct
    assert seen == [problem.meta["unhinted"]] * 2


def test_a_turn_tells_the_question_without_its_hint() -> None:
    tasks = HintedTasks(LabelledTasks(ReasoningGymTasks("syllogism", 3), {"A": "Yes", "B": "No"}), "I think {hint}.")
    world = Completion(tasks[1], tasks, party="speaker")
    assert world.messages[-1].content.endswith(f"\nI think {tasks[1].gold}.")
    info = world.act(Reply(text="<think> hm </think> Yes")).info
    assert info["prompt"] == f"{info['unhinted']}\nI think {info['hint']}."
    assert info["unhinted"] == tasks.tasks[1].prompt and info["hint"] == info["gold"]
    assert info["options"] == {"A": "Yes", "B": "No"} and info["answer"] == "A"
    plain = Completion(PLAIN[0], PLAIN, party="speaker").act(Reply(text="")).info
    assert not {"unhinted", "hint"} & set(plain)


def test_what_cannot_be_hinted_is_refused() -> None:
    with pytest.raises(ValueError, match="template is 'so'; it must contain"):
        HintedTasks(PLAIN, "so")
    with pytest.raises(ValueError, match="hinted is 'right'; use one of"):
        HintedTasks(PLAIN, "so {hint}", "right")
    with pytest.raises(ValueError, match="has no label beside the right one; use hinted='gold'"):
        HintedTasks(NumberSearch(5), "so {hint}", "wrong")
    assert HintedTasks(NumberSearch(5), "so {hint}")[0].meta["hint"] == NumberSearch(5)[0].gold
    with pytest.raises(IndexError):
        HintedTasks(PLAIN, "so {hint}")[30]
