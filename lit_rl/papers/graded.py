"""Questions of graded quality about a synthetic paper: for every combination of labels, a table of ways to get it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

from lit_rl.papers.facts import FIRST_PAGE, KINDS, WORDS, Fact, FactGraph
from lit_rl.papers.questions import GENERIC, JOINERS, OPENERS, written_question
from lit_rl.papers.records import AXES
from lit_rl.papers.synthetic import SyntheticPaper

RESULTS = ("experiments", "ablation")
DETAILS = ("method", "limits")
Labels = tuple[int, int, int]  # in the order of AXES
Pick = Callable[[FactGraph, Random], list[str]]  # the sentences of a question


def graded_question(paper: SyntheticPaper, labels: Labels, random: Random) -> str:
    """A question about ``paper`` that the oracle grades with just these labels.

    Args:
        paper: What it is about.
        labels: Effort, evidence and grounding, 1 or 0 each.
        random: Which of all such questions; its state moves on.
    """
    recipes = RECIPES[labels]
    (recipe,) = random.choices(recipes, [recipe.weight for recipe in recipes])
    if recipe.pick is _generic:
        return random.choice(GENERIC)
    clauses = recipe.pick(paper.graph, random)
    random.shuffle(clauses)
    compared = _compared(recipe.compare, paper.graph, random)
    return written_question(random.choice(OPENERS), clauses, random.choice(JOINERS), compared)


def drawn_labels(rates: Mapping[str, float], random: Random) -> Labels:
    """Labels, each drawn on its own: 1 with the rate of its axis."""
    effort, evidence, grounding = (int(random.random() < rates[axis]) for axis in AXES)
    return effort, evidence, grounding


def check_rates(rates: Mapping[str, float], owner: str) -> None:
    """Raise ValueError unless ``rates`` has one share for each axis; ``owner`` is whose argument it is."""
    if set(rates) != set(AXES) or not all(0 <= rate <= 1 for rate in rates.values()):
        raise ValueError(f"{owner} is {dict(rates)}; give a share of 0 .. 1 for each of {', '.join(AXES)}.")


# -- sentences -------------------------------------------------------------------------------------------------------


def _linked_result(graph: FactGraph, random: Random) -> list[str]:
    return _texts(random.choice([pair for pair in graph.links() if any(fact.is_result for fact in pair)]))


def _linked_details(graph: FactGraph, random: Random) -> list[str]:
    return _texts(random.choice([pair for pair in graph.links() if not any(fact.is_result for fact in pair)]))


def _result(graph: FactGraph, random: Random) -> list[str]:
    return _texts((random.choice(graph.of(*RESULTS)),))


def _two_results(graph: FactGraph, random: Random) -> list[str]:
    return _texts(random.sample(graph.of(*RESULTS), 2))


def _unlinked_result(graph: FactGraph, random: Random) -> list[str]:
    """A result beside something that has to do with another one."""
    result = random.choice(graph.of(*RESULTS))
    return _texts((result, random.choice([fact for fact in graph.of(*DETAILS) if not fact.linked(result)])))


def _result_and_foreign(graph: FactGraph, random: Random) -> list[str]:
    return [*_result(graph, random), *_foreign_detail(graph, random)]


def _quote(graph: FactGraph, random: Random) -> list[str]:
    return _texts((random.choice(graph.of(FIRST_PAGE)),))


def _detail(graph: FactGraph, random: Random) -> list[str]:
    return _texts((random.choice(graph.of(*DETAILS)),))


def _two_details(graph: FactGraph, random: Random) -> list[str]:
    """Of one section, the one that has two."""
    return _texts(random.sample(graph.of("method"), 2))


def _false_result(graph: FactGraph, random: Random) -> list[str]:
    """Another number than the paper's."""
    result = random.choice(graph.of(*RESULTS))
    return [_replaced(result, "number", random, without=frozenset(result.terms))]


def _foreign_quote(graph: FactGraph, random: Random) -> list[str]:
    fact = random.choice([fact for fact in graph.of(FIRST_PAGE) if " beats " not in fact.text])
    return [_replaced(fact, "method", random, without=graph.entities)]


def _foreign_detail(graph: FactGraph, random: Random) -> list[str]:
    return [_replaced(random.choice(graph.of(*DETAILS)), "mechanism", random, without=graph.entities)]


def _foreign_result(graph: FactGraph, random: Random) -> list[str]:
    result = random.choice(graph.of(*RESULTS))
    (kind,) = (KINDS[entity] for entity in result.entities)
    return [_replaced(result, kind, random, without=graph.entities)]


def _generic(graph: FactGraph, random: Random) -> list[str]:
    """No sentence of the paper at all."""
    return []


def _texts(facts: tuple[Fact, ...] | list[Fact]) -> list[str]:
    return [fact.text for fact in facts]


def _replaced(fact: Fact, kind: str, random: Random, without: frozenset[str]) -> str:
    """The sentence with its word of that kind exchanged for another one, of none of those ``without``."""
    other = random.choice([word for word in WORDS[kind] if word not in without])
    return " ".join(other if KINDS.get(word) == kind else word for word in fact.text.split())


# -- the table -------------------------------------------------------------------------------------------------------

Compare = Literal["own", "foreign", "never"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a question is made: its sentences, and whom it compares the paper with.

    Args:
        pick: The sentences.
        weight: How often, among the recipes for the same labels.
        compare: "own" names in one of three questions the method that the paper itself beats, "foreign" always one of
            another paper, "never" none.
    """

    pick: Pick
    weight: float = 1
    compare: Compare = "own"


RECIPES: dict[Labels, tuple[Recipe, ...]] = {
    (1, 1, 1): (Recipe(_linked_result),),
    (1, 1, 0): (Recipe(_linked_result, compare="foreign"),),
    (1, 0, 1): (Recipe(_linked_details),),
    (1, 0, 0): (Recipe(_linked_details, compare="foreign"),),
    (0, 1, 1): (Recipe(_result, 2), Recipe(_two_results), Recipe(_unlinked_result)),
    (0, 1, 0): (Recipe(_result, 1, "foreign"), Recipe(_unlinked_result, 1, "foreign"), Recipe(_result_and_foreign, 2)),
    (0, 0, 1): (Recipe(_quote, 6), Recipe(_detail), Recipe(_two_details), Recipe(_false_result)),
    (0, 0, 0): (
        Recipe(_generic, 2, "never"),
        Recipe(_foreign_quote, 3),
        Recipe(_quote, 1, "foreign"),
        Recipe(_foreign_detail),
        Recipe(_foreign_result),
    ),
}


def _compared(compare: Compare, graph: FactGraph, random: Random) -> str | None:
    if compare == "foreign":
        return random.choice([word for word in WORDS["method"] if word not in graph.entities])
    if compare == "own" and random.random() < 1 / 3:
        (beats,) = (fact for fact in graph.of(FIRST_PAGE) if " beats " in fact.text)
        return beats.terms[1]
    return None
