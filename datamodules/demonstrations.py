"""Demonstrations to warm up on: stored dialogues, or the right answers of a task source."""

from collections.abc import Sequence
from typing import Any, Protocol

import lightning as L
import torch

from lit_rl.datamodules.stream import RolloutStream
from lit_rl.demonstrations import Demonstration, demonstration_rows
from lit_rl.distributed import is_distributed, rank
from lit_rl.environments import TaskSource, read_rows
from lit_rl.environments.base import Message
from lit_rl.episodes import Rollouts
from lit_rl.noise import stream_key


class DemonstrationSource(Protocol):
    """Demonstrations by index, the same for every run."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Demonstration: ...


class StoredDialogues:
    """Dialogues from local JSONL or Parquet files or a Hugging Face data set.

    Args:
        path: A ``.jsonl`` or ``.parquet`` file, or a hub id.
        messages: Column with a list of ``{"role", "content"}``.
        split: Of a hub data set.

    Raises:
        ValueError: Missing or empty file, or a row without the column, naming file and row.
    """

    def __init__(self, path: str, messages: str = "messages", split: str = "train"):
        self.path = path
        self.rows = [row[messages] for row in read_rows(path, [messages], split=split)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Demonstration:
        try:
            messages = tuple(Message(m["role"], m["content"]) for m in self.rows[index])
            return Demonstration(f"{self.path}, row {index + 1}", messages)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path}, row {index + 1}: a message is not {{'role': ..., 'content': ...}} ({error})."
            ) from error


class RightAnswers:
    """One-turn dialogues made of a task source: the problem, and its answer in the format asked for.

    Args:
        tasks: Problems with short answers.
        answer_format: The reply, with ``{answer}`` in it.
    """

    def __init__(self, tasks: TaskSource, answer_format: str = "ans {answer}"):
        if "{answer}" not in answer_format:
            raise ValueError(f"RightAnswers.answer_format is {answer_format!r}; it must contain {{answer}}.")
        self.tasks, self.answer_format = tasks, answer_format

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> Demonstration:
        problem = self.tasks[index]
        said = Message("assistant", self.answer_format.format(answer=problem.gold))
        return Demonstration(problem.id, (Message("user", problem.prompt), said))


class DemonstrationDataModule(L.LightningDataModule):
    """Batches of demonstrations for `SupervisedFineTuning`, in an order that depends on the seed alone.

    Args:
        demonstrations: What to imitate.
        num_validation: Demonstrations at the end of the source that are held out.
        batch_size: Demonstrations per batch, over all ranks.
        batches_per_epoch: None takes one pass over the demonstrations.
        party: Whose replies they are.
        seed: Of the order.
    """

    def __init__(
        self,
        demonstrations: DemonstrationSource,
        *,
        num_validation: int = 0,
        batch_size: int = 64,
        batches_per_epoch: int | None = None,
        party: str = "student",
        seed: int = 0,
    ):
        super().__init__()
        self.count = len(demonstrations) - num_validation
        if self.count < batch_size:
            raise ValueError(
                f"data.demonstrations has {len(demonstrations)} rows, of which {num_validation} are held out; that is "
                f"less than one batch of {batch_size}."
            )
        self.demonstrations, self.num_validation, self.batch_size = demonstrations, num_validation, batch_size
        self.batches_per_epoch = batches_per_epoch or self.count // batch_size
        self.party, self.seed = party, seed
        self._stream: RolloutStream | None = None
        self._orders: dict[int, list[int]] = {}

    def train_dataloader(self) -> RolloutStream:
        if self._stream is None:
            self._stream = RolloutStream(self._training_batch, self.batches_per_epoch)
        return self._stream

    def val_dataloader(self) -> list[RolloutStream]:
        if not self.num_validation:
            return []
        held_out = range(self.count, self.count + self.num_validation)
        starts = range(0, len(held_out), self.batch_size)
        return [RolloutStream(lambda i: self._rows(held_out[starts[i] : starts[i] + self.batch_size]), len(starts))]

    def _training_batch(self, number: int) -> Rollouts:
        places = range(number * self.batch_size, (number + 1) * self.batch_size)
        world = torch.distributed.get_world_size() if is_distributed() else 1
        return self._rows([self._at(place) for place in places[rank() :: world]])

    def _at(self, place: int) -> int:
        epoch, offset = divmod(place, self.count)
        if epoch not in self._orders:
            generator = torch.Generator().manual_seed(stream_key(self.seed, "order", epoch) >> 1)
            self._orders[epoch] = torch.randperm(self.count, generator=generator).tolist()
        return self._orders[epoch][offset]

    def _rows(self, indices: Sequence[int]) -> Rollouts:
        module: Any = self.trainer.lightning_module if self.trainer is not None else None
        if module is None or module.policy is None:
            raise RuntimeError("Demonstrations need a policy's tokenizer: attach a module with a loaded `policy`.")
        rows = demonstration_rows(
            [self.demonstrations[index] for index in indices],
            module.policy,
            party=self.party,
            policy_version=module.policy_version,
        )
        return rows.to(module.policy.device)
