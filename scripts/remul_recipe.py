"""REMUL from end to end: warm-ups, first stage, second stage, merging, evaluation; every part can be run alone.

    python scripts/remul_recipe.py                                       configs/remul/recipe.yaml
    python scripts/remul_recipe.py --config my.yaml --only stage_2 merge

A recipe names a config of ``lit-rl fit`` for every training; ``folder`` is where the run lies (the config's own
``trainer.default_root_dir``, if left out) and ``options`` are further arguments.  Whatever was cut off goes on from its
last checkpoint, whatever is finished is not run again.

* ``warm_up``: models that the others start from, the speaker's and the listeners'.
* ``stage_1``: training on agreement with listeners.  Its checkpoint is what the second stage begins with: the script
  sets ``policy.path`` there, or ``policy.frozen_adapter`` if the first stage trained an adapter.
* ``stage_2``: samples one output to every prompt, then learns to answer behind its reasoning, in a new adapter.
* ``merge``: writes base and adapters as one model to the folder named here.
* ``evaluate``: ``lit-rl validate`` of the merged model, into ``validation.json`` of its folder.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lit_rl.frozen_adapter import CONFIG
from lit_rl.merging import merge_adapters
from lit_rl.policy import LoRA, PolicyConfig
from scripts.reproduce.arms import ROOT, apart, lit_rl, run

PARTS = ("warm_up", "stage_1", "stage_2", "merge", "evaluate")
EXPORT, CHECKPOINT, SPEAKER = "checkpoints/last-policy", "checkpoints/last.ckpt", "speaker"
POLICY = "--model.init_args.policy"


class Recipe:
    """A recipe file; raises ValueError if it is none."""

    def __init__(self, path: Path):
        self.path = path
        self.parts: dict[str, Any] = yaml.safe_load(path.read_text())
        if missing := [part for part in PARTS if part not in self.parts]:
            raise ValueError(f"{path} has no {missing[0]!r}; a recipe has {list(PARTS)} ('warm_up' may be empty).")
        for run_ in [*self.parts["warm_up"], self.parts["stage_1"], self.parts["stage_2"], self.parts["evaluate"]]:
            if "config" not in run_ or not set(run_) <= {"config", "folder", "options"}:
                raise ValueError(f"{path}: {run_} is no run; it has 'config', and may have 'folder' and 'options'.")

    def config(self, run_: dict[str, Any]) -> Path:
        """The config of a run."""
        return ROOT / str(run_["config"])

    def folder(self, run_: dict[str, Any]) -> Path:
        """Where a run lies."""
        written = yaml.safe_load(self.config(run_).read_text())["trainer"].get("default_root_dir")
        return ROOT / str(run_.get("folder") or written)

    @property
    def merged(self) -> Path:
        """The folder of the merged model."""
        return ROOT / str(self.parts["merge"])

    # -- parts -------------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        for run_ in self.parts["warm_up"]:
            run(self.folder(run_), self.config(run_), *run_.get("options", ()), validate=False)

    def stage_1(self) -> None:
        run_ = self.parts["stage_1"]
        run(self.folder(run_), self.config(run_), *run_.get("options", ()))

    def stage_2(self) -> None:
        run_, start = self.parts["stage_2"], self.folder(self.parts["stage_1"]) / EXPORT
        if not start.is_dir():
            raise ValueError(f"There is no {start}, which the first stage writes; run stage_1 to its end first.")
        adapter = start / SPEAKER
        where = f"{POLICY}.path={start}"
        if (adapter / CONFIG).is_file():
            where = f"{POLICY}.frozen_adapter={adapter}"
        run(self.folder(run_), self.config(run_), where, *run_.get("options", ()))

    def merge(self) -> None:
        folder = self.folder(self.parts["stage_2"])
        if self.merged.exists():
            return
        if not (folder / "finished.json").is_file():
            raise ValueError(f"The second stage in {folder} is not finished; run stage_2 to its end first.")
        policy = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["policy"]
        adapters = {name: LoRA(**spec) for name, spec in (policy["adapters"] or {}).items()}
        if SPEAKER not in adapters:
            raise ValueError(f"The second stage in {folder} trained no adapter {SPEAKER!r}; nothing is to be merged.")
        kept = {name: policy[name] for name in ("path", "frozen_adapter", "quantization", "dtype")}
        base = PolicyConfig(adapters=adapters, **kept)
        apart("merging", lambda: merge_adapters(base, [folder / EXPORT / SPEAKER], self.merged), folder / "merge.log")

    def evaluate(self) -> None:
        run_ = self.parts["evaluate"]
        if not self.merged.is_dir():
            raise ValueError(f"There is no merged model in {self.merged}; run merge first.")
        folder = self.folder(run_)
        if not (folder / "validation_before.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            whole = folder / "evaluated.yaml"
            whole.write_text(yaml.safe_dump(self._of_whole_model(self.config(run_))))
            common = ["--config", str(whole), "--trainer.default_root_dir", str(folder)]
            lit_rl("validate", *common, *run_.get("options", ()), log=folder / "validate.log")
        print((folder / "validate.log").read_text().rstrip())

    def _of_whole_model(self, path: Path) -> dict[str, Any]:
        """A config with the merged model as its policy, which has no adapters and hence no reference."""
        config: dict[str, Any] = yaml.safe_load(path.read_text())
        policy = config["model"]["init_args"]["policy"]
        for name in ("tiny", "adapters", "frozen_adapter", "quantization"):
            policy.pop(name, None)
        policy["path"] = str(self.merged)
        config["model"]["init_args"]["kl_coef"] = 0.0
        return config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs/remul/recipe.yaml")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run, in their usual order")
    options = parser.parse_args()
    try:
        recipe = Recipe(options.config)
        for part in PARTS:
            if part in options.only:
                print(f"==> {part}", flush=True)
                getattr(recipe, part)()
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
