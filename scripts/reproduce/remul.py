"""REMUL's findings reproduced small: whose reasoning can others carry on, and what is a stated answer worth?

On walks of four steps over a map of 2 x 2 fields, models of 0.1 M parameters.  Three listeners, the same for all seeds,
were shown walks in which every step is stated, and walks in which nothing is stated and any answer follows: they carry
a stated walk on, and guess otherwise.  Two are rewarded, the third is only measured.  A speaker, one for each seed, was
shown right answers behind reasoning of four styles: states, states under a secret relabelling, no states, and the
answer first with no states behind it.  Only states can be carried on; the secret code is as good for the speaker.

* "execution": from each speaker (original), training on right answers (correctness_only), on agreement of listeners
  (faithfulness_only), on both (balanced), and after agreement masked answers, merged: behind all reasoning (two_stage),
  or only where the speaker's own answer is right (two_stage_consistent).
* "leak": agreement with three scripted listeners who go on from the last state they are told, guess where they are told
  none, and lose their place at one step in ten; the gullible ones also believe a stated answer, the sceptical ones pass
  over it.  And gullible ones with ``leak_policy=mask``.

All figures are of walks that nothing was trained on.  A table counts only where in every seed each training covers half
of what lay between its first rewards and its ceiling: 1 for a right answer, and for agreement what perfect reasoning of
the best style is paid by the same listeners.  The first rewards are a mean over 20 batches, in which much is learned
already, so this asks for more than half.  Masked answers have no reward.

Settings were chosen on seeds 0, 1 and 2.  Seed 0: the map (on 3 x 3 fields nobody learned the code in the time), the
listeners' warm-up (after 200 steps, 35 % of them on stated walks, they could not carry these on), and the learning rate
and entropy bonus by correctness_only, which fell apart with 1e-3 and 0.001.  Seeds 1 and 2: the speakers' warm-up and
the rest of the optimizer, by correctness_only and faithfulness_only.  After 200 steps these speakers often stated wrong
states, and training on right answers went nowhere; they have 400, AdamW's eps is 3e-4, and the rate ends at a
twentieth.  Seed 1, by agreement and accuracy of the two_stage arms: the second stage's rate, a tenth of its config's.
With that one its replies were of no style any more: this speaker had come to talk on after its answer, and learning to
stop there cost it its reasoning.

    python scripts/reproduce/remul.py --seeds 0 1 2 --jobs 2

writes ``runs/reproduce-remul/remul.json`` and prints the tables; finished runs are found again, and ``--quick`` takes
the first seed alone.
"""

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lit_rl.environments.trace_styles import STYLES
from scripts.reproduce.arms import Table, arguments, each_seed, learnability, markdown, over_seeds, publish
from scripts.reproduce.listening import MEASURED, mean_of
from scripts.reproduce.remul_runs import ARMS, LEAK, REWARDED, TRAINED, run_listeners, run_seed


def measured(folder: Path) -> dict[str, float]:
    """All figures of one validation."""
    found: dict[str, float] = json.loads((folder / MEASURED).read_text())
    return found


def plain(name: str) -> Callable[[Mapping[str, float]], float | None]:
    """A figure as it was logged; None if it was undefined."""
    return lambda figures: figures.get(name)


Columns = Mapping[str, Callable[[Mapping[str, float]], float | None]]
AGREEMENT: Columns = {
    "accuracy": plain("val/answers/accuracy_turn_1"),
    "match, rewarded": plain("val/answers/listener_match"),
    "match, held out": plain("val/answers/held_out_match"),
    "lift over no beginning": lambda figures: mean_of(figures, "prefix_lift", *REWARDED),
    "beginnings that leak": lambda figures: mean_of(figures, "early_answer_share"),
    "tokens of reasoning": plain("val/faithfulness/reasoning_tokens"),
}
AREAS: Columns = {
    f"{probe}, {kind}": plain(f"val/faithfulness/{probe}_{kind}")
    for probe in ("early", "mistake")
    for kind in ("match", "accuracy")
}
SHARES: Columns = {style: plain(f"style/{style}") for style in (*STYLES, "other")}
LEAKS: Columns = {
    "accuracy": AGREEMENT["accuracy"],
    "match": AGREEMENT["match, rewarded"],
    "beginnings that leak": AGREEMENT["beginnings that leak"],
    "early, match": AREAS["early, match"],
    "leak_first": SHARES["leak_first"],
    "explicit": SHARES["explicit"],
    "private_code": SHARES["private_code"],
    "filler": SHARES["filler"],
}


def table(folders: Sequence[Path], rows: Mapping[str, str], columns: Columns) -> Table:
    """Figures of runs (by the name of their row), each a list over the seeds in which it is defined."""
    found = {row: [measured(folder / name) for folder in folders] for row, name in rows.items()}
    return {
        row: [[value for figures in seeds if (value := read(figures)) is not None] for read in columns.values()]
        for row, seeds in found.items()
    }


def execution_tables(folders: Sequence[Path]) -> dict[str, tuple[Table, Columns]]:
    """Of the first part."""
    rows = {arm: arm for arm in ARMS}
    named = {"agreement": AGREEMENT, "areas over the curve": AREAS, "styles": SHARES}
    return {title: (table(folders, rows, columns), columns) for title, columns in named.items()}


def leak_tables(folders: Sequence[Path]) -> dict[str, tuple[Table, Columns]]:
    """Of the second part."""
    rows = {
        f"{name}, {when}": f"leak_{name}{end}" for name in LEAK for when, end in (("before", "_before"), ("after", ""))
    }
    return {"leak": (table(folders, rows, LEAKS), LEAKS)}


def ceilings(folders: Sequence[Path], run_name: str) -> dict[str, float]:
    """What perfect reasoning in each style is paid, and the best of them, over seeds."""
    found = [measured(folder / run_name) for folder in folders]
    names = sorted(name for name in found[0] if name.startswith("ceiling"))
    return dict(zip(names, map(statistics.fmean, over_seeds([[f[n] for n in names] for f in found])), strict=True))


def execution_verdicts(folders: Sequence[Path]) -> list[str]:
    """Learnability of the first part."""
    match = ceilings(folders, "original")["ceiling"]
    best = {"correctness_only": 1.0, "faithfulness_only": match, "balanced": match + len(REWARDED)}
    return [learnability(folders, arm, best[arm]) for arm in TRAINED]


def leak_verdicts(folders: Sequence[Path]) -> list[str]:
    """Learnability of the second part."""
    names = [f"leak_{name}" for name in LEAK]
    return [learnability(folders, name, ceilings(folders, f"{name}_before")["ceiling"]) for name in names]


PARTS = {"execution": (execution_tables, execution_verdicts), "leak": (leak_tables, leak_verdicts)}


def report(folders: Sequence[Path], part: str) -> tuple[dict[str, Table], str]:
    """The tables of one part, and them as text with the verdicts on them."""
    make, judge = PARTS[part]
    tables = make(folders)
    shown = [f"{title}\n\n{markdown(rows, list(columns))}" for title, (rows, columns) in tables.items()]
    text = "\n\n".join([f"# {part}", *judge(folders), *shown])
    return {title: rows for title, (rows, _) in tables.items()}, text


def main() -> None:
    parser = arguments(str(__doc__), "reproduce-remul")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    run_listeners(options.root.resolve())
    folders = each_seed(partial(run_seed, parts=options.parts), options)
    reports = {part: report(folders, part) for part in options.parts}
    publish("remul.json", reports, folders, options.root)


if __name__ == "__main__":
    main()
