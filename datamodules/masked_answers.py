"""The speaker's own reasoning with right answers behind it, sampled once and then learned from."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

from lightning.pytorch.utilities import rank_zero_info

from lit_rl.datamodules.completions import CompletionDataModule
from lit_rl.datamodules.dialogue_stream import DialogueStream
from lit_rl.datamodules.online import at_least_one
from lit_rl.datamodules.stream import RolloutStream
from lit_rl.demonstrations import demonstration_rows
from lit_rl.distributed import gather_objects, rank, world_size
from lit_rl.environments.problems import TaskSource
from lit_rl.episodes import Episode, Rollouts
from lit_rl.listeners import ListenerPool
from lit_rl.listeners.execution import ExecutionRules, execute
from lit_rl.listeners.spoken import Spoken
from lit_rl.masked_answers import (
    AnswerFilter,
    MaskedAnswer,
    RecordedTrace,
    answer_ids,
    cut_at_tag,
    is_kept,
    masked_answer,
    read_traces,
)
from lit_rl.parties import PolicyParty
from lit_rl.recorded_dialogues import vocabulary_of, write_dialogues
from lit_rl.rollout import Planned, play
from lit_rl.sampling import SamplingSettings
from lit_rl.stream_keys import stream_key
from lit_rl.verification.traces import FRACTIONS, ThinkTags
from lit_rl.weight_files import digest

FILE = "traces.jsonl"


class MaskedAnswers(CompletionDataModule):
    """REMUL's second stage: one output of the speaker to every prompt, its answer replaced by the right one.

    Outputs are sampled once, when training begins, by the speaker as it is then, and written to a file part by part: a
    run that was cut off goes on behind the last part, and never samples anew with a speaker that has learned since.
    An epoch is one pass over them, shuffled.  Targets are the answer and the end of turn; prompt, reasoning and both
    tags are not learned.  Outputs without a closing tag are dropped and counted, as are those the filter drops and
    those whose answer does not fit.

    As published: all outputs are used, whatever their reasoning leads to.  Ours: that the end of turn is learned too
    (``append_eos``), and the other filters.

    Validation plays held-out tasks as `CompletionDataModule` does.

    Args:
        tasks: Problems; their ``gold`` is the right answer.
        num_problems: How many outputs are sampled, of the problems not held out; None samples one of each.
        traces: How they are sampled; None takes temperature 0.7 (as in the authors' code).
        tags: Of the speaker's think block.
        answer_template: What is learned, with ``{answer}`` in it, in a form that the tasks' verifier reads.  Its own
            token ids follow those of the closing tag, so a space or line break between them belongs in it.
        append_eos: Learn to end the turn behind the answer.
        answer_filter: Learn from "all", from those whose own answer is right ("consistent"), or from those from whose
            longest beginning (three quarters) a listener comes to the right answer ("executable").
        listeners: For "executable"; those held out are not asked.
        max_length: Longest row in tokens; None takes the policy's.  Reasoning is cut at its end to fit.
        batch_size: Outputs per batch, over all ranks.
        file: Where they are written; None is ``traces.jsonl`` in the trainer's root folder.
        party: Who answers.
        kwargs: Of `CompletionDataModule`.
    """

    def __init__(
        self,
        tasks: TaskSource,
        *,
        num_problems: int | None = None,
        traces: SamplingSettings | None = None,
        tags: ThinkTags | None = None,
        answer_template: str = " {answer}",
        append_eos: bool = True,
        answer_filter: AnswerFilter = "all",
        listeners: ListenerPool | None = None,
        max_length: int | None = None,
        batch_size: int = 64,
        file: str | None = None,
        party: str = "speaker",
        **kwargs: Any,
    ):
        self.traces = traces or SamplingSettings(temperature=0.7)
        super().__init__(
            tasks,
            party=party,
            tasks_per_batch=batch_size,
            batches_per_epoch=1,
            student=SamplingSettings(max_tokens=self.traces.max_tokens),
            **kwargs,
        )
        self.tags, self.answer_template, self.append_eos = tags or ThinkTags(), answer_template, append_eos
        at_least_one(num_problems=num_problems, max_length=max_length)
        if num_problems is not None and num_problems > self._order.count:
            raise ValueError(
                f"data.num_problems is {num_problems}, but data.tasks ({tasks.name}) has {self._order.count} that are "
                "not held out; take fewer, or null for all."
            )
        if "{answer}" not in answer_template:
            raise ValueError(f"data.answer_template is {answer_template!r}; it must contain {{answer}}.")
        if not tasks.verify(tasks[0], self._reply(tasks[0].gold)).correct:
            raise ValueError(
                f"data.tasks ({tasks.name}) read no right answer in {self._reply(tasks[0].gold)!r}; set "
                "data.answer_template to what they read, and data.tags to theirs."
            )
        if answer_filter not in get_args(AnswerFilter):
            raise ValueError(f"data.answer_filter is {answer_filter!r}; use one of {list(get_args(AnswerFilter))}.")
        if (answer_filter == "executable") != (listeners is not None):
            raise ValueError("data.listeners goes with data.answer_filter='executable', which needs it.")
        self.num_problems = num_problems or self._order.count
        self.listeners = None if listeners is None else replace(listeners, held_out=[], fractions=None)
        self.answer_filter, self.max_length, self.batch_size, self.file = answer_filter, max_length, batch_size, file
        self._figures: dict[str, float] = {}

    def _reply(self, answer: str) -> str:
        """The shortest reply that holds what is learned."""
        return f"{self.tags.open} {self.tags.close}{self.answer_template.format(answer=answer)}"

    def path(self) -> Path:
        """The file of this run's traces."""
        assert self.trainer is not None
        return Path(self.file) if self.file else Path(self.trainer.default_root_dir) / FILE

    def train_dataloader(self) -> RolloutStream:
        if self._stream is None:
            rows = self._rows(self._recorded())
            self._stream = DialogueStream(_any(rows), self.batch_size, self._batch, self.seed)
        return self._stream

    # -- sampling ----------------------------------------------------------------------------------------------

    def _recorded(self) -> list[RecordedTrace]:
        """The traces of the file if this run has begun to learn, else new ones."""
        steps = self._module().policy_version
        if steps:
            return self._read_back(steps)
        traces = self._sample_all(self._source())
        if rank() == 0 and not self._trial:
            write_dialogues(self.path(), _any(traces))
        return traces

    def _read_back(self, steps: int) -> list[RecordedTrace]:
        if not self.path().is_file():
            raise ValueError(
                f"The speaker has learned for {steps} optimizer steps, but there is no file {self.path()} with what it "
                "learns from: put it back, or start a new run."
            )
        return read_traces(self.path())

    def _source(self) -> str:
        """Fingerprint of all that decides what is sampled."""
        policy = self._module().policy
        weights = [_weights_at(path) for path in (policy.path, policy.config.frozen_adapter) if path is not None]
        facts = [weights, vocabulary_of(policy), self.seed, asdict(self.traces), asdict(self.tags), self.instruction]
        facts += [self.tasks.name, self.tasks[0].id, self.num_problems]
        facts += [listener.name for listener in (self.listeners.everybody if self.listeners else ())]
        return sha256(json.dumps(facts).encode()).hexdigest()[:16]

    @property
    def _trial(self) -> bool:
        return bool(getattr(self.trainer, "fast_dev_run", False))

    def _sample_all(self, source: str) -> list[RecordedTrace]:
        """One output to every problem; parts of ``max_rows`` problems are dealt to the ranks, each has its own file."""
        start, found = time.perf_counter(), []
        parts = 1 if self._trial else -(-self.num_problems // self.max_rows)
        for part in range(parts)[rank() :: world_size()]:
            file = self.path().with_name(f"{self.path().stem}-{source}") / f"{part:06d}.jsonl"
            if file.is_file():
                traces = read_traces(file)
            else:
                traces = self._sample(range(self.num_problems)[part * self.max_rows :][: self.max_rows], source)
                if not self._trial:
                    write_dialogues(file, _any(traces))
            found.append((part, traces))
        gathered = sorted(pair for pairs in gather_objects(found) for pair in pairs)
        self._figures["time/collecting_seconds"] = time.perf_counter() - start
        return [trace for _, traces in gathered for trace in traces]

    def _sample(self, tasks: Sequence[int], source: str) -> list[RecordedTrace]:
        planned = [
            Planned(environment=self.episode(self.tasks, task), index=task, task_id=str(task), group=task)
            for task in tasks
        ]
        played = play(
            planned,
            {self.party: PolicyParty(adapter=self.party, settings=self.traces)},
            self._module().policy,
            seed=stream_key(self.seed, "traces"),
            max_rows=self.max_rows,
            on_error=self.on_error,
        )
        return self._heard([self._recorded_trace(episode, source) for episode in played.episodes], played.episodes)

    def _recorded_trace(self, episode: Episode, source: str) -> RecordedTrace:
        (turn,), problem = episode.turns, self.tasks[int(episode.task_id)]
        reasoning, close = cut_at_tag(turn.completion_ids, self._module().policy.tokenizer, self.tags.close)
        return RecordedTrace(
            problem_id=problem.id,
            prompt_ids=tuple(turn.prompt_ids),
            reasoning_ids=tuple(reasoning),
            close_ids=tuple(close),
            text=turn.text,
            correct=bool(turn.info["correct"]),
            gold=problem.gold,
            executable=False,
            source=source,
        )

    def _heard(self, traces: list[RecordedTrace], episodes: Sequence[Episode]) -> list[RecordedTrace]:
        """The traces, marked where a listener comes to the right answer after the longest beginning."""
        if self.listeners is None:
            return traces
        told = [self._with_right_answer(trace, episode) for trace, episode in zip(traces, episodes, strict=True)]
        for listener in self.listeners.everybody:
            listener.attach(self._module())
        rules = ExecutionRules(fractions=FRACTIONS[-1:], empty_prefix=False, tags=self.tags)
        executions = execute(told, self.listeners, rules, stream_key(self.seed, "executable"))
        found = [any(cell.match for cell in execution.cells) for execution in executions]
        return [replace(trace, executable=one) for trace, one in zip(traces, found, strict=True)]

    def _with_right_answer(self, trace: RecordedTrace, episode: Episode) -> Spoken:
        problem = self.tasks[int(episode.task_id)]
        said, close, _ = trace.text.partition(self.tags.close)
        meta = {name: problem.meta[name] for name in ("labels", "aliases", "options") if name in problem.meta}
        return Spoken(
            question=problem.prompt,
            reply=f"{said}{close}{self.answer_template.format(answer=problem.gold)}" if close else said,
            identity=(episode.index,),
            group=(episode.group,),
            rows=(),
            **meta,
        )

    # -- learning ----------------------------------------------------------------------------------------------

    def _rows(self, traces: Sequence[RecordedTrace]) -> list[MaskedAnswer]:
        """Of the traces that are kept; what happened to the others is counted."""
        kept = [trace for trace in traces if is_kept(trace, self.answer_filter)]
        rows = [row for trace in kept if (row := self._masked(trace)) is not None]
        counts = Counter(
            sampled=len(traces),
            unclosed=sum(not trace.close_ids for trace in traces),
            correct=sum(trace.correct for trace in traces),
            too_long=len(kept) - len(rows),
            kept=len(rows),
            kept_tokens=sum(len(row.ids) - row.start for row in rows),
        )
        counts["filtered"] = counts["sampled"] - counts["unclosed"] - len(kept)
        self._figures |= {f"collected/{name}": float(count) for name, count in counts.items()}
        rank_zero_info(
            f"Of {len(traces)} outputs {counts['correct']} were right, {counts['unclosed']} never closed their "
            f"reasoning, {counts['filtered']} are filtered out, {counts['too_long']} do not fit; {len(rows)} are kept."
        )
        if len(rows) < world_size():
            raise ValueError(
                f"Of {len(traces)} outputs of the speaker {len(rows)} can be learned from ({counts['unclosed']} have "
                f"no {self.tags.close!r}, {counts['filtered']} are filtered out, {counts['too_long']} do not fit), "
                f"which is too few for {world_size()} processes; look at {self.path().name}, data.tags and data.traces."
            )
        return rows

    def _masked(self, trace: RecordedTrace) -> MaskedAnswer | None:
        policy = self._module().policy
        said = answer_ids(policy.tokenizer, self.answer_template.format(answer=trace.gold))
        end = [policy.chat.end_id] if self.append_eos else []
        return masked_answer(trace, [*said, *end], min(policy.max_length, self.max_length or policy.max_length))

    def _batch(self, number: int, rows: Sequence[Any]) -> Rollouts:
        module = self._module()
        batch = demonstration_rows(
            rows[rank() :: world_size()], module.policy, party=self.party, policy_version=module.policy_version
        ).to(module.policy.device)
        if number == 0:
            batch.figures |= self._figures
        return batch


def _weights_at(path: str) -> str:
    """Which weights speak before anything is learned: by what they are, or of a hub id by that."""
    return digest(path).hex() if any(Path(path).glob("*.safetensors")) else path


def _any(rows: Sequence[Any]) -> Sequence[Any]:
    """What is kept in files and streams as recorded dialogues are."""
    return rows
