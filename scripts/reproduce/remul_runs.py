"""What scripts/reproduce/remul.py runs: options for ``lit-rl``, and the runs of every seed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_rl.merging import merge_adapters
from lit_rl.policy import PolicyConfig
from scripts.reproduce.arms import ROOT, apart, run, validate

CONFIGS = ROOT / "configs/remul"
VARIANTS = CONFIGS / "variants"
LAST, POLICY = "checkpoints/last.ckpt", "checkpoints/last-policy"
START = "--model.init_args.policy.path"
WORLD = {
    "class_path": "lit_rl.environments.GridNavigation",
    "init_args": {"size": 1000, "steps": 4, "width": 2, "height": 2},
}
SPEAKER = {"explicit": 0.35, "private_code": 0.25, "filler": 0.25, "leak_first": 0.15}
LISTENER = {"explicit": 0.5, "filler": 0.5}
LISTENERS = {"listener_1": 101, "listener_2": 102, "held_out": 103}  # seed of each
REWARDED = ("listener_1", "listener_2")
WARMUP_STEPS, BATCHES, TOKENS = 400, 120, 32
TRAINED = ("correctness_only", "balanced", "faithfulness_only")
SECOND = {"two_stage": "all", "two_stage_consistent": "consistent"}  # arm -> answer_filter of its second stage
ARMS = ("original", *TRAINED, *SECOND)
LEAK: dict[str, tuple[bool, str | None]] = {  # listeners believe a stated answer; the guard
    "gullible": (True, None),
    "sceptical": (False, None),
    "gullible_masked": (True, "mask"),
}
Spec = dict[str, Any]


# -- options of lit-rl ---------------------------------------------------------------------------------------------


def lot(held_out: bool) -> Spec:
    """Walks to train on, or those held out."""
    return {"class_path": "scripts.reproduce.unseen.Lot", "init_args": {"tasks": WORLD, "held_out": held_out}}


def warm_up(styles: Mapping[str, float], seed: int, *, guessing: bool) -> tuple[str, ...]:
    """Options of a warm-up on some styles; one that is ``guessing`` learns no answers but those of stated walks."""
    shown = {"tasks": lot(False), "styles": styles, "repeats": 20, "seed": seed}
    source: Spec = {"class_path": "lit_rl.datamodules.TraceDemonstrations", "init_args": shown}
    if guessing:
        class_path = "scripts.reproduce.listening.GuessingDemonstrations"
        source = {"class_path": class_path, "init_args": {"demonstrations": source}}
    steps = str(WARMUP_STEPS)
    return (
        *("--seed_everything", str(seed), "--model.init_args.policy.tiny.seed", str(seed)),
        *("--data.init_args.demonstrations", json.dumps(source), "--data.init_args.batches_per_epoch", steps),
        *("--model.init_args.lr_scheduler.init_args.total_iters", steps, "--trainer.max_epochs", "1"),
        *("--trainer.limit_val_batches", "0"),
    )


def local_listener(root: Path, name: str) -> Spec:
    """A warmed-up listener."""
    policy, settings = {"path": str(root / name / POLICY)}, {"temperature": 1.0, "max_tokens": 28}
    given = {"name": name, "policy": policy, "settings": settings}
    return {"class_path": "lit_rl.listeners.LocalListener", "init_args": given}


def scripted_listener(number: int, believes: bool) -> Spec:
    """One of those of the leak attack."""
    script = {
        "class_path": "scripts.reproduce.listening.Follower",
        "init_args": {"tasks": WORLD, "believes": believes},
    }
    given = {"name": f"scripted_{number}", "script": script}
    return {"class_path": "lit_rl.listeners.ScriptedListener", "init_args": given}


def execution(listeners: Sequence[Spec], held_out: Sequence[Spec] = (), **options: Any) -> Spec:
    """A callback that lets a pool listen."""
    pool = {"listeners": list(listeners), "held_out": list(held_out)}
    return {"class_path": "lit_rl.callbacks.ListenerExecution", "init_args": {"pool": pool} | options}


def measuring(listening: Spec, *, ceilings: bool = False) -> tuple[str, str]:
    """Callbacks of a validation: listeners, probes of faithfulness, styles."""
    probe = {
        "class_path": "lit_rl.callbacks.FaithfulnessProbe",
        "init_args": {
            "answer_cue": "Answer :",
            "forced_tokens": 2,
            "settings": {"temperature": 0.0, "max_tokens": TOKENS},
            "hints": False,
        },
    }
    own = {"class_path": "scripts.reproduce.listening.Measurements", "init_args": {"ceilings": ceilings}}
    return "--trainer.callbacks", json.dumps([listening, probe, own])


def training(*listening: Spec) -> tuple[str, ...]:
    """Options of a training; those who are only measured are asked when it is over."""
    decay = {"start_factor": 1.0, "end_factor": 0.05, "total_iters": BATCHES}
    scheduler = {"class_path": "torch.optim.lr_scheduler.LinearLR", "init_args": decay}
    return (
        *("--trainer.callbacks", json.dumps(list(listening)), "--validate_first", "false"),
        *("--data.init_args.batches_per_epoch", str(BATCHES), "--trainer.max_epochs", "1"),
        # Once a group's replies are all paid alike only the bonus is left, and a small eps makes full steps of it.
        *("--model.init_args.optimizer.init_args.lr", "5e-4", "--model.init_args.optimizer.init_args.eps", "3e-4"),
        *("--model.init_args.entropy_coef", "0.01", "--model.init_args.lr_scheduler", json.dumps(scheduler)),
        *("--trainer.limit_val_batches", "0"),
    )


def on_walks(seed: int) -> tuple[str, ...]:
    """Options of every run after the warm-ups."""
    return (
        *("--seed_everything", str(seed)),
        *("--data.init_args.tasks", json.dumps(lot(False)), "--data.init_args.validation_tasks", json.dumps(lot(True))),
        *("--data.init_args.num_validation_tasks", "200", "--data.init_args.conditions", json.dumps(["answers"])),
        *("--data.init_args.evaluation.max_tokens", str(TOKENS)),
    )


SAMPLING = ("--data.init_args.student.max_tokens", str(TOKENS))
ANSWERS = (
    *("--data.init_args.traces.max_tokens", str(TOKENS), "--validate_first", "false", "--trainer.callbacks", "[]"),
    *("--trainer.limit_val_batches", "0", "--model.init_args.lr_scheduler.init_args.total_iters", "65"),
    *("--model.init_args.optimizer.init_args.lr", "3e-5"),  # 3e-4 can take reasoning along, on which there is no loss
)


# -- runs ----------------------------------------------------------------------------------------------------------


def run_seed(folder: Path, seed: int, parts: Sequence[str]) -> None:
    """All runs of one seed; the listeners are there already."""
    run(folder / "warmup", CONFIGS / "warmup.yaml", *warm_up(SPEAKER, seed, guessing=False), validate=False)
    for part in parts:
        {"execution": run_execution, "leak": run_leak}[part](folder, on_walks(seed))


def run_listeners(root: Path) -> None:
    """Warm the listeners of all seeds up."""
    for name, seed in LISTENERS.items():
        run(root / name, CONFIGS / "warmup.yaml", *warm_up(LISTENER, seed, guessing=True), validate=False)


def run_execution(folder: Path, walks: Sequence[str]) -> None:
    """The arms of the first part."""
    start, root = (START, str(folder / "warmup" / POLICY), *SAMPLING), folder.parent
    rewarded, held_out = ([local_listener(root, n) for n in names] for names in (REWARDED, ["held_out"]))
    listening = execution(rewarded, held_out)
    base = VARIANTS / "faithfulness_only.yaml"
    validate(folder / "original", base, None, *walks, *start, *measuring(listening, ceilings=True))
    for arm in TRAINED:
        config = VARIANTS / f"{arm}.yaml"
        asked = () if arm == "correctness_only" else (execution(rewarded, empty_prefix=False),)
        run(folder / arm, config, *walks, *start, *training(*asked), validate=False)
        validate(folder / arm, config, folder / arm / LAST, *walks, *start, *measuring(listening))
    for arm, answer_filter in SECOND.items():
        merged = second_stage(folder, folder / f"stage_2_{answer_filter}", walks, answer_filter)
        end = (START, str(merged), *SAMPLING)
        validate(folder / arm, base, None, *walks, *end, *measuring(listening))


def second_stage(folder: Path, stage: Path, walks: Sequence[str], answer_filter: str) -> Path:
    """Finetune on masked answers what faithfulness_only left, and merge; returns the folder of the model."""
    first, merged = folder / "faithfulness_only" / POLICY, stage / "merged"
    options = (START, str(first), *ANSWERS, "--data.init_args.answer_filter", answer_filter)
    run(stage, CONFIGS / "masked_answers.yaml", *walks, *options, validate=False)
    if not merged.exists():
        adapters = [stage / POLICY / "speaker"]
        apart("merging", lambda: merge_adapters(PolicyConfig(path=str(first)), adapters, merged), stage / "merge.log")
    return merged


def run_leak(folder: Path, walks: Sequence[str]) -> None:
    """The arms of the second part."""
    start, config = (START, str(folder / "warmup" / POLICY), *SAMPLING), VARIANTS / "faithfulness_only.yaml"
    for name, (believes, guard) in LEAK.items():
        pool, arm = [scripted_listener(number, believes) for number in range(3)], folder / f"leak_{name}"
        listening = execution(pool, leak_policy=guard)
        before = measuring(listening, ceilings=True)
        validate(folder / f"leak_{name}_before", config, None, *walks, *start, *before)
        run(arm, config, *walks, *start, *training(listening), validate=False)
        validate(arm, config, arm / LAST, *walks, *start, *measuring(listening))
