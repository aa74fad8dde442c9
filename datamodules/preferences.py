"""Preferences to learn from: stored pairs of replies, in batches."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import lightning as L

from lit_rl.datamodules.order import ShuffledOrder, run_seed
from lit_rl.datamodules.passes import check_share, held_out_pass, rank_share, training_places
from lit_rl.datamodules.played import attached_module
from lit_rl.datamodules.stream import RolloutStream
from lit_rl.environments import read_rows
from lit_rl.episodes import Rollouts
from lit_rl.preferences import Preference, fill_target_reference, preference_rows, read_preference


class PreferenceSource(Protocol):
    """Pairs by index, the same for every run; all of them scored, or none."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Preference: ...


class StoredPreferences:
    """Pairs from local JSONL or Parquet files or a Hugging Face data set.

    Columns hold strings or lists of ``{"role", "content"}``, see `lit_rl.preferences.read_preference`.

    Args:
        path: A ``.jsonl`` or ``.parquet`` file, or a hub id.
        prompt: Column of the prompt.
        chosen: Column of the preferred reply.
        rejected: Column of the other one.
        score_chosen: Column of what the preferred reply is worth; None if there are no scores.
        score_rejected: Column of what the other one is worth.
        split: Of a hub data set; ``train[:1000]`` takes a part.
        subset: Of a hub data set that has several.

    Raises:
        ValueError: Missing or empty file, or a row that is no such pair, naming file and row.
    """

    def __init__(
        self,
        path: str,
        *,
        prompt: str = "prompt",
        chosen: str = "chosen",
        rejected: str = "rejected",
        score_chosen: str | None = None,
        score_rejected: str | None = None,
        split: str = "train",
        subset: str | None = None,
    ):
        if (score_chosen is None) != (score_rejected is None):
            raise ValueError("StoredPreferences: give both score_chosen and score_rejected, or neither.")
        scores = [name for name in (score_chosen, score_rejected) if name is not None]
        rows = read_rows(path, [prompt, chosen, rejected, *scores], split=split, subset=subset)
        self._pairs = []
        for number, row in enumerate(rows, start=1):
            worth = [row[name] for name in scores] or None
            where = f"{path}, row {number}"
            self._pairs.append(read_preference(row[prompt], row[chosen], row[rejected], worth, where))

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Preference:
        return self._pairs[index]


class PreferenceDataModule(L.LightningDataModule):
    """Batches of whole pairs for `OfflineQEMPO`, in an order that depends on the seed alone.

    Args:
        preferences: What to learn from.
        validation_preferences: What to validate on; None holds out the last ``num_validation`` of ``preferences``.
        num_validation: Pairs per validation.
        batch_size: Pairs per batch, over all ranks.
        batches_per_epoch: None takes one pass over the pairs.
        party: Whose replies they are.
        on_long: What to do with a pair that exceeds the policy's context: "stop" the run, or "drop" it and count it.
        seed: Of the order; None takes that of ``seed_everything``.
    """

    def __init__(
        self,
        preferences: PreferenceSource,
        *,
        validation_preferences: PreferenceSource | None = None,
        num_validation: int = 0,
        batch_size: int = 64,
        batches_per_epoch: int | None = None,
        party: str = "student",
        on_long: Literal["stop", "drop"] = "stop",
        seed: int | None = None,
    ):
        super().__init__()
        if num_validation < 0 or (validation_preferences is not None and num_validation == 0):
            raise ValueError(
                f"data.num_validation is {num_validation}; give how many pairs of data.validation_preferences (or at "
                "the end of data.preferences) to validate on, 0 for none."
            )
        if batch_size < 1 or (batches_per_epoch is not None and batches_per_epoch < 1):
            raise ValueError(
                f"data.batch_size is {batch_size} and data.batches_per_epoch {batches_per_epoch}; both are at least 1."
            )
        self.count = len(preferences) - (num_validation if validation_preferences is None else 0)
        if self.count < batch_size:
            raise ValueError(
                f"data.preferences has {len(preferences)} pairs, of which {len(preferences) - self.count} are held "
                f"out; that is less than one batch of {batch_size}."
            )
        self.preferences, self.batch_size = preferences, batch_size
        others = validation_preferences
        self.held_out: list[Preference] = (
            [preferences[index] for index in range(self.count, len(preferences))]
            if others is None
            else [others[index] for index in range(min(num_validation, len(others)))]
        )
        self.batches_per_epoch = batches_per_epoch or self.count // batch_size
        self.party, self.on_long = party, on_long
        self._order = ShuffledOrder(self.count, run_seed(seed))
        self._stream: RolloutStream | None = None

    def train_dataloader(self) -> RolloutStream:
        """The one stream of the run; its place in the order is in the checkpoint."""
        check_share("data.batch_size", self.batch_size, "pairs")
        if self._stream is None:
            self._stream = RolloutStream(self._training_batch, self.batches_per_epoch)
        return self._stream

    def val_dataloader(self) -> list[RolloutStream]:
        if not self.held_out:
            return []
        check_share("data.num_validation", len(self.held_out), "pairs")
        mine = rank_share(range(len(self.held_out)))
        return [held_out_pass(mine, self.batch_size, lambda at: self._rows([self.held_out[i] for i in at], at))]

    def _training_batch(self, number: int) -> Rollouts:
        places = training_places(number, self.batch_size)
        pairs = [self.preferences[self._order[place]] for place in places]
        rollouts = self._rows(pairs, places)
        if self.on_long == "drop":
            rollouts.figures["train/dropped_pairs"] = float(len(pairs) - len(rollouts) // 2)
        return rollouts

    def _rows(self, pairs: Sequence[Preference], numbers: Sequence[int]) -> Rollouts:
        module: Any = attached_module(self.trainer)
        rollouts = preference_rows(
            pairs,
            numbers,
            module.policy,
            party=self.party,
            policy_version=module.policy_version,
            drop_long=self.on_long == "drop",
        ).to(module.policy.device)
        if module.needs_reference:
            fill_target_reference(rollouts, module.policy, token_budget=module.micro_batch_tokens)
        return rollouts
