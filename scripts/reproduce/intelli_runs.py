"""What scripts/reproduce/intelli.py runs: options for ``lit-rl``, and the runs of every seed."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lit_rl.papers import SyntheticPapers
from scripts.reproduce.arms import ROOT, apart, lit_rl, run, validate
from scripts.reproduce.intelli_annotated import NOISY, TRUE, write_annotated
from scripts.reproduce.intelli_euclid import RESPONSES
from scripts.reproduce.intelli_heads import HEADS, TEST_SEED, measure_heads

INTELLI, DAPO = ROOT / "configs/intelli", ROOT / "configs/dapo"
LAST, POLICY = "checkpoints/last.ckpt", "checkpoints/last-policy"
START = "--model.init_args.policy.path"
Spec = dict[str, Any]
Options = tuple[str, ...]

RECITAL_STEPS, SFT_STEPS = 400, 500

# -- heads: the ablation of the reward model -----------------------------------------------------------------------

ANNOTATED, TESTED, EPOCHS = 1200, 150, 3  # papers of a training, of the test; passes over their questions
HEAD_CONFIGS = {
    "linear": INTELLI / "heads/pool_linear.yaml",
    "mlp": INTELLI / "heads/pool_mlp.yaml",
    "transformer": INTELLI / "reward_tiny.yaml",
}
REWARD_STEPS = EPOCHS * ANNOTATED * 8 * 9 // 10 // 32  # eight questions a paper, a tenth to select on, batches of 32
POOLS = {"last": "1", "last 16": "16", "all": "null"}
FROZEN, TRAINED = ("--model.init_args.train_backbone", "false"), ("--model.init_args.train_backbone", "true")
BEST_HEAD = HEADS["last 16, transformer, trained"]

# -- ladder: DAPO against GRPO -------------------------------------------------------------------------------------

BATCHES, PROMPTS, RESPONSE_TOKENS = 160, 16, 16
VALIDATIONS = 8  # while training
FILTERED: Options = ("--model.init_args.filter_truncated", "true")
HIGHER: Options = ("--model.init_args.clip_high", "0.28")
PUNISHED: Options = ("--model.init_args.overlong_factor", "1.0", "--model.init_args.overlong_cache", "8")
BY_TOKEN: Options = ("--model.init_args.aggregation", "token_mean")
SAMPLED: Options = ("--data.init_args.dynamic_sampling", json.dumps({"prompts_per_draw": 2 * PROMPTS, "max_draws": 4}))
LADDER: dict[str, Options] = {
    "grpo": (),
    "filtered": FILTERED,
    "clip_higher": (*FILTERED, *HIGHER),
    "punished": (*HIGHER, *PUNISHED),
    "token_level": (*HIGHER, *PUNISHED, *BY_TOKEN),
    "dapo": (*HIGHER, *PUNISHED, *BY_TOKEN, *SAMPLED),
}

# -- ask: the generator --------------------------------------------------------------------------------------------

ASKED = {"ask_hard": "hard_sum", "ask_soft": "soft_mean"}
ASK_EPOCHS, ASK_BATCHES = 4, 25  # validations while training, batches before each
BEST_OF = (1, 2, 4, 8)


# -- options of lit-rl ---------------------------------------------------------------------------------------------


def numbered(seed: int) -> Options:
    """Options of every run of a seed."""
    return "--seed_everything", str(seed)


def warmed_up(folder: Path) -> Spec:
    """The policy that an earlier run left, instead of a small random one and its way to begin a reply."""
    return {"path": str(folder), "tiny": None, "prefill": {}}


def warm_up(seed: int) -> Options:
    """Options of a warm-up."""
    return *numbered(seed), "--model.init_args.policy.tiny.seed", str(seed), "--trainer.limit_val_batches", "0"


def recital(seed: int) -> Options:
    """Options of a first warm-up: to recite papers."""
    shown = {"class_path": "scripts.reproduce.intelli_recitals.Recitals", "init_args": {"size": 12800, "seed": 1000}}
    return (
        # To see that a word is not the one that should follow takes a layer more than to say the one that should.
        *(*warm_up(seed), "--model.init_args.policy.tiny.layers", "3"),
        *("--data.init_args.demonstrations", json.dumps(shown), "--data.init_args.train_feedback", "false"),
        *_steps(RECITAL_STEPS),
    )


def questions(recited: Path, seed: int) -> Options:
    """Options of the second: to ask, mostly poorly."""
    return (
        *numbered(seed),
        *("--model.init_args.policy", json.dumps(warmed_up(recited)), "--trainer.limit_val_batches", "0"),
        *_steps(SFT_STEPS),
    )


def _steps(count: int) -> Options:
    return (
        *("--data.init_args.batch_size", "32", "--data.init_args.batches_per_epoch", str(count)),
        *("--model.init_args.lr_scheduler.init_args.total_iters", str(count)),
    )


def generator_asks(generator: Path, papers: int, seed: int) -> Options:
    """Options of ``lit-rl predict``: the generator asks four questions about each paper of a seed."""
    tasks = {"class_path": "lit_rl.papers.QuestionTasks", "init_args": {"size": papers, "seed": seed}}
    return (
        *numbered(seed),
        *(START, str(generator), "--data.init_args.quality", "null", "--trainer.callbacks", "[]"),
        *("--data.init_args.validation_tasks", json.dumps(tasks), "--data.init_args.num_validation_tasks", str(papers)),
        *("--data.init_args.validation_group_size", "4", "--data.init_args.conditions", '["answers"]'),
    )


def reward_model(backbone: Path, questions: Path, states: Path, seed: int) -> Options:
    """Options of the training of a reward model; ``states`` is where those of a frozen backbone are kept."""
    learned = {
        "class_path": "lit_rl.datamodules.StoredQuestions",
        "init_args": {"path": str(questions), "layout": "own"},
    }
    return (
        *numbered(seed),
        *("--model.init_args.backbone.path", str(backbone), "--model.init_args.seed", str(seed)),
        *("--data.init_args.questions", json.dumps(learned), "--data.init_args.test_share", "0"),
        *("--data.init_args.cache", str(states), "--trainer.max_epochs", str(EPOCHS)),
        *("--model.init_args.lr_scheduler", json.dumps(_falling(REWARD_STEPS))),
    )


def decay(learning_rate: float, steps: int) -> Options:
    """An optimizer whose learning rate falls to a tenth."""
    # Once a group's answers are all paid alike little is left of the gradient, and a small eps makes full steps of it.
    adam = {"class_path": "torch.optim.AdamW", "init_args": {"lr": learning_rate, "eps": 3e-4, "weight_decay": 0.0}}
    return (
        *(
            "--model.init_args.optimizer",
            json.dumps(adam),
            "--model.init_args.lr_scheduler",
            json.dumps(_falling(steps)),
        ),
        *("--model.init_args.scheduler_interval", "rollout"),
    )


def _falling(steps: int) -> Spec:
    linear = {"start_factor": 1.0, "end_factor": 0.1, "total_iters": steps}
    return {"class_path": "torch.optim.lr_scheduler.LinearLR", "init_args": linear}


GCD = {"task": "gcd", "size": 1500, "options": {"min_value": 2, "max_value": 60}, "prompt": "gcd {numbers}"}
HELD_OUT = 300


def divisors() -> Spec:
    """The problems of reasoning-gym that the ladder is about; the last ``HELD_OUT`` are held out of everything."""
    return {"class_path": "lit_rl.environments.ReasoningGymTasks", "init_args": GCD}


def euclid_warm_up(seed: int) -> Options:
    """Options of the warm-up on `Euclid`."""
    shown = {"class_path": "scripts.reproduce.intelli_euclid.Euclid", "init_args": {"tasks": divisors()}}
    return (
        *warm_up(seed),
        *("--model.init_args.policy.tiny.initializer_range", "0.1", "--model.init_args.policy.prefill", "{}"),
        *("--data.init_args.demonstrations", json.dumps(shown), "--data.init_args.train_turns", "all"),
        *("--data.init_args.batches_per_epoch", "300", "--data.init_args.batch_size", "64"),
        *("--model.init_args.lr_scheduler.init_args.total_iters", "300"),
    )


def ladder(arm: str, start: Path, seed: int) -> Options:
    """Options of a rung."""
    return (
        *numbered(seed),
        *(
            "--model.init_args.policy",
            json.dumps(warmed_up(start)),
            *decay(1e-3, BATCHES),
            "--model.init_args.steps_per_batch",
            "2",
        ),
        *("--data.init_args.tasks", json.dumps(divisors()), "--data.init_args.num_validation_tasks", str(HELD_OUT)),
        *("--data.init_args.tasks_per_batch", str(PROMPTS), "--data.init_args.group_size", "8"),
        *("--data.init_args.batches_per_epoch", str(BATCHES // VALIDATIONS), "--trainer.max_epochs", str(VALIDATIONS)),
        *("--data.init_args.student", json.dumps({"max_tokens": RESPONSE_TOKENS})),
        *("--data.init_args.evaluation", json.dumps({"temperature": 1.0, "max_tokens": RESPONSE_TOKENS})),
        *("--data.init_args.conditions", '["answers"]'),
        *LADDER[arm],
    )


def asking(generator: Path, reward: Path, judge: Path, mode: str, seed: int) -> Options:
    """Options of the generator's training and of its validation."""
    callback = {
        "class_path": "lit_rl.callbacks.QuestionQuality",
        "init_args": {
            "judges": {"oracle": {"class_path": "lit_rl.papers.OracleJudge"}, **_judges(reward=reward, judge=judge)},
            "best_of": list(BEST_OF),
            "chosen_by": "reward",
        },
    }
    return (
        *numbered(seed),
        *(START, str(generator), *decay(3e-4, ASK_EPOCHS * ASK_BATCHES), "--trainer.max_epochs", str(ASK_EPOCHS)),
        *("--data.init_args.batches_per_epoch", str(ASK_BATCHES)),
        *("--data.init_args.quality", json.dumps(_saved(reward, mode)), "--data.init_args.conditions", '["answers"]'),
        *("--trainer.callbacks", json.dumps([callback])),
    )


def _saved(folder: Path, mode: str) -> Spec:
    return {"class_path": "lit_rl.reward_models.SavedRewardModel", "init_args": {"path": str(folder), "mode": mode}}


def _judges(**folders: Path) -> dict[str, Spec]:
    return {name: _saved(folder, "hard_sum") for name, folder in folders.items()}


# -- runs ----------------------------------------------------------------------------------------------------------


def run_seed(folder: Path, seed: int, parts: Sequence[str]) -> None:
    """All runs of one seed."""
    if {"heads", "ask"} & set(parts):
        run(folder / "recital", INTELLI / "sft_tiny.yaml", *recital(seed), validate=False)
        options = questions(folder / "recital" / POLICY, seed)
        run(folder / "sft", INTELLI / "sft_tiny.yaml", *options, validate=False)
    for part in parts:
        PARTS[part](folder, seed)


def run_heads(folder: Path, seed: int) -> None:
    """The reward models of the ablation, and what they make of other papers."""
    for name in HEADS.values():
        train_head(folder, name, seed, name)
    annotate(folder, "test_questions", TESTED, TEST_SEED)
    if not (folder / "heads.json").exists():
        apart("measuring heads", lambda: measure_heads(folder), folder / "heads.log")


def train_head(folder: Path, head: str, seed: int, run_name: str) -> None:
    """One reward model, from the generator's warm-up, on papers of its seed."""
    pool, kind, backbone = next(label for label, name in HEADS.items() if name == head).split(", ")
    learned = annotate(folder, f"questions_{seed}", ANNOTATED, 10 + seed)
    options = (
        *reward_model(folder / "sft" / POLICY, learned, folder / "states", seed),
        *("--model.init_args.pool_tokens", POOLS[pool], *(TRAINED if backbone == "trained" else FROZEN)),
    )
    run(folder / run_name, HEAD_CONFIGS[kind], *options, validate=False)


def annotate(folder: Path, name: str, papers: int, seed: int) -> Path:
    """Let the generator ask about papers, and annotators say what they think; returns the file of what they said."""
    asked = folder / name
    if not (asked / TRUE).exists():  # which is written last
        options = generator_asks(folder / "sft" / POLICY, papers, seed)
        common = ("--config", str(INTELLI / "ask_tiny.yaml"), "--trainer.default_root_dir", str(asked))
        lit_rl("predict", *common, *options, log=asked / "predict.log")
        work = partial(write_annotated, asked, SyntheticPapers(papers, seed))
        apart("annotating", work, asked / "annotate.log")
    return asked / NOISY


def run_ladder(folder: Path, seed: int) -> None:
    """GRPO, and one technique of DAPO after the other."""
    run(folder / "euclid", ROOT / "configs/warmup/gcd.yaml", *euclid_warm_up(seed), validate=False)
    for arm in LADDER:
        config = DAPO / ("tiny.yaml" if arm == "dapo" else "baselines/grpo.yaml")
        options = ladder(arm, folder / "euclid" / POLICY, seed)
        run(folder / arm, config, *options, validate=False)
        end = folder / f"{arm}_measured"
        if not (end / RESPONSES).exists():
            many = ("--data.init_args.validation_group_size", "8", "--trainer.callbacks", _RESPONSES)
            validate(end, config, folder / arm / LAST, *options, *many)


_RESPONSES = json.dumps([{"class_path": "scripts.reproduce.intelli_euclid.Responses"}])


def run_ask(folder: Path, seed: int) -> None:
    """The generator against the reward model, scored in two ways, with another one of other papers to judge it too."""
    train_head(folder, BEST_HEAD, seed, BEST_HEAD)
    train_head(folder, BEST_HEAD, 1000 + seed, "judge")
    models = (folder / "sft" / POLICY, folder / BEST_HEAD / POLICY, folder / "judge" / POLICY)
    for arm, mode in ASKED.items():
        run(folder / arm, INTELLI / "ask_tiny.yaml", *asking(*models, mode, seed))


PARTS: dict[str, Callable[[Path, int], None]] = {"heads": run_heads, "ladder": run_ladder, "ask": run_ask}
