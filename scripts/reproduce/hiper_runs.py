"""What scripts/reproduce/hiper.py runs: options for ``lit-rl``, and the runs of every seed."""

import json
from pathlib import Path
from typing import Any

from scripts.reproduce.arms import ROOT, run, validate
from scripts.reproduce.hiper_worlds import FIGURES

CONFIGS = ROOT / "configs/hiper"
WARMUP = ROOT / "configs/warmup/household.yaml"
LAST, POLICY = "checkpoints/last.ckpt", "checkpoints/last-policy"
ARMS = {
    "hiper": CONFIGS / "tiny.yaml",
    "no_keep_penalty": CONFIGS / "tiny.yaml",
    "flat_ppo": CONFIGS / "baselines/flat_ppo.yaml",
    "group_credit": CONFIGS / "baselines/group_credit.yaml",
}
LENGTHS = {"long": (2, 20), "short": (1, 12)}  # goals of a task, turns until it is cut off
WARMUP_TASKS, HELD_OUT = 4000, 200
WARMUP_STEPS = 2800
BATCHES, STEPS_PER_BATCH, LEARNING_RATE = 40, 4, 1.5e-3  # of every training
WHIMS = 0.12
NO_KEEP_PENALTY = {"keep": 0.0, "rewritten": -0.005, "invalid": 0.1}  # the rest as in the config
Spec = dict[str, Any]


# -- options of lit-rl ---------------------------------------------------------------------------------------------


def household(length: str, seed: int, size: int = 6000) -> Spec:
    """Households in few words whose tasks are long or short; success pays 1."""
    goals, turns = LENGTHS[length]
    places = {"places": 3, "things": 4, "openable": False, "families": ["pick", "clean"]}
    given = {"size": size, "seed": seed, "goals": goals, "max_turns": turns, "wording": "short", **places}
    return {"class_path": "lit_rl.worlds.Household", "init_args": {**given, "success_reward": 1.0}}


def demonstrations() -> Spec:
    """What warm-ups imitate: long and short tasks in turn, by an oracle with whims."""
    sources = [_ours("Distracted", worlds=household(length, 0), chance=WHIMS) for length in LENGTHS]
    shown = {
        "worlds": _ours("Alternating", sources=sources),
        "prompts": {"style": "short", "history_length": 0},
        "num_tasks": WARMUP_TASKS,
    }
    return {"class_path": "lit_rl.environments.world_demonstrations.WorldDemonstrations", "init_args": shown}


def warm_up(seed: int) -> tuple[str, ...]:
    """Options of a warm-up."""
    steps = str(WARMUP_STEPS)
    return (
        *("--seed_everything", str(seed), "--model.init_args.policy.tiny.seed", str(seed)),
        *("--data.init_args.demonstrations", json.dumps(demonstrations())),
        *("--data.init_args.batches_per_epoch", steps),
        *("--model.init_args.lr_scheduler.init_args.total_iters", steps, "--trainer.limit_val_batches", "0"),
    )


def in_households(length: str, seed: int) -> tuple[str, ...]:
    """Options of every run after the warm-up; its households are others than those of the warm-up."""
    return (
        *("--seed_everything", str(seed), "--data.init_args.worlds", json.dumps(household(length, 1))),
        *("--data.init_args.num_validation_tasks", str(HELD_OUT), "--data.init_args.conditions", '["world"]'),
        *("--data.init_args.evaluation", json.dumps({"temperature": 1.0, "max_tokens": 14})),
    )


def training(arm: str) -> tuple[str, ...]:
    """Options of a training; it is validated when it is over, on long and on short tasks."""
    common = (
        *("--validate_first", "false", "--trainer.limit_val_batches", "0"),
        *("--data.init_args.batches_per_epoch", str(BATCHES)),
        *("--model.init_args.steps_per_batch", str(STEPS_PER_BATCH)),
        *("--model.init_args.optimizer.init_args.lr", str(LEARNING_RATE)),
        *("--model.init_args.lr_scheduler.init_args.total_iters", str(BATCHES * STEPS_PER_BATCH)),
    )
    if arm != "no_keep_penalty":
        return common
    credit = {
        "class_path": "lit_rl.callbacks.HierarchicalCredit",
        "init_args": {"whiten": False, "penalties": NO_KEEP_PENALTY},
    }
    return *common, "--trainer.callbacks", json.dumps([credit])


# -- runs ----------------------------------------------------------------------------------------------------------


def run_seed(folder: Path, seed: int) -> None:
    """All runs of one seed: the warm-up, and from it every arm."""
    run(folder / "warmup", WARMUP, *warm_up(seed), validate=False)
    start = ("--model.init_args.policy.path", str(folder / "warmup" / POLICY))
    for length in LENGTHS:
        _measure(folder / f"start_{length}", ARMS["group_credit"], None, *start, *in_households(length, seed))
    for arm, config in ARMS.items():
        run(folder / arm, config, *start, *in_households("long", seed), *training(arm), validate=False)
        for length in LENGTHS:
            end = folder / arm / LAST
            _measure(folder / f"{arm}_{length}", config, end, *start, *in_households(length, seed))


def _measure(folder: Path, config: Path, checkpoint: Path | None, *options: str) -> None:
    """Validate into a folder of its own; nothing if that is done."""
    if not (folder / FIGURES).exists():
        callbacks = json.dumps([_ours("Figures")])
        validate(folder, config, checkpoint, *options, "--trainer.callbacks", callbacks)


def _ours(name: str, **given: Any) -> Spec:
    return {"class_path": f"scripts.reproduce.hiper_worlds.{name}", "init_args": given}
