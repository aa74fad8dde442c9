"""One self-contained HTML page about a run: what was trained, what changed, and the dialogues themselves.

Of a folder with a ``frontier.json`` it shows quality against diversity, for many runs at once.

The page asks for nothing over the network and stays below 5 MB: at most 300 dialogues in 3 MB (`dialogues`), 400 points
a curve and 48 small charts (`curves`), 100,000 characters of config (`run_config`).
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from lit_rl.reporting import comparison, frontier, run_config
from lit_rl.reporting.curves import curves
from lit_rl.reporting.dialogues import TRAIN, Dialogues, as_plain, read_dialogues
from lit_rl.reporting.run_data import RunData, read_run
from lit_rl.reporting.run_files import CONFIG, EPISODES, FRONTIER, METRICS, REPORT, TIMINGS
from lit_rl.reporting.run_time import amount, duration, run_time


def write_report(folder: str | Path) -> Path:
    """Write ``report.html`` into a run folder, finished or not, and return its path.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: Nothing in it comes from a run.
    """
    folder = Path(folder)
    run = read_run(folder)
    page = render(run, read_dialogues(folder / EPISODES))
    path, unfinished = folder / REPORT, folder / f"{REPORT}.{os.getpid()}"
    unfinished.write_text(page, encoding="utf-8", errors="replace")
    os.replace(unfinished, path)  # whoever has the page open never reloads half of it
    return path


def render(run: RunData, dialogues: Dialogues) -> str:
    """The page as text."""
    condition = comparison.leading_condition(run)
    sampled, greedy = (comparison.rows(run, greedy=chosen) for chosen in (False, True))
    name = run.folder.resolve().name
    return _environment().get_template("report.html.j2").render(
        name=name,
        title=run_config.title(run.config, run.frontier.title if run.frontier else name),
        facts=run_config.facts(run.config),
        config_text=run_config.public_text(run.config) if run.config else "",
        status=_status(run),
        headline=comparison.headline(run),
        time=run_time(run.timings),
        tables=[(kind, rows) for kind, rows in (("Sampled", sampled), ("Greedy", greedy)) if rows],
        counted=any(row.dialogues for row in sampled + greedy),
        ceiling=run.validation.ceiling if run.validation else None,
        remarks=comparison.remarks(run),
        notes=run.notes,
        files={"metrics": METRICS, "timings": TIMINGS, "config": CONFIG, "frontier": FRONTIER},
        frontier=run.frontier,
        frontier_json=embedded(frontier.chart(run.frontier) if run.frontier else None),
        is_run=bool(run.batches or run.validation or dialogues.views or run.frontier is None),
        curves=(drawn := curves(run, condition)),
        curves_json=embedded(drawn),
        comparison_json=embedded(_compared(run, sampled, greedy)),
        dialogues=dialogues,
        dialogues_json=embedded(_pages(dialogues)),
    )  # fmt: skip


def embedded(data: Any) -> Markup:
    """JSON for a ``<script>`` element: no text in it can end the element or begin a comment."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for sign in "<>&'":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration, "amount": amount}
    return environment


def percent(share: float | None, trim: bool = True) -> str:
    """A share as "93.8%", 1 as "100%" or untrimmed as "100.0%"; what is not known as a dash."""
    if share is None or math.isnan(share):
        return "–"
    digits = f"{100 * share:.1f}"
    return (digits.removesuffix(".0") if trim else digits) + "%"


def _status(run: RunData) -> str:
    expected = run_config.expected_batches(run.config)
    if not run.batches:
        return ""
    if expected is None or run.batches > expected:
        return f"{run.batches:,} batches"
    if run.batches < expected:
        return f"{run.batches:,} of {expected:,} batches: still training, or stopped early"
    return f"all {expected:,} batches"


def _compared(run: RunData, sampled: list[comparison.Row], greedy: list[comparison.Row]) -> dict[str, Any]:
    def plain(row: comparison.Row) -> dict[str, Any]:
        return {"name": row.name, "kind": row.kind, "accuracy": row.accuracy}

    ceiling = run.validation.ceiling if run.validation else None
    return {"Sampled": [plain(r) for r in sampled], "Greedy": [plain(r) for r in greedy], "ceiling": ceiling}


def _pages(dialogues: Dialogues) -> dict[str, Any]:
    return {
        "scale": dialogues.scale,
        "views": [
            {"label": label, "training": label == TRAIN, "batches": [as_plain(batch) for batch in batches]}
            for label, batches in dialogues.views.items()
        ],
    }
