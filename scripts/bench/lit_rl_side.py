"""The side of lit-rl: SocialMetaLearning under Lightning's Trainer, on rollouts played with a scripted teacher.

Started by ``compare_trl.py``: ``python -m scripts.bench.lit_rl_side CASE FOLDER ITERATIONS``.
"""

import sys
from typing import Any

import lightning as L
import torch

from lit_rl.methods.sml import SocialMetaLearning
from lit_rl.policy import PolicyConfig
from scripts.bench.case import Case
from scripts.bench.talk import TalkData
from scripts.bench.worker import Turns


class TakeTurns(L.Callback):
    """An iteration begins where the last one ended."""

    def __init__(self, turns: Turns):
        self.turns = turns

    def on_train_start(self, *_: Any) -> None:
        self.turns.begin()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.turns.end(reward=float(trainer.callback_metrics["train/reward"]))
        self.turns.begin()


def main(case: Case, folder: str, iterations: int) -> None:
    """Train; one optimizer step in every iteration."""
    turns = Turns()
    torch.set_num_threads(case.threads)
    module = SocialMetaLearning(
        PolicyConfig(path=folder),
        gamma=1.0,
        learning_rate=case.learning_rate,
        aggregation="token_mean",
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[TakeTurns(turns)],
    )
    trainer.fit(module, datamodule=TalkData(case, turns, iterations))


if __name__ == "__main__":
    main(Case.from_json(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
