"""The ``lit-rl`` command: answers at once what needs no training stack, and hands the rest to LightningCLI."""

import sys
from collections.abc import Sequence

from lit_rl import __version__

SUBCOMMANDS = ("fit", "validate", "test", "predict")
HELP = f"""\
usage: lit-rl [-h] [--version] {{{",".join(SUBCOMMANDS)},report}} ...

Reinforcement learning of language models with other parties, on PyTorch Lightning.

  lit-rl fit --config FILE.yaml          train; --ckpt_path last goes on with a run that was cut off
  lit-rl validate --config FILE.yaml     play held-out tasks under all conditions, beside the controls
  lit-rl test --config FILE.yaml         the same, logged as test/...
  lit-rl predict --config FILE.yaml      play held-out tasks and write the dialogues as JSON lines
  lit-rl report RUN_FOLDER               write RUN_FOLDER/report.html

Any value of a config can be given on the command line: --data.init_args.group_size=16,
--model.init_args.policy.path=my/model, --trainer.devices=2. Several --config are merged, the last one wins.
lit-rl fit --print_config writes the resolved config; lit-rl fit --help lists every option (some seconds);
lit-rl fit --model.help SocialMetaLearning explains one class.
"""
REPORT_HELP = """\
usage: lit-rl report RUN_FOLDER

Write RUN_FOLDER/report.html, one self-contained file: learning curves, accuracy by turn against the controls, and the
dialogues before and after training. RUN_FOLDER is the trainer.default_root_dir of a run, finished or not, or a folder
with a frontier.json, which scripts/reproduce/qempo.py writes.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 if it failed, 2 if it was asked for in a wrong way."""
    args = list(sys.argv[1:] if args is None else args)
    command = args[0] if args else "--help"
    if command in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if command == "--version":
        print(f"lit-rl {__version__}")
        return 0
    if command == "report":
        return report(args[1:])
    if command not in SUBCOMMANDS:
        return fail(f"{command!r} is no command of lit-rl; the commands are {', '.join(SUBCOMMANDS)} and report.")
    from lit_rl import lightning_cli

    try:
        lightning_cli.main(args)
    except lightning_cli.ConfigError as error:
        return fail(str(error))
    return 0


def report(args: Sequence[str]) -> int:
    """``lit-rl report RUN_FOLDER``."""
    if args and args[0] in ("-h", "--help"):
        print(REPORT_HELP, end="")
        return 0
    if len(args) != 1:
        return fail(f"lit-rl report takes one run folder, such as runs/quickstart; it got {len(args)} arguments.")
    from lit_rl.reporting.report import write_report

    try:
        print(f"Report: {write_report(args[0])}")
    except (OSError, ValueError) as error:
        return fail(str(error))
    return 0


def fail(sentence: str) -> int:
    """Say what was wrong with the command line or the config, in one sentence."""
    print(f"error: {sentence}", file=sys.stderr)
    return 2
