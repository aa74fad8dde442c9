"""Checks lit-rl on one NVIDIA GPU, without network: results that must be right, and what they cost.

For each size of Qwen2.5 and each kind of policy it writes a model folder with random weights, loads it as any policy is
loaded, plays dialogues with a scripted teacher, and takes optimizer steps of SocialMetaLearning under Lightning's
Trainer.  Kinds: ``nf4``, a base in 4 bits under a LoRA adapter, and ``bf16``, one in bfloat16.

The exit status is 1 if a result is wrong:

  - the trainer's log-probs differ from the sampler's by more than `BOUNDS`;
  - a loss or a gradient is not finite, or an adapter weight gets no gradient;
  - a batch played twice with one seed differs;
  - a frozen weight changes;
  - sampling, scoring or the 4-bit products take a slower or other way than meant.

It is 2 if there is no GPU.  The toy size goes through the same code on a CPU.

    python scripts/gpu_check.py --out runs/gpu_check.json
    python scripts/gpu_check.py --device cpu --sizes toy
"""

import argparse
import gc
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks beside it alone

import lit_rl
from lit_rl.episodes import Rollouts
from lit_rl.methods.sml import SocialMetaLearning
from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.sampler_rows import CachedRows
from lit_rl.sampling import SamplingSettings
from scripts.bench.case import WORDS, Case
from scripts.bench.talk import TalkData
from scripts.random_model import SHAPES, write_model

KINDS = ("nf4", "bf16")
# Of |trainer - sampler| in nats.  Rounding to bfloat16 gave 0.007, 0.024 and 0.035 for 0.5B on a CPU.  Random logits
# spread by 0.02 times the root of the width: by 0.6 there, by 1.2 for 7B.
BOUNDS = {"p50": 0.03, "p99": 0.15, "max": 0.5}
COLUMNS: tuple[str, ...] = ("size", "kind", "load_seconds", "sampling_tokens_per_second", "learning_tokens_per_second")
COLUMNS += ("weights_gib", "peak_gib", "p50", "p99", "max", "result")


class Watched(SocialMetaLearning):
    """Keeps how far the trainer's log-probs are from the sampler's, before the first step on a batch."""

    differences: list[Tensor]

    def token_loss(self, rollouts: Rollouts, log_probs: Tensor) -> Tensor:
        difference = (log_probs.detach() - rollouts.old_log_probs).abs()
        self.differences.append(difference[rollouts.loss_mask].cpu())
        return super().token_loss(rollouts, log_probs)


class Watch(L.Callback):
    """Times the phases and notes what is wrong, each in one sentence."""

    def __init__(self, device: torch.device):
        self.device = device
        self.wrong: list[str] = []
        self.speeds: dict[str, list[float]] = {"sampling": [], "learning": []}
        self.start = 0.0
        self.first: list[list[int]] = []
        self.frozen: dict[str, int] = {}
        self.without_gradient: list[str] = []

    def now(self) -> float:
        """The time at which all work asked for is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    # -- as TalkData calls it ----------------------------------------------------------------------------------

    def begin_sampling(self) -> None:
        self.start = self.now()

    def end_sampling(self, *, sampled: int, row: int) -> None:
        self.speeds["sampling"].append(sampled / (self.now() - self.start))

    # -- as Lightning calls it ---------------------------------------------------------------------------------

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        policy: Any = pl_module.policy
        self.wrong += unmeant_ways(policy)
        self.frozen = checksums(policy)
        self.first = said(trainer.datamodule.collect(0))  # type: ignore[attr-defined]
        self.speeds["sampling"].clear()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0 and said(batch) != self.first:
            self.wrong.append("A batch played twice with one seed differs.")
        self.start = self.now()

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        policy: Any = pl_module.policy
        named = dict(policy.named_parameters())
        # Half of an adapter starts at zero, which keeps the gradient of the other half at zero: the last step counts.
        self.without_gradient = [name for name in policy.trainable_names() if not has_gradient(named[name])]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.speeds["learning"].append(int(batch.attention_mask.sum()) / (self.now() - self.start))
        loss = trainer.callback_metrics["train/loss"]
        if not torch.isfinite(loss):
            self.wrong.append(f"The loss of step {batch_idx + 1} is {float(loss)}.")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        policy: Any = pl_module.policy
        found = checksums(policy)
        if changed := [name for name, number in self.frozen.items() if found[name] != number]:
            self.wrong.append(f"{len(changed)} frozen weights changed, the first is {changed[0]}.")
        if missing := self.without_gradient:
            self.wrong.append(f"{len(missing)} adapter weights got no finite gradient, the first is {missing[0]}.")


def unmeant_ways(policy: Policy) -> list[str]:
    """What works, but not as a policy of this kind should."""
    wrong = []
    if not isinstance(policy.sampler(SamplingSettings(), 1).rows, CachedRows):
        wrong.append("Sampling does not keep keys and values: it recomputes every token.")
    if not policy.head_is_exact:
        wrong.append("Log-probs need the whole logits: the head's own product was not found to be exact.")
    with torch.no_grad():
        computed = policy.hidden(torch.tensor([[6, 7, 8]], device=policy.device)).dtype
    if computed != torch.bfloat16:
        wrong.append(f"Hidden states are {computed}, not bfloat16.")
    if policy.config.quantization and not any(p.__class__.__name__ == "Params4bit" for p in policy.parameters()):
        wrong.append("No weight is in 4 bits.")
    return wrong


def checksums(policy: Policy) -> dict[str, int]:
    """Of the bytes of every frozen weight."""
    trained = set(policy.trainable_names())
    frozen = {name: p.detach() for name, p in policy.named_parameters() if name not in trained}
    return {name: int(weight.view(torch.uint8).sum(dtype=torch.int64)) for name, weight in frozen.items()}


def has_gradient(parameter: Tensor) -> bool:
    """Whether there is one, finite and not all zero."""
    return parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()) and bool(parameter.grad.any())


def said(rollouts: Rollouts) -> list[list[int]]:
    """What the student sampled, turn by turn."""
    return [turn.completion_ids for episode in rollouts.episodes for turn in episode.turns_of("student")]


def check(size: str, kind: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One policy: its figures, and what is wrong."""
    device, watch = options.device, Watch(options.device)
    case = Case(name=size, turns=2, max_tokens=options.max_tokens, tasks=options.tasks, learning_rate=1e-5)
    config = PolicyConfig(
        path=str(folder),
        adapters={"student": LoRA(rank=16)},
        quantization="nf4" if kind == "nf4" else None,
        dtype="bfloat16",
        gradient_checkpointing=True,
    )
    module = Watched(config, gamma=1.0, learning_rate=1e-5, micro_batch_tokens=options.micro_batch_tokens)
    module.differences = []
    start = watch.now()
    module.policy = Policy(config, device)
    result: dict[str, Any] = {
        "size": size,
        "kind": kind,
        "load_seconds": watch.now() - start,
        "weights_gib": allocated(device),
    }
    trainer = L.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index] if device.type == "cuda" else 1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch],
    )
    trainer.fit(module, datamodule=TalkData(case, watch, options.iterations))
    differences = torch.cat(module.differences).float()
    result |= {"p50": float(differences.quantile(0.5)), "p99": float(differences.quantile(0.99))}
    result |= {"max": float(differences.max()), "peak_gib": peak(device)}
    result |= {f"{phase}_tokens_per_second": median(speeds[-2:]) for phase, speeds in watch.speeds.items()}
    far = [f"{name} of the log-prob differences is above {b}." for name, b in BOUNDS.items() if not result[name] <= b]
    return result | {"wrong": watch.wrong + far, "dialogues": case.rows, "max_tokens": case.max_tokens}


def allocated(device: torch.device) -> float | None:
    """GiB of the GPU in use; the peak is counted anew from here on."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device) / 2**30


def peak(device: torch.device) -> float | None:
    """Most GiB of the GPU in use since `allocated`."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def check_all(folder: Path, keep: bool, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every size and kind; one that fails does not keep the others from being checked."""
    results = []
    for size in options.sizes:
        model = write_model(size, WORDS, folder, options.device)
        for kind in options.kinds:
            try:
                results.append(check(size, kind, model, options))
            except Exception as error:
                traceback.print_exc()
                results.append({"size": size, "kind": kind, "wrong": [f"{type(error).__name__}: {error}"]})
            gc.collect()
            if options.device.type == "cuda":
                torch.cuda.empty_cache()
            print(table(results[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
        if not keep:
            for file in model.iterdir():
                file.unlink()
    return results


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown, one row for each policy."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for result in results:
        shown = result | {"result": "WRONG" if result["wrong"] else "right"}
        lines.append("| " + " | ".join(cell(shown.get(column)) for column in COLUMNS) + " |")
    return "\n".join(lines)


def cell(value: Any) -> str:
    """Three digits of a number, a dash for what was not measured."""
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=["0.5B", "1.5B", "7B"])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--device", default="cuda", type=torch.device)
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter dialogues: right or wrong, not how fast"
    )
    parser.add_argument("--folder", type=Path, help="keep the models there and find them again; else they are removed")
    parser.add_argument("--micro-batch-tokens", type=int, default=8192)
    parser.add_argument("--out", type=Path, help="write all results there, as JSON")
    options = parser.parse_args(arguments)
    # Three steps at least: the first is slow, and only from the second on has all of an adapter a gradient.
    options.tasks, options.max_tokens, options.iterations = (2, 32, 3) if options.quick else (8, 256, 4)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    facts = {"device": str(options.device), "torch": torch.__version__, "lit_rl": lit_rl.__version__}
    if options.device.type == "cuda":
        if not torch.cuda.is_available():
            print("There is no NVIDIA GPU that torch can use; --device cpu --sizes toy needs none.", file=sys.stderr)
            return 2
        number = torch.cuda.current_device() if options.device.index is None else options.device.index
        options.device = torch.device("cuda", number)
        facts |= {"device": torch.cuda.get_device_name(options.device), "cuda": str(torch.version.cuda)}
    with tempfile.TemporaryDirectory() as scratch:
        results = check_all(options.folder or Path(scratch), options.folder is not None, options)
    print(table(results))
    for result in results:
        for sentence in result["wrong"]:
            print(f"{result['size']} {result['kind']}: {sentence}")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({**facts, "bounds": BOUNDS, "results": results}, indent=1) + "\n")
    return 1 if any(result["wrong"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
