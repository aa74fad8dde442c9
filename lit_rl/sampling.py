"""The rollout sampler: keys and values kept over turns, prompts shared, finished rows dropped at once."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from lit_rl.constraints import ConstraintTable
from lit_rl.noise import draw, uniform
from lit_rl.prefixes import Shared, common_prefix, share_prefixes
from lit_rl.repetition import SeenTokens
from lit_rl.sampler_rows import CachedRows, RecomputedRows, Rows
from lit_rl.sampling_settings import SamplingSettings, keep_likely

__all__ = ["SampleRequest", "Sampled", "Sampler", "SamplingSettings", "Work", "keep_likely"]

_NOISE_AHEAD = 16  # positions whose noise is drawn at once


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRequest:
    """Continue row ``row`` with ``new_ids`` inserted, then sample.

    Attributes:
        row: The caller's name for the row; its tokens and keys stay until `Sampler.release`.
        restart: ``new_ids`` replaces all the row held (what both begin with is not run again).
    """

    row: int
    new_ids: Sequence[int]
    key: int
    max_tokens: int
    constraint: str | None = None
    restart: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """What a row said: ids with the stop token if it was drawn, log-probs of the distribution sampled from."""

    row: int
    ids: list[int]
    log_probs: list[float]
    states: list[int]  # of the stacked constraint table, before each token; -1 unconstrained
    ended: bool


@dataclass(slots=True)
class Work:
    """Tokens that went through the model, and those that did not have to."""

    prefilled: int = 0
    decoded: int = 0
    shared: int = 0


@dataclass(slots=True)
class _Slot:
    row: int
    ids: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    said: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    states: list[int] = field(default_factory=list)
    key: int = 0
    max_tokens: int = 0
    state: int = -1
    kept: Tensor | None = None  # logits of the last position with lag 0, which may choose further tokens
    noise: list[float] = field(default_factory=list)  # of the next positions, the last one first


class Sampler:
    """Samples turns of many rows at once from one party's policy.

    Rows ``[0, decoding)`` are being sampled, the rest of the slots wait for their next turn.  Row order means nothing.

    Args:
        model: A causal LM of transformers in eval mode.
        settings: How tokens are drawn.
        stop_ids: Tokens that end a turn.
        max_rows: Rows held at once; further requests wait for a free slot.
        constraints: Table behind the constraint names of requests.
        cached: Keep keys and values (see `lit_rl.sampler_rows.rows_work`), or recompute.
        prefill_tokens: Most padded tokens of one prefill forward.
    """

    def __init__(
        self,
        model: Any,
        settings: SamplingSettings,
        *,
        stop_ids: frozenset[int],
        max_rows: int = 256,
        constraints: ConstraintTable | None = None,
        cached: bool = True,
        prefill_tokens: int = 16384,
    ):
        self.settings, self.stop_ids, self.max_rows = settings, stop_ids, max_rows
        self.constraints, self.prefill_tokens = constraints, prefill_tokens
        make: Callable[..., Rows] = CachedRows if cached else RecomputedRows
        self.rows = make(model, slots=min(max_rows, 8))
        self.device = model.device
        penalty = settings.repetition_penalty
        self.seen = None if penalty == 1 else SeenTokens(penalty, self.device)
        self.slots: list[_Slot] = []
        self.decoding = 0
        self.queue: list[SampleRequest] = []
        self.place: dict[int, int] = {}  # row -> slot
        self.moved_out: dict[int, list[int]] = {}  # tokens of rows that gave up their slot while they waited
        self.work = Work()

    # -- what callers use --------------------------------------------------------------------------------------

    def submit(self, request: SampleRequest) -> None:
        """Ask for the next turn of a row; `run` gives it."""
        if not request.new_ids:
            raise ValueError(f"SampleRequest for row {request.row}: new_ids is empty; a turn needs at least a header.")
        if request.row in self.place:
            self._prepare(self.slots[self.place[request.row]], request)
            return
        before = self.moved_out.pop(request.row, [])
        if before and not request.restart:
            request = replace(request, new_ids=[*before, *request.new_ids])
        self.queue.append(request)

    @torch.inference_mode()
    def make_room(self) -> None:
        """Move waiting rows out for those in the queue; what they held is run again at their next turn.

        For callers whose waiting rows cannot go on before queued ones do (two parties that wait for each other).
        """
        waiting = [slot.row for slot in self.slots[self.decoding :] if not slot.pending]
        for row in waiting[: len(self.queue)]:
            ids = self.slots[self.place[row]].ids
            self.release([row])
            self.moved_out[row] = ids

    @property
    def busy(self) -> bool:
        """Whether any request is unanswered."""
        return bool(self.queue) or self.decoding > 0 or any(slot.pending for slot in self.slots)

    @torch.inference_mode()
    def run(self) -> list[Sampled]:
        """Admit and prefill what waits, then decode until enough rows have finished to be worth a refill."""
        done = self._prefill()
        while self.decoding and len(done) < max(1, (self.decoding + len(done)) // 8):
            done += self._decode_step()
        return done

    @torch.inference_mode()
    def release(self, rows: Iterable[int]) -> None:
        """Forget rows that wait; their slots are free.  Rows that are not here are none of ours."""
        rows = set(rows)
        for row in rows & self.moved_out.keys():
            del self.moved_out[row]
        for row in sorted(rows & self.place.keys(), key=self.place.__getitem__, reverse=True):  # so that least is moved
            slot, last = self.place[row], len(self.slots) - 1
            if slot < self.decoding:
                raise RuntimeError(f"Row {row} is being sampled; it can be released once its turn is finished.")
            self._swap(slot, last)
            self.rows.lengths[last] = 0
            del self.place[row]
            self.slots.pop()

    # -- admission and prefill ---------------------------------------------------------------------------------

    def _prepare(self, slot: _Slot, request: SampleRequest) -> None:
        new = list(request.new_ids)
        if request.restart:
            place = self.place[slot.row]
            keep = min(common_prefix(slot.ids, new), len(new) - 1, self.rows.lengths[place])
            slot.ids, self.rows.lengths[place], new = slot.ids[:keep], keep, new[keep:]
            self.work.shared += keep
        slot.pending, slot.key, slot.max_tokens = new, request.key, request.max_tokens
        slot.said, slot.log_probs, slot.states, slot.noise = [], [], [], []
        slot.state = -1 if request.constraint is None else self._start(request.row, request.constraint, slot.max_tokens)

    def _start(self, row: int, constraint: str, max_tokens: int) -> int:
        if self.constraints is None:
            raise ValueError(f"Row {row} asks for constraint {constraint!r}, but none were given.")
        state, longest = self.constraints.start(constraint), self.constraints.longest(constraint)
        if longest is not None and longest > max_tokens:
            raise ValueError(
                f"Row {row}: a reply under constraint {constraint!r} may take {longest} tokens, its end included, and "
                f"max_tokens is {max_tokens}; it would be cut off. Raise max_tokens to {longest}."
            )
        return state

    def _prefill(self) -> list[Sampled]:
        """Feed every due row; rows that share a beginning with another run only what differs."""
        due = [i for i in range(self.decoding, len(self.slots)) if self.slots[i].pending]
        for target, slot in enumerate(due, start=self.decoding):
            self._swap(slot, target)
        resident_end = self.decoding + len(due)
        admitted = self.queue[: self.max_rows - len(self.slots)]
        del self.queue[: len(admitted)]
        admitted.sort(key=lambda request: len(request.new_ids))
        plan = share_prefixes([tuple(request.new_ids) for request in admitted])
        left = [len(request.new_ids) - shared.length for request, shared in zip(admitted, plan, strict=True)]
        # What one forward runs lies side by side; copies, of which nothing is left to run, are last.
        by_stage = sorted(range(len(admitted)), key=lambda i: (left[i] == 0, plan[i].stage, left[i]))
        # Slots behind the due ones may be parked: new rows go to the end, then the due area is made contiguous.
        for i in by_stage:
            self._append(admitted[i])
        start = len(self.slots) - len(admitted)
        fresh = [0] * len(admitted)
        for offset, i in enumerate(by_stage):
            self._swap(start + offset, resident_end + offset)
            fresh[i] = resident_end + offset
        logits = self._feed_in_stages(len(due), fresh, plan)
        if not logits:
            return []
        low, high = self.decoding, resident_end + len(admitted)
        return self._sample(low, high, torch.stack(logits))

    def _append(self, request: SampleRequest) -> None:
        slot = _Slot(request.row)
        place = len(self.slots)
        if place >= len(self.rows.lengths):
            self.rows.resize(min(self.max_rows, 2 * len(self.rows.lengths)))
        self.slots.append(slot)
        self.place[request.row] = place
        self.rows.lengths[place] = 0
        self._prepare(slot, request)

    def _feed_in_stages(self, due: int, fresh: list[int], plan: list[Shared]) -> list[Tensor]:
        """Logits of every due and fresh slot, in slot order.  A stage forks from those before it and runs the rest."""
        first = self.decoding
        logits: dict[int, Tensor] = {}
        for stage in range(1 + max((shared.stage for shared in plan), default=0)):
            here = list(range(first, first + due)) if stage == 0 else []
            for slot, shared in zip(fresh, plan, strict=True):
                if shared.stage != stage:
                    continue
                if stage:
                    self._fork(fresh[shared.leader], slot, shared.length)
                if self.slots[slot].pending:
                    here.append(slot)
                else:
                    logits[slot] = logits[fresh[shared.leader]]
            for low, high in self._runs(sorted(here)):
                for i, row in enumerate(self._feed(low, high)):
                    logits[low + i] = row
        return [logits[slot] for slot in sorted(logits)]

    def _fork(self, leader: int, slot: int, length: int) -> None:
        self.rows.copy_row(leader, slot, length)
        target = self.slots[slot]
        target.ids, target.pending = target.pending[:length], target.pending[length:]
        self.work.shared += length

    def _runs(self, slots: list[int]) -> list[tuple[int, int]]:
        """Contiguous stretches of slots whose padded prefill stays within the token budget."""
        runs: list[tuple[int, int]] = []
        longest = 0
        for slot in slots:
            longest = max(longest, len(self.slots[slot].pending))
            if runs and runs[-1][1] == slot and (slot + 1 - runs[-1][0]) * longest <= self.prefill_tokens:
                runs[-1] = (runs[-1][0], slot + 1)
            else:
                runs.append((slot, slot + 1))
                longest = len(self.slots[slot].pending)
        return runs

    def _feed(self, low: int, high: int) -> Tensor:
        new = []
        for place in range(low, high):
            slot = self.slots[place]
            slot.ids += slot.pending
            slot.pending = []
            new.append(slot.ids[self.rows.lengths[place] :])  # with the last token drawn: nothing has run it yet
            self.work.prefilled += len(new[-1])
        return self.rows.feed(low, new)

    # -- decoding ----------------------------------------------------------------------------------------------

    def _decode_step(self) -> list[Sampled]:
        active = self.slots[: self.decoding]
        logits = self.rows.feed(0, [(slot.ids[-1],) for slot in active])
        self.work.decoded += self.decoding
        high, self.decoding = self.decoding, 0
        return self._sample(0, high, logits)

    def _sample(self, low: int, high: int, logits: Tensor) -> list[Sampled]:
        """Draw one token for slots ``low:high``; unfinished ones join the decoding rows at ``self.decoding``."""
        rows = self.slots[low:high]
        if self.seen is not None:
            for place in (low + i for i, slot in enumerate(rows) if not slot.said):
                self.seen.start(place, self.slots[place].ids, logits.shape[-1])
            logits = self.seen.penalised(low, logits)
        states = self._states(rows)
        if states is not None:
            logits = self._lagged(rows, states, logits)
        logits = self._restricted(states, logits)
        tokens = logits.argmax(-1) if self.settings.temperature == 0 else draw(logits, self._noise(rows))
        chosen = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
        if self.seen is not None:
            self.seen.add(low, tokens)
        drawn, log_probs = tokens.tolist(), chosen.tolist()
        after = self._after(states, tokens)
        done, finished = [], []
        for slot, token, log_prob, state in zip(rows, drawn, log_probs, after, strict=True):
            slot.said.append(token)
            slot.ids.append(token)
            slot.log_probs.append(log_prob)
            slot.states.append(slot.state)
            slot.state = state
            ended = token in self.stop_ids
            over = ended or len(slot.said) >= slot.max_tokens
            finished.append(over)
            if over:
                slot.kept = None
                said = Sampled(row=slot.row, ids=slot.said, log_probs=slot.log_probs, states=slot.states, ended=ended)
                done.append(said)
        self._partition(low, finished)
        return done

    def _noise(self, rows: list[_Slot]) -> Tensor:
        """The next number of each row's stream.  Many positions cost the hash as much as one, so it runs ahead."""
        dry = [slot for slot in rows if not slot.noise]
        if dry:
            keys = torch.tensor([[slot.key] for slot in dry])
            positions = torch.tensor([[len(slot.ids)] for slot in dry]) + torch.arange(_NOISE_AHEAD)
            for slot, numbers in zip(dry, uniform(keys, positions).flip(1).tolist(), strict=True):
                slot.noise = numbers
        return torch.tensor([slot.noise.pop() for slot in rows], dtype=torch.float64, device=self.device)

    def _states(self, rows: list[_Slot]) -> Tensor | None:
        """State of each row, int64; None if none is constrained."""
        if self.constraints is None or all(slot.state < 0 for slot in rows):
            return None
        return torch.tensor([slot.state for slot in rows], device=self.device)

    def _lagged(self, rows: list[_Slot], states: Tensor, logits: Tensor) -> Tensor:
        """Logits with those kept from before in the rows whose constraint lags."""
        if self.constraints is None or not self.constraints.lags:
            return logits
        lags, may_lag = self.constraints.lag(states).tolist(), self.constraints.may_lag(states).tolist()
        places, kept = [], []
        for i, slot in enumerate(rows):
            if lags[i]:
                if slot.kept is None:
                    raise ValueError(
                        f"Row {slot.row}: its constraint has lag {lags[i]} where no position had lag 0 yet."
                    )
                places.append(i)
                kept.append(slot.kept)
            elif may_lag[i]:
                slot.kept = logits[i].clone()  # a view would hold the logits of all rows
        if kept:
            logits = logits.index_copy(0, torch.tensor(places, device=self.device), torch.stack(kept))
        return logits

    def _restricted(self, states: Tensor | None, logits: Tensor) -> Tensor:
        settings = self.settings
        if settings.temperature > 0:
            logits = logits / settings.temperature
        if states is not None and self.constraints is not None:
            allowed = self.constraints.allowed(states)
            if allowed.shape != logits.shape:
                raise ValueError(
                    f"The token constraints are over {allowed.shape[1]} tokens, the model's logits over "
                    f"{logits.shape[1]}; build them for the vocabulary of the model."
                )
            logits = logits.masked_fill(~allowed, -torch.inf)
        if settings.top_k or settings.top_p < 1:
            logits = keep_likely(logits, settings.top_k, settings.top_p)
        return logits

    def _after(self, states: Tensor | None, tokens: Tensor) -> list[int]:
        if states is None:
            return [-1] * len(tokens)
        assert self.constraints is not None
        return self.constraints.after(states, tokens).tolist()

    # -- slots -------------------------------------------------------------------------------------------------

    def _partition(self, low: int, finished: list[bool]) -> None:
        """Unfinished slots of ``low..`` move together at the front; those behind wait."""
        unfinished = [low + i for i, over in enumerate(finished) if not over]
        end = low + len(unfinished)
        holes = [low + i for i, over in enumerate(finished) if over and low + i < end]
        movers = [slot for slot in unfinished if slot >= end]
        for hole, mover in zip(holes, movers, strict=True):
            self._swap(hole, mover)
        self.decoding = end

    def _swap(self, a: int, b: int) -> None:
        if a == b:
            return
        self.rows.swap_rows(a, b)
        if self.seen is not None:
            self.seen.swap(a, b)
        self.slots[a], self.slots[b] = self.slots[b], self.slots[a]
        self.place[self.slots[a].row], self.place[self.slots[b].row] = a, b
