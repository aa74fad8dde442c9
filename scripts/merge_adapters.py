"""Merge LoRA adapters into the model they were trained on, the first first, and write one ordinary model.

    python scripts/merge_adapters.py --base my/model --adapters runs/one/checkpoints/last-policy/speaker --output merged
    python scripts/merge_adapters.py --base Qwen/Qwen3-14B --nf4 --dtype bfloat16 --output merged \\
        --adapters runs/remul-qlora/checkpoints/last-policy/speaker runs/remul-answers/checkpoints/last-policy/speaker

Each adapter was trained with those before it attached (``policy.frozen_adapter``).  Say ``--nf4`` if they were trained
on a base in 4 bits: it is dequantized first, and what is written is in ``--dtype``.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lit_rl.merging import merge_adapters
from lit_rl.policy import LoRA, PolicyConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder or hub id of the model the first adapter was trained on")
    parser.add_argument("--adapters", nargs="+", required=True, help="folders as PEFT writes them, in order")
    parser.add_argument("--output", required=True, help="folder to write, which must not exist")
    parser.add_argument("--nf4", action="store_true", help="the adapters were trained on the base in 4 bits")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    adapters = {"speaker": LoRA()}  # a policy in 4 bits has some; which, does not matter here
    try:
        base = PolicyConfig(
            path=options.base,
            dtype=options.dtype,
            quantization="nf4" if options.nf4 else None,
            adapters=adapters if options.nf4 else None,
        )
        print(f"Merged: {merge_adapters(base, options.adapters, options.output)}")
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
