"""What `scripts/reproduce/gopo.py` trains: arms, and the options of every run."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lit_rl.policy import PolicyConfig
from lit_rl.service import LABELS
from scripts.reproduce.arms import ROOT, apart, run
from scripts.reproduce.gopo_memory import serve_and_remember
from scripts.reproduce.gopo_worlds import FILE

CONFIGS = ROOT / "configs/gopo"
POLICY = "checkpoints/last-policy"
BATCHES, SCENARIOS, GROUP = 30, 8, 8  # of every online training
LEARNING_RATE = "3e-3"
ANNEALING = BATCHES * 3 // 10
OFFLINE_BATCHES, OFFLINE_PAIRS = 60, 16
WARM, FLAT_WARM, MEMORY, OFFLINE = "warmup", "warmup_flat", "memory", "offline"
Options = tuple[str, ...]
Spec = dict[str, Any]


def weights(name: str, **given: Any) -> Spec:
    """A schedule of the joint reward's weights."""
    return {"class_path": f"lit_rl.objectives.joint_reward.{name}", "init_args": given}


ANNEALED = weights("AnnealedWeights", steps=ANNEALING)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One online training: what differs from GOPO, as published or in our reading."""

    title: str
    weights: Spec
    masks: str = "hard"
    mode: str = "two_level"
    more: Options = ()  # further options of the model

    @property
    def config(self) -> Path:
        """A flat policy is a baseline of its own."""
        return CONFIGS / ("baselines/ppo_flat.yaml" if self.mode == "flat" else "tiny.yaml")


def model(**options: str) -> Options:
    """Options of the model."""
    return tuple(word for name, value in options.items() for word in (f"--model.init_args.{name}", value))


# "no penalty" has the violations in no reward; "penalty" takes .1 off for each of them, as gopo.md section 11.
ARMS = {
    "gopo": Arm(title="GOPO", weights=ANNEALED),
    "turn_reward": Arm(title="planner paid per turn", weights=ANNEALED, more=model(planner_reward="turn")),
    "fixed_weights": Arm(title="fixed weights", weights=weights("FixedWeights")),
    "no_esndcg": Arm(title="no ESNDCG", weights=weights("FixedWeights", tse=0.8, esndcg=0.0, gre=0.2)),
    "separate": Arm(title="responder paid for its replies alone", weights=ANNEALED, more=model(joint_coef="0.0")),
    "flat": Arm(title="one flat policy (PPO)", weights=ANNEALED, mode="flat"),
    "no_masks": Arm(title="no masks", weights=ANNEALED, masks="none"),
    "penalty": Arm(
        title="no masks, a penalty",
        weights=ANNEALED,
        masks="none",
        more=model(violation_coef="0.1", violations_per_turn="false"),
    ),
}


# -- runs ------------------------------------------------------------------------------------------------------------


def run_seed(folder: Path, seed: int) -> None:
    """All runs of one seed: two warm-ups, and from them every arm."""
    numbers = ("--seed_everything", str(seed))
    for name, mode in ((WARM, "two_level"), (FLAT_WARM, "flat")):
        options = (*warm_up(seed, mode), *measured(mode, "hard", "none"))
        run(folder / name, CONFIGS / "warmup.yaml", *numbers, *options, validate=False)
    for name, arm in ARMS.items():
        start = folder / (FLAT_WARM if arm.mode == "flat" else WARM) / POLICY
        run(folder / name, arm.config, *numbers, *from_start(start, seed), *online(arm), validate=False)
    start = folder / WARM / POLICY
    options = (*from_start(start, seed), *offline(), *measured("two_level", "hard"))
    run(folder / OFFLINE, CONFIGS / "offline.yaml", *numbers, *options, validate=False)
    if not (folder / MEMORY / FILE).exists():
        served = partial(
            serve_and_remember,
            folder / MEMORY,
            PolicyConfig(path=str(start)),
            seed=seed,
            rounds=BATCHES,
            customers=SCENARIOS * GROUP,
        )
        apart("the memory baseline", served, folder / MEMORY / "serve.log")


def warm_up(seed: int, mode: str) -> Options:
    """Options of a warm-up, the config's own in all but these."""
    return (
        *("--model.init_args.policy.tiny.seed", str(seed), "--data.init_args.form.mode", mode),
        *("--trainer.limit_val_batches", "0", "--episode_log.sample_size", "0"),
    )


def from_start(start: Path, seed: int) -> Options:
    """Train adapters on a warmed-up base, and do not validate."""
    return (
        *("--model.init_args.policy.path", str(start), "--model.init_args.policy.seed", str(seed)),
        *("--validate_first", "false", "--trainer.limit_val_batches", "0", "--episode_log.sample_size", "0"),
    )


def online(arm: Arm) -> Options:
    """Options of a training on dialogues played."""
    shop = {"class_path": "lit_rl.service.ServiceScenarios", "init_args": {"size": 1200, "seed": 1}}
    form = () if arm.mode == "flat" else ("--data.init_args.masks", arm.masks)
    return (
        *("--data.init_args.tasks", json.dumps(shop), "--data.init_args.num_validation_tasks", "12"),
        *("--data.init_args.labels", json.dumps(LABELS), "--data.init_args.fit_conditions", "[]"),
        *("--data.init_args.tasks_per_batch", str(SCENARIOS), "--data.init_args.group_size", str(GROUP)),
        *("--data.init_args.student.max_tokens", "12", *form),
        *model(learning_rate=LEARNING_RATE, kl_coef="0.0", steps_per_batch="1", epochs_per_batch="1"),
        *model(weights=json.dumps(arm.weights)),
        *length(BATCHES),
        *arm.more,
        *measured(arm.mode, arm.masks),
    )


def offline() -> Options:
    """Options of a training on pairs."""
    return (*length(OFFLINE_BATCHES), "--data.init_args.batch_size", str(OFFLINE_PAIRS))


def length(batches: int) -> Options:
    """One epoch, with a learning rate that falls to a twentieth."""
    falling = {"start_factor": 1.0, "end_factor": 0.05, "total_iters": batches}
    schedule = {"class_path": "torch.optim.lr_scheduler.LinearLR", "init_args": falling}
    return (
        *("--model.init_args.lr_scheduler", json.dumps(schedule)),
        *("--data.init_args.batches_per_epoch", str(batches), "--trainer.max_epochs", "1"),
        *("--checkpoints.every_n_batches", "1000"),
    )


def measured(mode: str, *masks: str) -> Options:
    """Serve new customers at the end."""
    served = {"mode": mode, "masks": list(masks)}
    spec = {"class_path": "scripts.reproduce.gopo_worlds.ServiceFile", "init_args": served}
    return "--trainer.callbacks+", json.dumps(spec)
