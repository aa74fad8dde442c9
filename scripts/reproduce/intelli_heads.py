"""Of scripts/reproduce/intelli.py: the heads of the ablation, and how they agree with annotators and oracle."""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from lit_rl.metrics.label_agreement import LabelAgreement
from lit_rl.papers import AXES, QuestionRecord, read_questions, with_other_papers
from lit_rl.reward_models import Scoring, load_reward_model
from lit_rl.reward_models.batch import label_table
from scripts.reproduce.intelli_annotated import NOISY, TRUE

HEADS = {
    **{
        f"{pool}, {head}, frozen": f"{pool.replace(' ', '_')}_{head}"
        for pool, head in product(("last", "last 16", "all"), ("linear", "mlp", "transformer"))
    },
    "last 16, transformer, trained": "trained_transformer",
}
TEST_SEED = 4000


def measure_heads(folder: Path, exported: str = "checkpoints/last-policy") -> None:
    """Ask every reward model in ``folder`` about papers that nothing was trained on; writes ``heads.json``."""
    noisy, true = (read_questions(folder / "test_questions" / name, "own") for name in (NOISY, TRUE))
    found = {}
    for label, name in HEADS.items():
        said, elsewhere = predicted(folder / name / exported, true, with_other_papers(true, TEST_SEED))
        found[label] = agreement(said, noisy, true) | {"grounded": grounded_shares(said, elsewhere, true)}
    (folder / "heads.json").write_text(json.dumps(found, indent=1))


def predicted(folder: Path, *parts: Sequence[QuestionRecord]) -> list[Tensor]:
    """The labels that a saved reward model gives to each of ``parts``, int64 ``(N, axes)``."""
    model = load_reward_model(folder)
    rows = [[model.prompts.ids(record.paper_text, record.question) for record in part] for part in parts]
    return [model.score(part, Scoring(), token_budget=16384)[1].long() for part in rows]


def agreement(
    said: Tensor, noisy: Sequence[QuestionRecord], true: Sequence[QuestionRecord]
) -> dict[str, dict[str, float]]:
    """Figures of `LabelAgreement` against the labels as annotators give them, and as they ought to be.

    Keys are "annotators" and "oracle", and those with ", BASELINE" behind them.
    """
    found = {}
    for name, records in (("annotators", noisy), ("oracle", true)):
        metric = LabelAgreement(AXES)
        metric.update(said, label_table(records), [record.source for record in records])
        figures = metric.compute()
        found[name] = figures.pop("model")
        found |= {f"{name}, {baseline}": values for baseline, values in figures.items()}
    return found


def grounded_shares(said: Tensor, elsewhere: Tensor, true: Sequence[QuestionRecord]) -> dict[str, float]:
    """How often grounded questions are called so, beside their own paper and beside another.

    Args:
        said: Labels given beside the own paper, int64 ``(N, axes)``.
        elsewhere: Beside another one.
        true: With the labels as they ought to be.
    """
    column = AXES.index("grounding")
    grounded = torch.tensor([record.grounding == 1 for record in true])
    shares = {"own": said[grounded, column], "other": elsewhere[grounded, column]}
    return {name: float(called.double().mean()) for name, called in shares.items()}
