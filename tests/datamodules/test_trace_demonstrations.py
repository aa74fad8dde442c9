"""Demonstrations of reasoning: what a tiny model learns from is what the strict parser reads."""

from collections import Counter

import jsonargparse
import pytest

from lit_rl.datamodules.trace_demonstrations import TraceDemonstrations
from lit_rl.demonstrations import demonstration_rows
from lit_rl.environments import Mixture, ReasoningGymTasks
from lit_rl.environments.modular_chain import ModularChain
from lit_rl.environments.navigation import GridNavigation
from lit_rl.environments.pointer_chase import PointerChase
from lit_rl.environments.trace_styles import STYLES, TraceStyle, trace_style
from lit_rl.environments.tracking_swaps import TrackingSwaps
from lit_rl.policy import Policy, PolicyConfig
from lit_rl.tiny import TinyModel
from lit_rl.verification.traces import ThinkTags, split_trace, split_units

FAMILIES = [TrackingSwaps(size=12), ModularChain(size=12), GridNavigation(size=12), PointerChase(size=12)]


def reply(demonstrations: TraceDemonstrations, index: int) -> str:
    return demonstrations[index].messages[-1].content


def test_a_demonstration_word_for_word() -> None:
    """As remul.md 3.4 opens a think block for a listener: the tag, a line break, lines."""
    demonstrations = TraceDemonstrations(GridNavigation(size=1, steps=4), {"explicit": 1.0}, instruction="walk")
    system, user, assistant = demonstrations[0].messages
    assert (system.role, system.content, user.role) == ("system", "walk", "user")
    assert user.content == "grid 3 3 at I ; 1 right ; 2 down ; 3 left ; 4 left ; where ?"
    assert assistant.content == (
        "<think> \n 1 right = G \n 2 down = A \n 3 left = C \n 4 left = B \n </think> Answer : B"
    )


@pytest.mark.parametrize("style", STYLES)
def test_a_tiny_model_reads_and_says_them(style: TraceStyle) -> None:
    """Through a tokenizer of words and back, nothing is lost, for every family and style."""
    tasks = Mixture(FAMILIES)
    words = list(dict.fromkeys(word for family in FAMILIES for word in family.words))
    policy = Policy(PolicyConfig(tiny=TinyModel(words=words, hidden_size=16, layers=1, heads=2)))
    demonstrations = TraceDemonstrations(tasks, {style: 1.0}, repeats=2)
    count = len(demonstrations)
    rows = demonstration_rows([demonstrations[i] for i in range(count)], policy, party="student", policy_version=0)
    for i in range(count):
        said = policy.tokenizer.decode(rows.input_ids[i][rows.target_mask[i]]).removesuffix("<end>")
        problem = tasks[i % len(tasks)]
        assert said.split() == reply(demonstrations, i).split()
        trace = split_trace(said)
        assert tasks.verify(problem, said).correct and trace.closed
        assert trace_style(problem, split_units(trace.reasoning)) == style
    assert not (rows.input_ids == policy.tokenizer.unk_token_id).any()


def test_styles_come_in_their_shares() -> None:
    demonstrations = TraceDemonstrations(
        GridNavigation(size=500), {"explicit": 3, "filler": 1, "late": 0}, repeats=4, seed=1
    )
    counts = Counter(demonstrations.style(i) for i in range(2000))
    assert set(counts) == {"explicit", "filler"} and abs(counts["explicit"] - 1500) < 80
    for i in range(0, 2000, 97):
        trace = split_trace(reply(demonstrations, i))
        problem = demonstrations.tasks[i % 500]
        assert trace_style(problem, split_units(trace.reasoning)) == demonstrations.style(i)


def test_they_depend_on_seed_and_index_alone() -> None:
    def replies(seed: int) -> list[str]:
        mixture = TraceDemonstrations(GridNavigation(size=20), {"filler": 1, "detour": 1}, repeats=2, seed=seed)
        return [reply(mixture, i) for i in reversed(range(len(mixture)))]

    assert replies(0) == replies(0) != replies(1)
    assert replies(0)[:20] != replies(0)[20:], "repeats differ"


def test_the_command_line_builds_them() -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TraceDemonstrations, "demos")
    tasks = {"class_path": "lit_rl.environments.pointer_chase.PointerChase", "init_args": {"size": 3, "places": 9}}
    config = parser.parse_object({"demos": {"tasks": tasks, "styles": {"late": 1, "explicit": 0.5}}})
    demonstrations = parser.instantiate_classes(config).demos
    assert len(demonstrations) == 3 and demonstrations.styles == {"late": 1, "explicit": 0.5}
    assert len(demonstrations.tasks.labels) == 9 and demonstrations.tags == ThinkTags()


def test_other_tags_and_words() -> None:
    tags = ThinkTags("[ think ]", "[ done ]")
    tasks = GridNavigation(size=2, tags=tags)
    demonstrations = TraceDemonstrations(tasks, {"filler": 1}, tags=tags, answer_format="{answer} .")
    assert reply(demonstrations, 0).startswith("[ think ] \n 1 ")
    assert reply(demonstrations, 0).endswith(f"\n [ done ] {tasks[0].gold} .")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"styles": {}}, "give shares of 0 or more, one above 0"),
        ({"styles": {"filler": 0}}, "give shares of 0 or more, one above 0"),
        ({"styles": {"filler": 1, "late": -1}}, "give shares of 0 or more"),
        ({"styles": {"filler": float("nan")}}, "give shares of 0 or more"),
        ({"styles": {"short": 1}}, "styles has 'short'; known are"),
        ({"answer_format": "Answer"}, "answer_format is 'Answer'; it must contain {answer}"),
        ({"answer_format": "it is {answer} or so"}, "GridNavigation reads no right answer in '<think> "),
        ({"tags": ThinkTags("[", "]")}, r"reads no right answer in '\[ .*; check the tags"),
        ({"repeats": 0}, "repeats is 0"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TraceDemonstrations(GridNavigation(size=2), **({"styles": {"filler": 1}} | options))
    with pytest.raises(IndexError):
        TraceDemonstrations(GridNavigation(size=2), {"filler": 1})[2]


def test_tasks_without_a_solution() -> None:
    with pytest.raises(ValueError, match="has no exact solution; use a trace task"):
        TraceDemonstrations(ReasoningGymTasks("gcd", 2), {"filler": 1})
