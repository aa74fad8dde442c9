"""A config that cannot run is refused in one sentence that names the key, before a model is loaded."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lit_rl.cli import main
from lit_rl.policy import Policy

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/quickstart/number_search.yaml")


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs ``fit``; gives the sentence it was refused with."""

    def no_policy(*_: object) -> None:
        raise AssertionError("a model was loaded before the config was refused")

    monkeypatch.setattr(Policy, "__init__", no_policy)
    monkeypatch.setattr("sys.argv", ["lit-rl"])

    def fit(*arguments: str, config: str = CONFIG) -> str:
        code = main(["fit", f"--config={config}", f"--trainer.default_root_dir={tmp_path}", *arguments])
        assert code == 2
        (sentence,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        return sentence.removeprefix("error: ")

    return fit


def test_data_that_cannot_be_trained_on_is_refused(refused: Callable[..., str]) -> None:
    sentence = refused(config=str(ROOT / "configs/sml/sharded_linear.yaml"))
    assert "ShardedDataModule, which only evaluates" in sentence


def test_an_unknown_key_names_the_accepted_ones(refused: Callable[..., str]) -> None:
    sentence = refused("--model.init_args.gama=3")
    assert sentence.startswith(
        "model.init_args.gama: SocialMetaLearning has no 'gama'. Did you mean 'gamma'? It takes "
    )
    assert "return_mode" in sentence  # its own
    assert "micro_batch_tokens" in sentence  # of the base, through **kwargs


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("--model.init_args.return_mode=bla", ["model.init_args.return_mode is 'bla'", "'trajectory', 'turn'"]),
        ("--data.init_args.group_size=abc", ["data.init_args.group_size is 'abc'; it must be a whole number"]),
        ("--data.init_args.group_size=1", ["data.group_size is 1", "at least 2"]),
        ("--data.init_args.tasks.init_args.sise=3", ["tasks.init_args.sise: NumberSearch has no 'sise'", "'size'"]),
        ("--data.init_args.tasks.init_args.size=0", ["NumberSearch.size is 0"]),
        ("--data.init_args.dialogue.max_turn=3", ["dialogue.max_turn: Dialogue has no 'max_turn'", "max_turns"]),
        ("--data.init_args.conditions=[teachr]", ["data.conditions has 'teachr'", "shuffled"]),
        ("--model.init_args.policy.tiny.numbrs=3", ["policy.tiny.numbrs: TinyModel has no 'numbrs'", "'numbers'"]),
        ("--model.init_args.policy.path=somewhere", ["give exactly one of policy.path"]),
        ("--model=SocialMeta", ["model: no class is called 'SocialMeta'", "'SocialMetaLearning'"]),
        ("--model.class_path=lit_rl.methods.Sml", ["model.class_path: lit_rl.methods has no class 'Sml'"]),
        ("--data.class_path=lit_rl.nowhere.Data", ["data.class_path is 'lit_rl.nowhere.Data'", "no module"]),
        ("--trainer.max_step=3", ["trainer.max_step: Trainer has no 'max_step'", "'max_steps'"]),
        ("--trainer.gradient_clip_val=1", ["trainer.gradient_clip_val", "max_grad_norm"]),
        ("--trainer.accumulate_grad_batches=2", ["trainer.accumulate_grad_batches", "micro_batch_tokens"]),
        ("--ckpt_path=missing.ckpt", ["ckpt_path is 'missing.ckpt'", "no file"]),
        ("--checkpoints.every_n_batches=0", ["every_n_batches is 0"]),
        ("--foo=1", ["foo: the config has no 'foo'", "trainer"]),
    ],
)
def test_mistakes_on_the_command_line(argument: str, parts: list[str], refused: Callable[..., str]) -> None:
    sentence = refused(argument)
    for part in parts:
        assert part in sentence


def test_a_mistake_in_a_file_names_the_file(refused: Callable[..., str], tmp_path: Path) -> None:
    config = yaml.safe_load(Path(CONFIG).read_text())
    config["model"]["init_args"]["clip_hi"] = 0.3
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(config))
    sentence = refused(config=str(wrong))
    assert sentence.startswith(f"model.init_args.clip_hi (in {wrong}): SocialMetaLearning has no 'clip_hi'.")
    assert "Did you mean 'clip_high'?" in sentence


def test_a_missing_file_and_no_file(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "File does not exist" in refused(config=str(tmp_path / "none.yaml"))
    empty = tmp_path / "empty.yaml"
    empty.write_text("trainer: {max_epochs: 1}\n")
    assert refused(config=str(empty)).startswith("data and model must be given")


def test_commands(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["fti"]) == 2
    assert "'fti' is no command of lit-rl" in capsys.readouterr().err
    assert main(["report"]) == 2
    assert main(["report", os.fspath(tmp_path / "none")]) == 2
    assert "There is no run folder" in capsys.readouterr().err
    assert main(["report", "--help"]) == main(["--help"]) == main([]) == main(["--version"]) == 0
