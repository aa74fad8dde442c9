"""What finished runs of `scripts/reproduce/qempo.py` say, exactly: from a model's probabilities of all answers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_rl.metrics import seed_interval
from lit_rl.metrics.sampled_answers import at_quality, expected_distinct
from lit_rl.objectives.max_entropy import optimum
from scripts.reproduce.answer_worlds import FILE
from scripts.reproduce.arms import Table, gap_covered, over_seeds, training_rewards
from scripts.reproduce.qempo_runs import RATIOS, STD_FIRST, SWEEPS, TOYS, toy_arms

LEVELS = (0.88, 0.92, 0.95)  # qualities at which entropies are compared
DRAWS = 64  # answers drawn to count different right ones in


@dataclass(frozen=True)
class Found:
    """Log-probs of all answers, float64 ``(N,)``, of a trained policy and its reference."""

    rewards: Tensor
    policy: Tensor
    reference: Tensor

    @classmethod
    def read(cls, folder: Path) -> "Found":
        """What a run wrote; the reference is that of answers alone, whose probabilities sum to 1."""
        loaded = json.loads((folder / FILE).read_text())
        rewards, policy, reference = (
            torch.tensor(loaded[name], dtype=torch.float64) for name in ("rewards", "policy", "reference")
        )
        return cls(rewards, policy, reference.log_softmax(0))

    @property
    def elsewhere(self) -> float:
        """Probability of text that is no answer."""
        return 1.0 - float(self.policy.exp().sum())

    def best(self, a: float, b: float) -> Tensor:
        """Log-probs of the closed form, on answers alone."""
        return optimum(self.rewards, self.reference, entropy=a, reference=b)


def quality(log_probs: Tensor, rewards: Tensor) -> float:
    """Expected reward; text that is no answer counts as 0."""
    return float((log_probs.exp() * rewards).sum())


def entropy(log_probs: Tensor) -> float:
    """In nats; text that is no answer adds nothing."""
    return -float((log_probs.exp() * log_probs).sum())


def total_variation(log_probs: Tensor, other: Tensor) -> float:
    """Largest difference of probabilities of any set; what either gives to no answer is in it."""
    ours, theirs = log_probs.exp(), other.exp()
    return 0.5 * float((ours - theirs).abs().sum() + (ours.sum() - theirs.sum()).abs())


def objective(log_probs: Tensor, found: Found, a: float, b: float) -> float:
    """``E[r - a log pi + b log p]`` on answers alone."""
    own = log_probs.log_softmax(0)
    return float((own.exp() * (found.rewards - a * own + b * found.reference)).sum())


# -- toys --------------------------------------------------------------------------------------------------------------

TOY_COLUMNS = ("total variation", "E[r]", "E[r] of the optimum", "entropy", "entropy of the optimum", "no answer")


def toy_tables(folders: Sequence[Path]) -> dict[str, Table]:
    """Every arm against the closed form of its coefficients, toy by toy."""
    return {
        world: {
            arm: over_seeds([toy_row(Found.read(folder / f"{world}_{arm}"), a, b) for folder in folders])
            for arm, (a, b) in toy_arms(world).items()
        }
        for world in TOYS
    }


def toy_row(found: Found, a: float, b: float) -> list[float]:
    """`TOY_COLUMNS` of one arm in one seed."""
    best, own = found.best(a, b), found.policy
    return [
        total_variation(own, best),
        *(quality(own, found.rewards), quality(best, found.rewards)),
        *(entropy(own), entropy(best)),
        found.elsewhere,
    ]


def toy_learnability(folders: Sequence[Path]) -> str:
    """Which share of the way from the reference to the optimum, as their objectives have it, the trainings went."""
    shares = {
        f"{world}, {arm}": min(share_of_objective(Found.read(folder / f"{world}_{arm}"), a, b) for folder in folders)
        for world in TOYS
        for arm, (a, b) in toy_arms(world).items()
        if arm not in ("pairwise", STD_FIRST)
    }
    return verdict("learnability of the toys, by their objectives, least of all seeds", shares)


def share_of_objective(found: Found, a: float, b: float) -> float:
    """Of one training."""
    values = [objective(log_probs, found, a, b) for log_probs in (found.reference, found.policy, found.best(a, b))]
    return gap_covered(*values)


def verdict(title: str, shares: Mapping[str, float]) -> str:
    """One sentence."""
    told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    counts = "this counts" if min(shares.values()) >= 0.5 else "this does not count: some cover less than half"
    return f"{title} ({told}): {counts}"


# -- frontier ----------------------------------------------------------------------------------------------------------

FRONTIER_COLUMNS = ("quality", "entropy", "distinct_correct", "elsewhere")


def frontier_row(log_probs: Tensor, rewards: Tensor) -> list[float]:
    """`FRONTIER_COLUMNS` of a policy."""
    probabilities = log_probs.exp()
    right = probabilities[rewards == 1].tolist()
    elsewhere = 1.0 - float(probabilities.sum())
    return [quality(log_probs, rewards), entropy(log_probs), expected_distinct(right, DRAWS), elsewhere]


def sweep_table(folders: Sequence[Path]) -> Table:
    """Every strength of every method, the reference, and the pitfall beside QEMPO with the same coefficient."""
    start = [Found.read(folder / f"QEMPO_{SWEEPS['QEMPO'][0]}") for folder in folders]
    rows = {"reference": over_seeds([frontier_row(found.reference, found.rewards) for found in start])}
    names = {f"{method}, {strength}": f"{method}_{strength}" for method in SWEEPS for strength in SWEEPS[method]}
    names[f"QEMPO, {SWEEPS['QEMPO'][1]}, rewards standardised before shaping"] = STD_FIRST
    for row, name in names.items():
        found = [Found.read(folder / name) for folder in folders]
        rows[row] = over_seeds([frontier_row(one.policy, one.rewards) for one in found])
    return rows


def equal_quality_table(table: Table) -> Table:
    """Entropy of every method at `LEVELS`, read off its sweep seed by seed; empty where a seed does not reach it."""
    rows: Table = {}
    for method in SWEEPS:
        points = [table[f"{method}, {strength}"] for strength in SWEEPS[method]]
        seeds = range(len(points[0][0]))
        read = [
            [at_quality([p[0][seed] for p in points], [p[1][seed] for p in points], level) for seed in seeds]
            for level in LEVELS
        ]
        rows[method] = [values if all(value == value for value in values) else [] for values in read]
    return rows


def frontier_tables(folders: Sequence[Path]) -> dict[str, Table]:
    """The sweeps, and what they say at equal quality."""
    table = sweep_table(folders)
    equal = equal_quality_table(table)
    return {"sweeps": table, "entropy at equal quality": equal, "entropy of QEMPO minus that of others": gains(equal)}


def gains(equal: Table) -> Table:
    """Seed by seed."""
    return {
        method: [
            [a - b for a, b in zip(mine, other, strict=True)] if mine and other else []
            for mine, other in zip(equal["QEMPO"], others, strict=True)
        ]
        for method, others in equal.items()
        if method != "QEMPO"
    }


def frontier_learnability(folders: Sequence[Path]) -> str:
    """Which share of what lay between its first rewards and 1 every training covered."""
    shares = {
        f"{method} {strength}": min(share_of_rewards(folder / f"{method}_{strength}") for folder in folders)
        for method in SWEEPS
        for strength in SWEEPS[method]
    }
    return verdict("learnability of the frontier, by training rewards, least of all seeds", shares)


def share_of_rewards(folder: Path) -> float:
    """Of one training, from its first batch, which the reference sampled, to its last five."""
    return gap_covered(training_rewards(folder, 1)[0], training_rewards(folder, 5)[1], 1.0)


def bound(folders: Sequence[Path], method: str, low: float, high: float) -> list[tuple[float, float]]:
    """Quality and entropy of the closed forms of a method, mean over the references of all seeds."""
    references = [Found.read(folder / f"QEMPO_{SWEEPS['QEMPO'][0]}") for folder in folders]
    curve = []
    for step in range(121):
        a = 0.1 * 1.02**step
        bests = [found.best(a, RATIOS[method] * a) for found in references]
        means = [
            sum(values) / len(bests)
            for values in ([quality(x, references[0].rewards) for x in bests], [entropy(x) for x in bests])
        ]
        curve.append((means[0], means[1]))
    return [point for point in curve if low <= point[0] <= high]


def frontier_file(folders: Sequence[Path], tables: Mapping[str, Table]) -> dict[str, Any]:
    """What `lit_rl.reporting.frontier` reads."""
    table, equal = tables["sweeps"], tables["entropy at equal quality"]
    reached = [value for row, entry in table.items() if row.split(", ")[0] in SWEEPS for value in entry[0]]
    methods = {
        method: {
            "points": [
                {"strength": f"{'bonus' if method == 'GRPO' else 'a ='} {strength}"}
                | figures_of(table[f"{method}, {strength}"])
                for strength in strengths
            ],
            "bound": bound(folders, method, min(reached), max(reached)) if method in RATIOS else [],
        }
        for method, strengths in SWEEPS.items()
    }
    levels = [
        {"quality": level, "entropy": {m: number(row[place]) if row[place] else None for m, row in equal.items()}}
        for place, level in enumerate(LEVELS)
    ]
    return {
        "title": "QEMPO: a number and a multiple of it",
        "quality": "share of right answers",
        "entropy": "entropy of an answer in nats",
        "methods": methods,
        "start": figures_of(table["reference"]),
        "at_quality": levels,
    }


def figures_of(entry: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Mean and interval of every column."""
    return {name: number(values) for name, values in zip(FRONTIER_COLUMNS, entry, strict=True)}


def number(values: Sequence[float]) -> dict[str, float | None]:
    """Mean over seeds and half of its interval."""
    found = seed_interval(values)
    return {"mean": found.mean, "half_width": found.half_width}
