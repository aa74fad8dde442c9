"""A small web shop in plain Python, after WebShop (arXiv 2207.01206): search, look, choose, buy."""

from random import Random

from lit_rl.stream_keys import stream_key
from lit_rl.worlds.base import Advice, Observation, Step, World, admitted
from lit_rl.worlds.web_shop_items import Product, Wish, catalogue, found, purchase_score

SEARCH, BACK, NEXT, BUY = "search[...]", "click[back to search]", "click[next page]", "click[buy now]"
MAX_DRAWS = 300


class WebShopWorld:
    """One visit to the shop; see `WebShop`."""

    def __init__(self, products: list[Product], wish: Wish, *, per_page: int, max_turns: int, reward: float):
        self.products, self.wish, self.per_page = products, wish, per_page
        self.max_turns, self.reward, self.turn = max_turns, reward, 0
        options = " and ".join(f"{option} {value}" for option, value in wish.options.items())
        self.task = f"buy {' '.join(wish.attributes)} {wish.kind} with {options} below {wish.below} dollars"
        self.results: list[Product] = []
        self.page = 0  # of the results, from 1 on; 0 is the search page
        self.item: Product | None = None
        self.chosen: dict[str, str] = {}

    def reset(self) -> Observation:
        return self._observation()

    def step(self, action: str) -> Step:
        self.turn += 1
        known = admitted(action, self._admissible())
        if known == BUY and self.item is not None:
            score = purchase_score(self.wish, self.item, self.chosen)
            won = score == 1
            info = {"success": won, "score": score}
            return Step(Observation("thank you"), self.reward if won else 0.0, terminated=True, info=info)
        if known is not None:
            self._go(known)
        late = self.turn >= self.max_turns
        info = {"success": False, "score": 0.0}
        return Step(self._observation("" if known else "nothing happens ; "), truncated=late, info=info)

    def close(self) -> None:
        """Nothing is held."""

    def advice(self) -> Advice:
        """Searches for what is wished, opens the first result that fits, chooses, buys."""
        wish = self.wish
        if self.item is not None:
            if not self._fits(self.item):
                return Advice(f"choose {wish.kind}", BACK)
            missing = [value for option, value in wish.options.items() if self.chosen.get(option) != value]
            if missing:
                return Advice(f"select {' '.join(wish.options.values())}", f"click[{missing[0]}]")
            return Advice(f"buy {wish.kind}", BUY)
        fitting = [product for product in self._shown() if self._fits(product)]
        if fitting:
            return Advice(f"choose {wish.kind}", f"click[{fitting[0].id}]")
        if NEXT in self._admissible():
            return Advice(f"choose {wish.kind}", NEXT)
        words = " ".join([*wish.attributes, wish.kind])
        return Advice(f"search {wish.kind}", BACK if self.page else f"search[{words}]")

    def _fits(self, product: Product) -> bool:
        return purchase_score(self.wish, product, self.wish.options) == 1

    def _go(self, action: str) -> None:
        verb, _, inside = action.rstrip("]").partition("[")
        if verb == "search":
            self.results, self.page = found(inside, self.products), 1
        elif action == BACK:
            self.page, self.item = 0, None
        elif action == NEXT:
            self.page += 1
        elif self.item is None:
            self.item = next(product for product in self._shown() if product.id == inside)
            self.chosen = {}
        else:
            self.chosen |= {option: inside for option, values in self.item.options.items() if inside in values}

    def _shown(self) -> list[Product]:
        return self.results[(self.page - 1) * self.per_page : self.page * self.per_page] if self.page else []

    def _admissible(self) -> tuple[str, ...]:
        if self.item is not None:
            values = [value for values in self.item.options.values() for value in values]
            return (*(f"click[{value}]" for value in values), BUY, BACK)
        if not self.page:
            return (SEARCH,)
        more = (NEXT,) if self.page * self.per_page < len(self.results) else ()
        return (*(f"click[{product.id}]" for product in self._shown()), *more, BACK)

    def _observation(self, event: str = "") -> Observation:
        return Observation(event + self._text(), self._admissible())

    def _text(self) -> str:
        if self.item is not None:
            chosen = " ".join(self.chosen.values()) or "nothing"
            return f"{self.item.id} {self.item.title} for {self.item.price} dollars ; chosen {chosen}"
        if not self.page:
            return "search page"
        shown = " , ".join(f"{product.id} {product.title} for {product.price}" for product in self._shown())
        return f"results {shown}" if shown else "no results"


class WebShop:
    """Errands in one shop: a product with given attributes and options below a price.

    A query finds titles that share a word with it, best first.  Results show titles and prices, an item's page its
    options, chosen one by one; buying ends the episode.  Buying exactly what was wished pays ``success_reward``, all
    else 0; the share that was met is ``info["score"]``.  An action that is not admissible costs a turn.  The oracle
    solves every errand within ``max_turns``.

    Args:
        size: Number of errands.
        seed: Of the shop and its errands.
        products: On sale.
        per_page: Results on a page.
        max_turns: Turns until a visit is cut off; 15 as in the authors' logged runs.
        success_reward: 10 as published.

    Attributes:
        ceiling: The best mean return.

    Raises:
        ValueError: An option is out of range, or ``max_turns`` is too short for a visit.
    """

    name = "WebShop"

    def __init__(
        self,
        size: int = 1000,
        seed: int = 0,
        *,
        products: int = 60,
        per_page: int = 3,
        max_turns: int = 15,
        success_reward: float = 10.0,
    ):
        least = {"size": size, "products": products, "per_page": per_page, "max_turns": max_turns}
        for option, value in least.items():
            if value < 1:
                raise ValueError(f"WebShop.{option} is {value}; it must be at least 1.")
        if not success_reward > 0:
            raise ValueError(f"WebShop.success_reward is {success_reward}; success has to pay more than 0.")
        self.size, self.seed, self.per_page, self.max_turns = size, seed, per_page, max_turns
        self.ceiling = self.success_reward = success_reward
        self.products = catalogue(products, Random(stream_key(seed, self.name, "catalogue")))
        self._draw(0)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> World:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return self._draw(index)

    def _draw(self, index: int) -> WebShopWorld:
        rng = Random(stream_key(self.seed, self.name, index))
        for _ in range(MAX_DRAWS):
            product = rng.choice(self.products)
            options = {option: rng.choice(values) for option, values in product.options.items()}
            wish = Wish(product.kind, product.attributes, options, product.price + rng.randint(1, 10))
            world, trial = self._world(wish), self._world(wish)
            if _solves(trial):
                return world
        raise ValueError(
            f"WebShop.max_turns is {self.max_turns}; the oracle runs no errand in that with {len(self.products)} "
            f"products, {self.per_page} on a page. Raise it."
        )

    def _world(self, wish: Wish) -> WebShopWorld:
        return WebShopWorld(
            self.products, wish, per_page=self.per_page, max_turns=self.max_turns, reward=self.success_reward
        )


def _solves(world: WebShopWorld) -> bool:
    world.reset()
    while True:
        step = world.step(world.advice().action)
        if step.terminated or step.truncated:
            return step.terminated
