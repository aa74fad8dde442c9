"""The side of TRL: its GRPOTrainer, which samples with ``generate()``; dialogues take its own path for tools.

In TRL a turn of somebody else is the result of a tool that the model calls.  Here the tokenizer's response template
reads every reply as a call of the teacher, so that random weights can hold a dialogue; all else is TRL's own loop.

Started by ``compare_trl.py``: ``python -m scripts.bench.trl_side CASE FOLDER ITERATIONS``.
"""

import sys
import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from scripts.bench.case import FEEDBACK, Case, prompt, score
from scripts.bench.worker import Turns

EVERY_REPLY_IS_A_CALL = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<assistant>",
    "fields": {
        "tool_calls": {
            "open_pattern": "(?=.)",
            "close": "<end>",
            "repeats": True,
            "content": "text",
            "transform": {"type": "function", "function": {"name": "listen", "arguments": {"words": "{content}"}}},
        },
    },
}


class Teacher:
    """The environment of one dialogue, as TRL wants it: every public method but ``reset`` is a tool."""

    def reset(self, **_: Any) -> None:
        """Nothing to forget."""

    def listen(self, words: str) -> str:
        """Hear the student.

        Args:
            words: What it said.

        Returns:
            What the teacher says.
        """
        return FEEDBACK


def rewards(completions: list[list[dict[str, Any]]], **_: Any) -> list[float | None]:
    """The mean over the student's replies."""
    found: list[float | None] = []
    for messages in completions:
        said = [said_in(message) for message in messages if message["role"] == "assistant"]
        found.append(sum(map(score, said)) / len(said))
    return found


def said_in(message: dict[str, Any]) -> str:
    """The words of a reply, which may be a call."""
    calls = message.get("tool_calls")
    return str(calls[0]["function"]["arguments"]["words"] if calls else message["content"])


class TimedTrainer(GRPOTrainer):
    """Says when it samples."""

    turns: Turns

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        self.turns.begin_sampling()
        batch = super()._generate_and_score_completions(inputs)
        mask = batch["completion_mask"]
        sampled = int((mask * batch.get("tool_mask", 1)).sum())
        self.turns.end_sampling(sampled=sampled, row=int(batch["prompt_mask"].sum() + mask.sum()))
        return batch


class TakeTurns(TrainerCallback):
    """An iteration begins where the last one ended."""

    def __init__(self, trainer: TimedTrainer):
        self.trainer = trainer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.trainer.turns.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.trainer.turns.end(reward=self.trainer._metrics["train"]["reward"][-1])
        self.trainer.turns.begin()


def config(case: Case, iterations: int, scratch: str) -> GRPOConfig:
    """TRL's defaults, but float32 on the CPU without recomputed activations, logs or files, as the other side has."""
    return GRPOConfig(
        output_dir=scratch,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=case.rows // case.trl_micro_batches,
        gradient_accumulation_steps=case.trl_micro_batches,
        num_generations=case.group_size,
        max_steps=iterations,
        shuffle_dataset=False,
        max_completion_length=case.turns * (case.max_tokens + 32),
        generation_kwargs={"max_new_tokens": case.max_tokens},  # of one turn; the length above is of all together
        max_tool_calling_iterations=case.turns - 1,
        learning_rate=case.learning_rate,
        lr_scheduler_type="constant",
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        seed=case.seed,
    )


def main(case: Case, folder: str, iterations: int) -> None:
    """Train; one optimizer step in every iteration."""
    turns = Turns()
    torch.set_num_threads(case.threads)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, padding_side="left")
    if case.turns > 1:
        tokenizer.response_template = EVERY_REPLY_IS_A_CALL
    prompts = [[{"role": "user", "content": prompt(number)}] for number in range(case.tasks * iterations)]
    with tempfile.TemporaryDirectory() as scratch:
        trainer = TimedTrainer(
            model=folder,
            reward_funcs=rewards,
            args=config(case, iterations, scratch),
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer,
            environment_factory=Teacher if case.turns > 1 else None,
        )
        trainer.turns = turns
        trainer.add_callback(TakeTurns(trainer))
        trainer.train()


if __name__ == "__main__":
    main(Case.from_json(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
