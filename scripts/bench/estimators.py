"""Times the estimators of credit on 10,000 turns: 200 episodes of 50 turns, in float32 on one thread of the CPU.

"callback" is `HierarchicalCredit` on a batch of 10,000 rows of 64 tokens: reading, estimating, whitening, writing.

    python scripts/bench/estimators.py

prints milliseconds, the median of 50 calls: of the clock, and of processor time, which a busy machine disturbs less.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lit_rl.callbacks.hierarchical_credit import HierarchicalCredit
from lit_rl.objectives.gae import gae
from lit_rl.objectives.hierarchical import hierarchical_advantages
from lit_rl.objectives.step_groups import group_in_group_advantages
from lit_rl.objectives.turns import turn_mask

EPISODES, TURNS, TOKENS, CALLS = 200, 50, 64, 50


def episodes(generator: torch.Generator) -> dict[str, Tensor]:
    """Whole episodes whose turns begin a segment one time in four."""
    rewards, low, high = torch.randn(3, EPISODES, TURNS, generator=generator)
    boundaries = torch.rand(EPISODES, TURNS, generator=generator) < 0.25
    boundaries[:, 0] = True
    lengths = torch.full((EPISODES,), TURNS)
    return {
        "rewards": rewards, "boundaries": boundaries, "lengths": lengths, "low_values": low, "high_values": high,
    }  # fmt: skip


def rows(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same, a row a turn, with a switch, a subgoal and an action in each."""
    count = EPISODES * TURNS
    tokens = torch.arange(TOKENS).expand(count, TOKENS)
    return {
        "episode_ids": torch.arange(count) // TURNS, "turn_ids": torch.arange(count) % TURNS,
        "rewards": found["rewards"].flatten(), "boundary": found["boundaries"].flatten(),
        "value_low": found["low_values"].flatten(), "value_high": found["high_values"].flatten(),
        "value_switch": found["low_values"].flatten(), "loss_mask": tokens >= 16, "switch_mask": tokens < 24,
        "subgoal_mask": (tokens >= 24) & (tokens < 44), "action_mask": tokens >= 44,
    }  # fmt: skip


def milliseconds(work: Callable[[], object]) -> tuple[float, float]:
    """Median of the clock and of processor time."""
    clock, cpu = [], []
    for _ in range(CALLS + 3):
        start, cpu_start = time.perf_counter(), time.process_time()
        work()
        clock.append(1e3 * (time.perf_counter() - start))
        cpu.append(1e3 * (time.process_time() - cpu_start))
    return statistics.median(clock[3:]), statistics.median(cpu[3:])


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    given = episodes(generator)
    exists = turn_mask(given["lengths"], TURNS)
    groups, states = torch.arange(EPISODES) // 8, torch.randint(0, 20, (EPISODES, TURNS), generator=generator)
    batch, credit = rows(given), HierarchicalCredit()
    cases: dict[str, Callable[[], object]] = {
        "hierarchical": lambda: hierarchical_advantages(
            *given.values(), gamma=1.0, lambda_turn=1.0, lambda_segment=0.95, end_values=None
        ),
        "flat GAE": lambda: gae(given["rewards"], given["low_values"], exists, gamma=1.0, gae_lambda=0.95),
        "episodes + states": lambda: group_in_group_advantages(given["rewards"], exists, groups, states, gamma=0.95),
        "callback": lambda: credit.annotate(dict(batch)),
    }
    print(f"{EPISODES * TURNS} turns\n\n| | clock, ms | processor, ms |\n|---|---|---|")
    for name, work in cases.items():
        print("| {} | {:.2f} | {:.2f} |".format(name, *milliseconds(work)))


if __name__ == "__main__":
    main()
