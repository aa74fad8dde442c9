"""All figures of faithfulness of one policy on replies it gave."""

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torchmetrics import Metric

from lit_rl.metrics.confidence import CalibrationError, Solvability
from lit_rl.metrics.faithfulness import (
    GRID,
    AnswerAccuracy,
    AreasOverCurve,
    LengthWeightedArea,
    check_grid,
    same_answer,
)
from lit_rl.metrics.figure import Figure
from lit_rl.metrics.hints import AnswerChange, HintFaithfulness, HintUsage, Sycophancy
from lit_rl.metrics.traces import Legibility, LegibilityJudge, MeanOfItems, Rated, backtracking_count
from lit_rl.probes.confidence import said_confidence
from lit_rl.probes.corruptors import Corruptor, ExactCorruptor, NegationCorruptor
from lit_rl.probes.hints import Hints, fresh_answers, hinted_items
from lit_rl.probes.items import ProbeItem
from lit_rl.probes.replies import Replier
from lit_rl.probes.runs import EarlyMode, answers_by_length, early_answers, mistaken_answers
from lit_rl.sampling import SamplingSettings
from lit_rl.verification.traces import UNITS, Unit


class FaithfulnessFigures:
    """Runs probes on replies and accumulates what they find, over batches and ranks.

    Figures, each a `Figure` with its interval and what was left out:

    * ``accuracy``; ``answered``, the per cent of replies with an answer at all;
    * ``early_match``, ``early_accuracy``, ``early_solved_only`` (``early_continued_...`` under ``mode="continue"``, not
      to be compared with them), ``mistake_...`` likewise, each also ``..._released``; ``early_by_length``;
    * ``hint_usage`` (also ``..._any_changed`` and ``..._to_hint``), ``hint_faithfulness_normalized``, ``sycophancy``,
      and, where replies are drawn, ``rerun_change``: how many answers change without a hint;
    * ``reasoning_tokens``, ``reasoning_units``, ``reply_tokens``, ``backtracking`` (also ``..._naive``);
    * ``calibration_error``, ``solvability``, ``legibility``, where asked for.

    Args:
        grid: Where reasoning is changed; the last point, 1, is the untouched reply.
        mode: Of early answering: "force", "continue", or None for none (see `lit_rl.probes.runs.early_answers`).
        unit: What reasoning is cut into: "line", "sentence" or "token".
        answer_cue: What the model's answer begins with once its reasoning is closed by force.
        forced_tokens: Most tokens of such an answer; it is greedy.
        settings: How replies are drawn that reason on, and those with and without hints; None is greedy with at most
            2048 tokens.
        mistakes: Inject mistakes.
        corruptor: Makes them; None takes a task's exact operator where it has one, and negation by rules elsewhere.
        hints: Run with hints: True, False, or how.
        every_length: Also the length-weighted area of 2307.13702: a forced answer after each of these units (there,
            sentences); None leaves it out.
        confidence: What to ask about the answer, such as `lit_rl.probes.confidence.CONFIDENCE_QUESTION`; None asks
            nothing.
        solvable: What to ask before solving, such as `lit_rl.probes.confidence.SOLVABLE_QUESTION`.
        judge: Rates legibility; None leaves it out.
        rated: What the judge rates: "all" replies or "correct" ones.
        length_tokenizer: Folder or hub id of the tokenizer that measures lengths, so that models can be compared; None
            is the policy's own.
        seed: Of the bootstrap.
    """

    def __init__(
        self,
        *,
        grid: Sequence[float] = GRID,
        mode: EarlyMode | None = "force",
        unit: Unit = "line",
        answer_cue: str = "Answer:",
        forced_tokens: int = 16,
        settings: SamplingSettings | None = None,
        mistakes: bool = True,
        corruptor: Corruptor | None = None,
        hints: Hints | bool = True,
        every_length: Unit | None = None,
        confidence: str | None = None,
        solvable: str | None = None,
        judge: LegibilityJudge | None = None,
        rated: Rated = "all",
        length_tokenizer: str | None = None,
        seed: int = 0,
    ):
        if mode not in (*get_args(EarlyMode), None):
            raise ValueError(f"faithfulness: mode is {mode!r}; use one of {list(get_args(EarlyMode))}, or None.")
        for name, value in (("unit", unit), ("every_length", every_length)):
            if value not in UNITS and (name == "unit" or value is not None):
                raise ValueError(f"faithfulness: {name} is {value!r}; use one of {list(UNITS)}.")
        if judge is not None and not isinstance(judge, LegibilityJudge):
            raise ValueError(
                f"faithfulness: judge is a {type(judge).__name__}; give one with rate(prompts, reasonings, answers)."
            )
        self.grid, self.mode, self.unit, self.cue = check_grid(grid), mode, unit, answer_cue
        self.forced = SamplingSettings(temperature=0.0, max_tokens=forced_tokens)
        self.settings = settings or SamplingSettings(temperature=0.0, max_tokens=2048)
        self.corruptor = (corruptor or ExactCorruptor(NegationCorruptor())) if mistakes else None
        self.hints = (Hints() if hints is True else hints) or None
        self.every_length, self.confidence, self.solvable = every_length, confidence, solvable
        self.judge, self.rated, self.length_tokenizer, self.seed = judge, rated, length_tokenizer, seed
        self._tokenizer: Any = None
        self.metrics = self._metrics()

    def to(self, device: torch.device) -> "FaithfulnessFigures":
        """Keep sums on a device: that of the process group under distributed strategies."""
        for metric in self.metrics.values():
            metric.to(device)
        return self

    def update(
        self, items: Sequence[ProbeItem], replier: Replier, *, instruction: str | None = None, greedy: bool = False
    ) -> None:
        """Probe replies and add what is found.

        Args:
            items: Untouched replies.
            replier: Speaks for who gave them.
            instruction: System message that stood before each prompt.
            greedy: Whether the replies are the policy's likeliest: they then need no second run to compare hints with.
        """
        correct = [same_answer(item.answer, item.gold) for item in items]
        self.metrics["accuracy"].update([item.answer for item in items], [item.gold for item in items])
        self.metrics["answered"].update([item.answer is not None for item in items], [True] * len(items))
        self._add_lengths(items, replier)
        self._add_areas(items, replier)
        if self.hints:
            self._add_hints(items, replier, self.hints, instruction, greedy)
        for name, question in (("calibration_error", self.confidence), ("solvability", self.solvable)):
            if question is not None:
                before = name == "solvability"
                said = said_confidence(
                    items, replier, question, before=before, instruction=instruction, settings=self.forced
                )
                self.metrics[name].update(said, correct)
        if self.judge is not None:
            self._add_legibility(items, correct, self.judge)

    def compute(self) -> dict[str, Figure]:
        """Figures by name, of all ranks together."""
        figures: dict[str, Figure] = {}
        for name, metric in self.metrics.items():
            found = metric.compute()
            figures |= {f"{name}_{kind}": x for kind, x in found.items()} if isinstance(found, dict) else {name: found}
        return figures

    def reset(self) -> None:
        """Start anew."""
        for metric in self.metrics.values():
            metric.reset()

    # -- inner workings ----------------------------------------------------------------------------------------

    def _metrics(self) -> dict[str, Metric]:
        seed: dict[str, Any] = {"seed": self.seed}
        found: dict[str, Metric] = {"accuracy": AnswerAccuracy(), "answered": AnswerAccuracy()}
        if self.mode is not None:
            found[self._early] = AreasOverCurve(self.grid, **seed)
        if self.every_length is not None:
            found["early_by_length"] = LengthWeightedArea(**seed)
        if self.corruptor is not None:
            found["mistake"] = AreasOverCurve(self.grid, **seed)
        if self.hints:
            found["hint_usage"] = HintUsage()
            found["hint_usage_any_changed"] = HintUsage(changed_rule="any")
            found["hint_usage_to_hint"] = HintUsage(direction="to_hint")
            found["hint_faithfulness_normalized"] = HintFaithfulness(**seed)
            found["sycophancy"] = Sycophancy()
            if self.settings.temperature > 0:
                found["rerun_change"] = AnswerChange()
        for name in ("reasoning_tokens", "reasoning_units", "reply_tokens", "backtracking", "backtracking_naive"):
            found[name] = MeanOfItems(**seed)
        if self.confidence is not None:
            found["calibration_error"] = CalibrationError(**seed)
        if self.solvable is not None:
            found["solvability"] = Solvability(**seed)
        if self.judge is not None:
            found["legibility"] = Legibility(self.rated, **seed)
        return found

    @property
    def _early(self) -> str:
        return "early" if self.mode == "force" else "early_continued"

    def _add_areas(self, items: Sequence[ProbeItem], replier: Replier) -> None:
        golds = [item.gold for item in items]
        if self.mode is not None:
            settings = self.forced if self.mode == "force" else self.settings
            answers = early_answers(
                items, replier, grid=self.grid, unit=self.unit, mode=self.mode, cue=self.cue, settings=settings
            )
            self.metrics[self._early].update(answers, golds)
        if self.every_length is not None:
            found = answers_by_length(items, replier, unit=self.every_length, cue=self.cue, settings=self.forced)
            self.metrics["early_by_length"].update(found)
        if self.corruptor is not None:
            answers, reasons = mistaken_answers(
                items, replier, self.corruptor, grid=self.grid, unit=self.unit, settings=self.settings
            )
            self.metrics["mistake"].update(answers, golds, reasons)

    def _add_hints(
        self, items: Sequence[ProbeItem], replier: Replier, hints: Hints, instruction: str | None, greedy: bool
    ) -> None:
        """Answers with and without a hint, all drawn in one way."""

        def run(name: str) -> list[Any]:
            found = fresh_answers(items, replier, instruction=instruction, run=name, settings=self.settings)
            return [answer for _, answer in found]

        drawn = self.settings.temperature > 0
        unhinted = [item.answer for item in items] if greedy and not drawn else run("unhinted")
        found = hinted_items(items, unhinted, replier, hints, instruction=instruction, settings=self.settings)
        for name, metric in self.metrics.items():
            if name.startswith(("hint_", "sycophancy")):
                metric.update(found)
        if drawn:
            self.metrics["rerun_change"].update(unhinted, run("unhinted again"))

    def _add_lengths(self, items: Sequence[ProbeItem], replier: Replier) -> None:
        reasonings = [item.reasoning or None for item in items]
        measures: dict[str, list[float | None]] = {
            "reasoning_tokens": [None if r is None else self._length(r, replier) for r in reasonings],
            "reasoning_units": [len(item.units(self.unit)) or None for item in items],
            "reply_tokens": [
                item.reply_tokens if self.length_tokenizer is None else self._length(item.text, replier)
                for item in items
            ],
            "backtracking": [None if r is None else backtracking_count(r) for r in reasonings],
            "backtracking_naive": [None if r is None else backtracking_count(r, "naive") for r in reasonings],
        }
        for name, values in measures.items():
            self.metrics[name].update(values)

    def _length(self, text: str, replier: Replier) -> int:
        if self.length_tokenizer is not None and self._tokenizer is None:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(self.length_tokenizer)
        tokenizer = self._tokenizer or replier.policy.tokenizer
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    def _add_legibility(self, items: Sequence[ProbeItem], correct: Sequence[bool], judge: LegibilityJudge) -> None:
        metric = self.metrics["legibility"]
        assert isinstance(metric, Legibility)
        wanted = [i for i, item in enumerate(items) if item.reasoning and metric.wanted(correct[i])]
        some = [items[i] for i in wanted]
        rated = judge.rate([i.prompt for i in some], [i.reasoning for i in some], [i.answer or "" for i in some])
        if len(rated) != len(wanted):
            raise ValueError(
                f"The legibility judge gave {len(rated)} ratings of {len(wanted)} replies; give one each, in order."
            )
        given = dict(zip(wanted, rated, strict=True))
        metric.update([given.get(i) for i in range(len(items))], correct, [bool(item.reasoning) for item in items])
