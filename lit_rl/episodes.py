"""What happened (`Turn`, `Episode`, from `lit_rl.turns`) and the tensors made of it (`Rollouts`)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_rl.episode_rows import FILL, REQUIRED, ROW_FIELDS, padded, rows_of
from lit_rl.turns import Episode, Heard, Turn

__all__ = ["REQUIRED", "ROW_FIELDS", "Episode", "Heard", "Rollouts", "Turn"]


class Rollouts:
    """Finished episodes as right-padded tensors; the batch every callback and method works on.

    ``B`` rows, ``T`` tokens, ``N`` exchanges.  Deliberately neither a dataclass nor a mapping: Lightning's precision
    plugins convert the floats of those, and log-probs must stay float32.

    Attributes:
        input_ids: Whole rows, int64 ``(B, T)``.
        attention_mask: True on real tokens, bool ``(B, T)``.
        party_ids: Index into ``parties`` of who said the token, int8 ``(B, T)``; -1 template or padding.
        loss_mask: True on tokens sampled by a trained party, bool ``(B, T)``.
        turn_ids: Exchange the token belongs to or answers, int16 ``(B, T)``; -1 elsewhere.
        old_log_probs: At sampling time, float32 ``(B, T)``; 0 outside ``loss_mask``.
        ref_log_probs, values: Filled while collecting when anything needs them, float32 ``(B, T)`` or None.
        advantages, returns: Per token, written by a callback or the method, float32 ``(B, T)`` or None.
        target_mask, target_weights: Supervised targets, bool and float32 ``(B, T)`` or None.
        constraint_states: State of the token constraint (its index in ``constraints``' stacked table), int32
            ``(B, T)``, -1 unconstrained; None if nothing was constrained.
        rewards: Of the row's party per exchange, float32 ``(B, N)``; rows of one episode and party repeat them.
        turn_valid: True where the row's party took a turn, bool ``(B, N)``.
        group_ids, episode_ids: int64 ``(B,)``; rows of one episode share the latter.
        terminated, truncated: bool ``(B,)``.
        extras: Further tensors whose first dimension is ``B``.
        reward_parts: Named components of ``rewards``, each float32 ``(B, N)``.
        parties: Names behind ``party_ids``.
        policy_version: Optimizer steps the sampling policy had taken.
        label: What the batch is for: "train", or the name of a validation condition.
        temperature: The sampler's; the trainer's log-probs use the same.
        figures: What collecting measured (seconds, tokens, dropped episodes), logged with the batch.
        episodes: The Python side, for text, logging and replay.
    """

    input_ids: Tensor
    attention_mask: Tensor
    party_ids: Tensor
    loss_mask: Tensor
    turn_ids: Tensor
    old_log_probs: Tensor
    rewards: Tensor
    turn_valid: Tensor
    group_ids: Tensor
    episode_ids: Tensor
    terminated: Tensor
    truncated: Tensor
    ref_log_probs: Tensor | None
    values: Tensor | None
    advantages: Tensor | None
    returns: Tensor | None
    target_mask: Tensor | None
    target_weights: Tensor | None
    constraint_states: Tensor | None

    def __init__(
        self,
        *,
        parties: Sequence[str] = (),
        policy_version: int = 0,
        label: str = "train",
        temperature: float = 1.0,
        figures: Mapping[str, float] | None = None,
        episodes: Sequence[Episode] = (),
        extras: dict[str, Tensor] | None = None,
        reward_parts: dict[str, Tensor] | None = None,
        **fields: Tensor | None,
    ):
        if unknown := sorted(set(fields) - set(ROW_FIELDS)):
            raise ValueError(f"Rollouts has no field {unknown[0]!r}; further tensors go into extras={{name: tensor}}.")
        for name in ROW_FIELDS:
            setattr(self, name, fields.get(name))
        self.parties, self.policy_version, self.label = tuple(parties), policy_version, label
        self.temperature, self.figures, self.episodes = temperature, dict(figures or {}), list(episodes)
        self.extras, self.reward_parts = dict(extras or {}), dict(reward_parts or {})
        self.validate()

    # -- making ------------------------------------------------------------------------------------------------

    @classmethod
    def from_episodes(
        cls,
        episodes: Sequence[Episode],
        *,
        trained: Sequence[str],
        parties: Sequence[str],
        pad_id: int = 0,
        policy_version: int = 0,
        label: str = "train",
        temperature: float = 1.0,
        figures: Mapping[str, float] | None = None,
        constraint_offsets: Mapping[str, int] | None = None,
        min_exchanges: int = 1,
    ) -> "Rollouts":
        """One row per episode and trained party, or more where a turn says ``new_row``.

        Args:
            episodes: Finished episodes; none may be empty of turns by a trained party (those give no row).
            trained: Parties whose sampled tokens are learned from.
            parties: All names, in the order of ``party_ids``.
            pad_id: Token id on the right of short rows.
            policy_version: Optimizer steps of the policy that sampled.
            label: "train" or the name of a validation condition.
            temperature: The sampler's.
            figures: What collecting measured.
            min_exchanges: Least ``N``, so that all ranks agree on it however their dialogues went.
            constraint_offsets: First row of each constraint in the sampler's stacked table of allowed tokens.
        """
        if not episodes:
            raise ValueError("Rollouts.from_episodes: no episodes were given; every batch needs at least one.")
        rows = [row for e in episodes for row in rows_of(e, trained, parties, constraint_offsets or {})]
        if not rows:
            raise ValueError(f"None of {len(episodes)} episodes has a turn of a trained party {list(trained)}.")
        length = max(len(row["input_ids"]) for row in rows)
        turns = max(min_exchanges, *(len(row["rewards"]) for row in rows))
        size = {"BT": length, "BN": turns}
        fill: dict[str, Any] = {"input_ids": pad_id, **FILL}
        fields: dict[str, Any] = {}
        for name, (dtype, dims) in ROW_FIELDS.items():
            if name not in rows[0]:
                continue
            column = [row[name] for row in rows]
            fields[name] = (
                torch.tensor(column, dtype=dtype)
                if dims == "B"
                else padded(column, size[dims], fill.get(name, 0), dtype)
            )
        if bool((fields["constraint_states"] < 0).all()):
            del fields["constraint_states"]
        return cls(
            parties=parties,
            policy_version=policy_version,
            label=label,
            temperature=temperature,
            figures=figures,
            episodes=episodes,
            **fields,
        )

    def validate(self) -> None:
        """Raise ValueError naming the field, the shape or dtype found and the one wanted."""
        for name in REQUIRED:
            if getattr(self, name) is None:
                raise ValueError(f"Rollouts.{name} is missing; every batch of rollouts needs it.")
        size = {"B": (len(self),), "BT": tuple(self.input_ids.shape), "BN": tuple(self.rewards.shape)}
        for name, (dtype, dims) in ROW_FIELDS.items():
            tensor = getattr(self, name)
            if tensor is None:
                continue
            if tuple(tensor.shape) != size[dims] or tensor.shape[0] != len(self):
                raise ValueError(f"Rollouts.{name} has shape {tuple(tensor.shape)}; wanted {size[dims]} ({dims}).")
            if tensor.dtype != dtype:
                raise ValueError(f"Rollouts.{name} is {tensor.dtype}; wanted {dtype}.")
        for kind, tensors in (("extras", self.extras), ("reward_parts", self.reward_parts)):
            for name, tensor in tensors.items():
                wanted = len(self)
                if tensor.ndim == 0 or tensor.shape[0] != wanted:
                    raise ValueError(
                        f"Rollouts.{kind}[{name!r}] has shape {tuple(tensor.shape)}; its first dimension must be the "
                        f"number of rows, {wanted}."
                    )
        if bool((self.loss_mask & ~self.attention_mask).any()):
            raise ValueError("Rollouts.loss_mask is True on padding; it must lie inside attention_mask.")

    # -- taking apart ------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])

    def _map(self, change: Callable[[Tensor], Tensor], episodes: Sequence[Episode] | None = None) -> "Rollouts":
        fields = {name: getattr(self, name) for name in ROW_FIELDS}
        return Rollouts(
            parties=self.parties,
            policy_version=self.policy_version,
            label=self.label,
            temperature=self.temperature,
            figures=self.figures,
            episodes=self.episodes if episodes is None else episodes,
            extras={name: change(t) for name, t in self.extras.items()},
            reward_parts={name: change(t) for name, t in self.reward_parts.items()},
            **{name: None if t is None else change(t) for name, t in fields.items()},
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Rollouts":
        """The same rollouts on ``device``; dtypes never change."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def select(self, rows: Tensor) -> "Rollouts":
        """Rows by index (int64 ``(M,)``) or mask (bool ``(B,)``), cut to their longest row."""
        rows = rows.to(self.input_ids.device)
        index = rows.nonzero().squeeze(1) if rows.dtype == torch.bool else rows
        if index.numel() == 0:
            raise ValueError("Rollouts.select: no rows were selected.")
        part = self._map(lambda tensor: tensor[index])
        longest = int(part.attention_mask.sum(1).max())
        for name, (_, dims) in ROW_FIELDS.items():
            tensor = getattr(part, name)
            if tensor is not None and dims == "BT":
                setattr(part, name, tensor[:, :longest])
        width = self.input_ids.shape[1]
        part.extras = {k: t[:, :longest] if t.ndim > 1 and t.shape[1] == width else t for k, t in part.extras.items()}
        wanted = set(part.episode_ids.tolist())
        part.episodes = [episode for episode in self.episodes if episode.index in wanted]
        return part

    def without_rows(self) -> "Rollouts":
        """The same rollouts with none of their rows, for a rank that has nothing to learn while others have."""
        return self._map(lambda tensor: tensor[:0], episodes=())

    def micro_batches(self, token_budget: int) -> Iterator["Rollouts"]:
        """Rows sorted by length in batches of at most ``token_budget`` padded tokens (at least one row each).

        A batch also ends where going on would cost more padding than a further batch costs.
        """
        return map(self.select, self.micro_batch_rows(token_budget))

    def micro_batch_rows(self, token_budget: int) -> Iterator[Tensor]:
        """The row indices of each of `micro_batches`, int64."""
        sums = self.attention_mask.sum(1)
        order, lengths = torch.sort(sums, stable=True).indices.tolist(), sums.tolist()
        # Padding that takes as long as launching one pass more: measured on a CPU, with room to spare elsewhere.
        most_padding = 256 if sums.device.type == "cpu" else 4096
        batch: list[int] = []
        tokens = 0
        for row in order:
            whole, tokens = (len(batch) + 1) * lengths[row], tokens + lengths[row]
            if batch and (whole > token_budget or whole - tokens > most_padding):
                yield torch.tensor(batch)
                batch, tokens = [], lengths[row]
            batch.append(row)
        yield torch.tensor(batch)

    @classmethod
    def cat(cls, parts: Sequence["Rollouts"], pad_id: int = 0) -> "Rollouts":
        """One batch of several; ``policy_version`` is the oldest.

        Raises:
            ValueError: Parts differ in parties, label, temperature, or in which fields are filled.
        """
        first = parts[0]
        for name in ("parties", "label", "temperature"):
            if len(found := {getattr(part, name) for part in parts}) > 1:
                raise ValueError(f"Rollouts.cat: parts differ in {name}: {sorted(found)}; they must be alike.")
        length = max(part.input_ids.shape[1] for part in parts)
        turns = max(part.rewards.shape[1] for part in parts)
        fill = {"input_ids": pad_id, **FILL}

        def joined(name: str, tensors: list[Tensor | None], dims: str) -> Tensor | None:
            if name == "constraint_states" and any(tensor is not None for tensor in tensors):
                # Whether a part holds a constrained turn is chance; one that does not is unconstrained throughout.
                tensors = [
                    torch.full_like(p.input_ids, -1, dtype=torch.int32) if t is None else t
                    for p, t in zip(parts, tensors, strict=True)
                ]
            present = [tensor for tensor in tensors if tensor is not None]
            if len(present) not in (0, len(parts)):
                raise ValueError(f"Rollouts.cat: {name} is filled in {len(present)} of {len(parts)} parts.")
            if not present or dims == "B":
                return torch.cat(present) if present else None
            width = length if dims == "BT" else turns
            pad = torch.nn.functional.pad
            return torch.cat([pad(t, (0, width - t.shape[1]), value=fill.get(name, 0)) for t in present])

        fields = {n: joined(n, [getattr(p, n) for p in parts], dims) for n, (_, dims) in ROW_FIELDS.items()}
        if any(set(p.extras) != set(first.extras) or set(p.reward_parts) != set(first.reward_parts) for p in parts):
            raise ValueError("Rollouts.cat: parts have different extras or reward_parts; fill the same in each.")
        dims_of = {
            name: "BT" if t.ndim > 1 and t.shape[1] == first.input_ids.shape[1] else "B"
            for name, t in first.extras.items()
        }
        return cls(
            parties=first.parties,
            policy_version=min(part.policy_version for part in parts),
            label=first.label,
            temperature=first.temperature,
            figures=first.figures,
            episodes=[episode for part in parts for episode in part.episodes],
            extras={n: joined(n, [p.extras[n] for p in parts], d) for n, d in dims_of.items()},  # type: ignore[misc]
            reward_parts={n: joined(n, [p.reward_parts[n] for p in parts], "BN") for n in first.reward_parts},  # type: ignore[misc]
            **fields,
        )

    def one_row_per_episode(self) -> tuple[Tensor, Tensor]:
        """``(first, back)``: a row index for each (episode, party), and for each row its place among those.

        Statistics over a group count an episode once even where it has one row per turn, and rows that learn nothing
        belong to the party of the episode's other rows, the first where there are several.
        """
        party = torch.where(self.loss_mask, self.party_ids.to(torch.int64), -1).amax(1)
        episodes, of_episode = torch.unique(self.episode_ids, return_inverse=True)
        none = len(self.parties)
        spoke = torch.full_like(episodes, none).scatter_reduce_(
            0, of_episode, torch.where(party < 0, none, party), reduce="amin"
        )
        party = torch.where(party < 0, spoke[of_episode], party)
        key = self.episode_ids * (len(self.parties) + 2) + party + 1
        unique, back = torch.unique(key, return_inverse=True)
        first = torch.full_like(unique, len(self)).scatter_reduce_(
            0, back, torch.arange(len(self), device=key.device), reduce="amin"
        )
        return first, back

    def __repr__(self) -> str:
        filled = [n for n in ROW_FIELDS if n not in REQUIRED and getattr(self, n) is not None] + list(self.extras)
        rows, tokens = self.input_ids.shape
        return (
            f"Rollouts({rows} rows x {tokens} tokens, {int(self.loss_mask.sum())} trained, "
            f"{self.rewards.shape[1]} exchanges, {len(set(self.group_ids.tolist()))} groups, parties={self.parties}, "
            f"policy_version={self.policy_version}, filled={filled})"
        )
