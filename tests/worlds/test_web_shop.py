"""The mini web shop: pages, search, scores, and an oracle that runs every errand."""

from random import Random

import pytest

from lit_rl.environments.world_demonstrations import WorldDemonstrations
from lit_rl.environments.world_prompts import WorldPrompts
from lit_rl.worlds.base import AdvisedWorld, Step, World, WorldSource, admitted
from lit_rl.worlds.web_shop import WebShop, WebShopWorld
from lit_rl.worlds.web_shop_items import Product, Wish, found, purchase_score

TEA, DEAR, LOOSE = (
    Product("b0", "tea", ("organic", "bagged"), 12),
    Product("b1", "tea", ("organic", "bagged"), 20),
    Product("b2", "tea", ("classic", "loose"), 9),
)
LAMP = Product("b3", "lamp", ("steel", "tall"), 9)
WISH = Wish("tea", ("organic", "bagged"), {"flavor": "mint"}, 15)


def shop(**options: int) -> WebShopWorld:
    wanted = {"per_page": 2, "max_turns": 15, "reward": 10.0} | options
    return WebShopWorld([LAMP, DEAR, LOOSE, TEA], WISH, **wanted)


def walk(world: World, actions: list[str]) -> list[Step]:
    world.reset()
    return [world.step(action) for action in actions]


def test_a_visit_by_hand() -> None:
    world = shop()
    assert world.task == "buy organic bagged tea with flavor mint below 15 dollars"
    assert world.reset().admissible == ("search[...]",)
    steps = walk(world, ["search[ Organic tea ]", "click[next page]", "click[b2]", "click[back to search]"])
    assert steps[0].observation.text == "results b1 organic bagged tea for 20 , b0 organic bagged tea for 12"
    assert steps[0].observation.admissible == ("click[b1]", "click[b0]", "click[next page]", "click[back to search]")
    assert steps[1].observation.admissible == ("click[b2]", "click[back to search]")
    assert steps[2].observation.text == "b2 classic loose tea for 9 dollars ; chosen nothing"
    flavours = ("click[mint]", "click[lemon]", "click[berry]", "click[buy now]", "click[back to search]")
    assert steps[2].observation.admissible == flavours
    assert steps[3].observation.text == "search page"
    last = walk(shop(), ["search[organic tea]", "click[b0]", "click[lemon]", "click[mint]", "click[buy now]"])
    assert last[3].observation.text.endswith("chosen mint")
    assert last[4].terminated and last[4].reward == 10.0 and last[4].info == {"success": True, "score": 1.0}


@pytest.mark.parametrize(
    ("product", "chosen", "score"),
    [(TEA, "mint", 1.0), (TEA, "lemon", 0.75), (DEAR, "mint", 0.75), (LOOSE, "mint", 0.5), (LAMP, "mint", 0.0)],
)
def test_scores(product: Product, chosen: str, score: float) -> None:
    """Two attributes, an option and the price count a quarter each; only a whole success pays."""
    assert purchase_score(WISH, product, {"flavor": chosen}) == score


def test_half_a_success_pays_nothing() -> None:
    last = walk(shop(), ["search[tea]", "click[b1]", "click[mint]", "click[buy now]"])[-1]
    assert (last.terminated, last.reward, last.info) == (True, 0.0, {"success": False, "score": 0.75})


def test_searching() -> None:
    assert [product.id for product in found("LOOSE tea", [LAMP, DEAR, LOOSE, TEA])] == ["b2", "b1", "b0"]
    assert found("sofa", [LAMP, TEA]) == []
    assert walk(shop(), ["search[sofa]"])[0].observation.text == "no results"


def test_inadmissible_actions_change_nothing_and_cost_a_turn() -> None:
    steps = walk(shop(max_turns=3), ["click[buy now]", "", "search[]"])
    assert {step.observation.text for step in steps} == {"nothing happens ; search page"}
    assert [step.truncated for step in steps] == [False, False, True]


def test_every_errand_can_be_run_and_is_the_same_each_time() -> None:
    errands = WebShop(size=80, seed=1)
    assert isinstance(errands, WorldSource)
    for index in range(80):
        world, again = errands[index], errands[index]
        assert isinstance(world, AdvisedWorld) and world.task == again.task
        seen = world.reset()
        while True:
            action = world.advice().action
            assert admitted(action, seen.admissible) == action
            step = world.step(action)
            seen = step.observation
            if step.terminated:
                break
        assert step.reward == errands.ceiling == 10.0
    assert WebShop(size=1, seed=2)[0].task != errands[0].task


def test_random_walks_never_break_it() -> None:
    rng, errands = Random(0), WebShop(size=40)
    for index in range(40):
        world = errands[index]
        seen, step = world.reset(), None
        while step is None or not (step.terminated or step.truncated):
            step = world.step(rng.choice(seen.admissible).replace("...", "leather shoes"))
            assert "nothing happens" not in step.observation.text
            seen = step.observation


def test_demonstrations_have_the_stages_of_a_visit() -> None:
    shown = WorldDemonstrations(WebShop(size=3), prompts=WorldPrompts(style="short"))
    replies = [shown[i].messages[-1].content for i in range(len(shown))]
    first = [reply for reply in replies[: replies.index(replies[-1]) + 1] if "SWITCH" in reply][:4]
    verbs = [reply.split("<subgoal>")[1].split()[0] for reply in first]
    assert verbs == ["search", "choose", "select", "buy"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"products": 0}, "WebShop.products is 0"),
        ({"max_turns": 2}, "max_turns is 2; the oracle runs no errand"),
        ({"success_reward": 0}, "success_reward is 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WebShop(**options)
