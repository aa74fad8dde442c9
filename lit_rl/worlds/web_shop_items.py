"""What the mini web shop sells, how it is searched, and what a purchase is worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

COLOURS, SIZES, FLAVOURS = ("red", "blue", "green", "black"), ("small", "medium", "large"), ("mint", "lemon", "berry")
# kind -> (what it can be, in pairs that exclude each other; what a buyer chooses)
KINDS: Mapping[str, tuple[tuple[tuple[str, str], ...], Mapping[str, tuple[str, ...]]]] = {
    "shirt": ((("cotton", "linen"), ("long", "short")), {"color": COLOURS, "size": SIZES}),
    "shoes": ((("leather", "canvas"), ("light", "warm")), {"color": COLOURS, "size": SIZES}),
    "lamp": ((("wooden", "steel"), ("tall", "round")), {"color": COLOURS}),
    "tea": ((("organic", "classic"), ("loose", "bagged")), {"flavor": FLAVOURS}),
    "bag": ((("leather", "canvas"), ("slim", "roomy")), {"color": COLOURS, "size": SIZES}),
    "soap": ((("organic", "classic"), ("liquid", "solid")), {"flavor": FLAVOURS}),
}
PRICES = range(5, 60)


@dataclass(frozen=True, slots=True)
class Product:
    """Something on sale; whoever buys it chooses one value of each option."""

    id: str
    kind: str
    attributes: tuple[str, ...]
    price: int

    @property
    def title(self) -> str:
        return " ".join([*self.attributes, self.kind])

    @property
    def options(self) -> Mapping[str, tuple[str, ...]]:
        return KINDS[self.kind][1]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be bought, for less than ``below``."""

    kind: str
    attributes: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    below: int = 0


def catalogue(size: int, rng: Random) -> list[Product]:
    """Products of random kinds, attributes and prices."""
    products = []
    for number in range(size):
        kind = rng.choice(sorted(KINDS))
        attributes = tuple(rng.choice(pair) for pair in KINDS[kind][0])
        products.append(Product(f"b{number}", kind, attributes, rng.choice(PRICES)))
    return products


def found(query: str, products: Sequence[Product]) -> list[Product]:
    """Products whose title shares a word with a query, those that share most first."""
    words = set(query.lower().split())
    shared = [(len(words & set(product.title.split())), product) for product in products]
    ranked = sorted((pair for pair in shared if pair[0]), key=lambda pair: -pair[0])
    return [product for _, product in ranked]


def purchase_score(wish: Wish, product: Product, chosen: Mapping[str, str]) -> float:
    """Share of what was wished for, in [0, 1]; 0 for another kind of product.

    After WebShop (arXiv 2207.01206): attributes, options and the price count alike.  There another kind is judged by
    how its title reads.

    Example:
        >>> wish = Wish("tea", ("organic",), {"flavor": "mint"}, 10)
        >>> purchase_score(wish, Product("b1", "tea", ("organic",), 12), {"flavor": "mint"})
        0.6666666666666666
    """
    if product.kind != wish.kind:
        return 0.0
    met = sum(attribute in product.attributes for attribute in wish.attributes)
    met += sum(chosen.get(option) == value for option, value in wish.options.items())
    met += product.price < wish.below
    return met / (len(wish.attributes) + len(wish.options) + 1)
