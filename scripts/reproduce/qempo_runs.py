"""What `scripts/reproduce/qempo.py` trains: worlds, arms, and the options of every run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.reproduce.arms import ROOT, run

CONFIGS = ROOT / "configs/qempo"
INVALID = -3.0  # of a toy's text that is no answer: the closed form then gives it next to nothing
Options = tuple[str, ...]


@dataclass(frozen=True)
class World:
    """A finite set of answers, and the tiny model that can say them."""

    tasks: dict[str, Any]
    words: tuple[str, ...]
    numbers: int  # from 0 on
    tokens: int  # of an answer
    warm_up: int  # steps


WORLDS = {
    "categorical": World(
        {
            "class_path": "lit_rl.environments.CategoricalToy",
            "init_args": {  # its defaults, for the config has others
                "rewards": [1.0, 0.9, 0.8, 0.3, 0.1, 0.0],
                "reference": [0.50, 0.05, 0.15, 0.20, 0.08, 0.02],
                "prompts": ["pick"],
                "invalid": INVALID,
            },
        },
        ("pick", "a", "b", "c", "d", "e", "f"), numbers=0, tokens=1, warm_up=100,
    ),
    "two_tokens": World(
        {
            "class_path": "lit_rl.environments.AutoregressiveToy",
            "init_args": {
                "rewards": [[1.0, 0.8], [0.0, 0.9]],
                "first": [0.7, 0.3],
                "second": [[0.9, 0.1], [0.4, 0.6]],
                "prompts": ["pick two"],
                "invalid": INVALID,
            },
        },
        ("pick", "two"), numbers=2, tokens=2, warm_up=100,
    ),
    "multiples": World(
        {"class_path": "scripts.reproduce.answer_worlds.Multiples", "init_args": {"size": 16}},
        ("a", "number", "and", "multiple"), numbers=17, tokens=2, warm_up=150,
    ),
}  # fmt: skip
TOYS: dict[str, dict[str, tuple[float, float]]] = {  # arm -> (a, b) of section 10
    "categorical": {
        "QEMPO": (0.239569, 0.0),
        "QEMPO-KL": (0.278378, 0.067187),
        "RLHF": (0.5, 0.5),
        "SPL": (0.4, 0.2),
    },
    "two_tokens": {"QEMPO": (0.3, 0.0), "QEMPO-KL": (0.3, 0.1), "RLHF": (0.3, 0.3)},
}
LOSSES = ("soft_label", "regression", "pairwise")  # offline, with the coefficients of QEMPO-KL
STD_FIRST, STD_FIRST_CLASS = "std_first", "scripts.reproduce.std_first.StdFirst"  # the pitfall
RATIO = 1 / 3  # b / a of QEMPO-KL on the frontier
SWEEPS: dict[str, tuple[float, ...]] = {  # a, and of GRPO the coefficient of its bonus
    "QEMPO": (0.33, 0.25, 0.16),
    "QEMPO-KL": (0.38, 0.28, 0.18),
    "RLHF": (0.55, 0.36, 0.22),
    "GRPO": (0.66, 0.6, 0.45, 0.2),
}
RATIOS = {"QEMPO": 0.0, "QEMPO-KL": RATIO, "RLHF": 1.0}
BATCHES, TOY_BATCHES, OFFLINE_STEPS, SAMPLES = 60, 150, 200, 256


def toy_arms(world: str) -> dict[str, tuple[float, float]]:
    """Arm -> (a, b), in the order of the table."""
    offline_arms = dict.fromkeys(LOSSES, TOYS[world]["QEMPO-KL"])
    pitfall = {STD_FIRST: TOYS[world]["QEMPO"]} if world == "categorical" else {}
    return TOYS[world] | offline_arms | pitfall


def run_seed(folder: Path, seed: int, parts: Sequence[str]) -> None:
    """All runs of one seed."""
    numbers = ("--seed_everything", str(seed))
    if "toys" in parts:
        for world in TOYS:
            toy(folder, world, warm_up(folder, world, numbers, seed), numbers)
    if "frontier" in parts:
        start = warm_up(folder, "multiples", numbers, seed)
        for method, strengths in SWEEPS.items():
            for strength in strengths:
                online(folder / f"{method}_{strength}", "multiples", start, *numbers, **sweep_arm(method, strength))
        a = SWEEPS["QEMPO"][1]
        online(folder / STD_FIRST, "multiples", start, *numbers, *coefficients(a, 0.0), model=STD_FIRST_CLASS)


def toy(folder: Path, world: str, start: Path, numbers: Options) -> None:
    """The arms of one toy."""
    for arm, (a, b) in TOYS[world].items():
        online(folder / f"{world}_{arm}", world, start, *numbers, *coefficients(a, b))
    for loss in LOSSES:
        offline(folder / f"{world}_{loss}", world, start, loss, *numbers, *coefficients(*TOYS[world]["QEMPO-KL"]))
    if world == "categorical":
        a, b = TOYS[world]["QEMPO"]
        online(folder / f"{world}_{STD_FIRST}", world, start, *numbers, *coefficients(a, b), model=STD_FIRST_CLASS)


def sweep_arm(method: str, strength: float) -> dict[str, Any]:
    """One point of a sweep, as further arguments of `online`."""
    if method == "GRPO":
        return {"config": "baselines/grpo_entropy.yaml", "more": ("--model.init_args.entropy_coef", str(strength))}
    return {"more": coefficients(strength, RATIOS[method] * strength)}


def coefficients(a: float, b: float) -> Options:
    """Options of both."""
    return ("--model.init_args.entropy", str(a), "--model.init_args.reference", str(b))


def warm_up(folder: Path, name: str, numbers: Options, seed: int) -> Path:
    """Train the reference of a world; returns where it is."""
    world, model = WORLDS[name], "--model.init_args.policy.tiny"
    options = (
        *(f"{model}.seed", str(seed), f"{model}.hidden_size", "64"),
        *(f"{model}.words", json.dumps(world.words), f"{model}.numbers", str(world.numbers)),
        *("--data.init_args.demonstrations.init_args.tasks", json.dumps(world.tasks)),
        *length(world.warm_up, end=0.0),
    )
    run(folder / f"warm_{name}", CONFIGS / "warmup.yaml", *numbers, *options, validate=False)
    return folder / f"warm_{name}" / "checkpoints/last-policy"


def online(
    folder: Path,
    world: str,
    start: Path,
    *options: str,
    config: str = "tiny.yaml",
    model: str | None = None,
    more: Options = (),
) -> None:
    """One training on samples."""
    tasks = json.dumps(WORLDS[world].tasks)
    data = (
        *("--data.init_args.tasks", tasks, "--data.init_args.validation_tasks", tasks),
        *("--data.init_args.student.max_tokens", str(WORLDS[world].tokens)),
        *("--data.init_args.tasks_per_batch", "1", "--data.init_args.group_size", str(SAMPLES)),
    )
    chosen = () if model is None else ("--model", model)
    # On a toy of four answers steps of 1e-2 can leave one alone, and nothing is left to compare.
    rate, batches = ("3e-3", TOY_BATCHES) if world in TOYS else ("1e-2", BATCHES)
    common = (*chosen, *from_reference(start, world, rate), *data, *length(batches, end=0.05))
    run(folder, CONFIGS / config, *common, *options, *more, validate=False)


def offline(folder: Path, world: str, start: Path, loss: str, *options: str) -> None:
    """One training on all pairs of answers."""
    pairs = {"class_path": "scripts.reproduce.answer_worlds.AllPairs", "init_args": {"tasks": WORLDS[world].tasks}}
    answers = {"categorical": 6, "two_tokens": 4}[world]
    common = (
        *("--model", "lit_rl.methods.OfflineQEMPO", "--data", "lit_rl.datamodules.PreferenceDataModule"),
        *("--data.init_args.preferences", json.dumps(pairs)),
        *("--data.init_args.batch_size", str(answers * (answers - 1) // 2), "--model.init_args.loss", loss),
        *from_reference(start, world, "1e-3"),
        *length(OFFLINE_STEPS, end=0.0),
    )
    run(folder, CONFIGS / "tiny.yaml", *common, *options, validate=False)


def from_reference(start: Path, world: str, learning_rate: str) -> Options:
    """Train an adapter on a warmed-up base, and write down what became of it."""
    file = {"class_path": "scripts.reproduce.answer_worlds.PolicyFile", "init_args": {"tasks": WORLDS[world].tasks}}
    return (
        *("--model.init_args.policy.path", str(start), "--model.init_args.learning_rate", learning_rate),
        *("--trainer.callbacks+", json.dumps(file), "--validate_first", "false"),
    )


def length(batches: int, end: float) -> Options:
    """One epoch, with a learning rate that falls to ``end`` of itself."""
    falling = {"start_factor": 1.0, "end_factor": end, "total_iters": batches}
    schedule = {"class_path": "torch.optim.lr_scheduler.LinearLR", "init_args": falling}
    return (
        *("--model.init_args.lr_scheduler", json.dumps(schedule)),
        *("--data.init_args.batches_per_epoch", str(batches), "--trainer.max_epochs", "1"),
        *("--trainer.limit_val_batches", "0", "--checkpoints.every_n_batches", "100", "--episode_log.sample_size", "0"),
    )
