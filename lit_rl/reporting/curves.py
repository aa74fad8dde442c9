"""Logged quantities as curves to draw: named, smoothed, and thinned to a bounded number of points."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lit_rl.reporting.run_data import RunData, Series, accuracy_prefix

MAX_POINTS = 400  # of one curve
MAX_PANELS = 48

# Key -> title and what it is, in the order shown; what is not listed follows under its own name.
PANELS = {
    "train/reward": ("Reward", "of a dialogue, mean of the batch"),
    "train/loss": ("Loss", "what the optimizer minimizes"),
    "train/entropy": ("Entropy", "of the next token, in nats"),
    "train/approx_kl": ("KL estimate", "to the sampling policy, nats a token"),
    "train/clip_fraction": ("Clipped tokens", "share whose ratio was clipped"),
    "train/grad_norm": ("Gradient norm", "before clipping"),
    "train/turns": ("Turns a dialogue", ""),
    "train/completion_tokens": ("Tokens a turn", "as sampled"),
    "train/sampler_log_prob_difference": ("Log-prob difference", "sampler against trainer, largest"),
    "train/learning_rate": ("Learning rate", ""),
    "time/sampling_tokens_per_second": ("Sampling speed", "tokens a second"),
    "time/learning_tokens_per_second": ("Learning speed", "tokens a second"),
}
_SHARES = ("fraction", "share", "repeat_rate", "premature_rate", "without_answer")
# Read off the accuracies by turn, which are shown.
_DERIVED = ("gain", "normalized_gain", "first_jump", "area_under_turns")


def curves(run: RunData, condition: str | None) -> dict[str, Any]:
    """All curves of a run, as plain data for the page.

    Args:
        run: The run.
        condition: The validation condition drawn beside training accuracy; None draws none.
    """
    train, held_out = run.accuracy("train/"), run.accuracy(f"val/{condition}/") if condition else []
    ceiling = run.validation.ceiling if run.validation else None
    panels, constant = [], []
    for key, series in _ordered(run, condition):
        if len(set(series.values)) == 1 and len(series.values) > 1:
            constant.append({"name": _names(key)[0], "value": f"{series.values[0]:g}"})
        else:
            panels.append(panel(key, series))
    return {
        "accuracy": {
            "turns": [curve(series) for series in train],
            "held_out": [curve(series, window=1) for series in held_out],
            "ceiling": ceiling,
        },
        "panels": panels[:MAX_PANELS],
        "constant": constant,
        "left_out": max(0, len(panels) - MAX_PANELS),
        "window": smoothing_window(run.batches),
        "batches": run.batches,
    }


def panel(key: str, series: Series) -> dict[str, Any]:
    """One small chart."""
    title, hint = _names(key)
    share = key.rsplit("/", 1)[-1].endswith(_SHARES) or accuracy_prefix(key) is not None
    return {"key": key, "title": title, "hint": hint, "percent": share, **curve(series)}


def curve(series: Series, window: int | None = None) -> dict[str, Any]:
    """Points of a curve: ``x``, ``y`` as logged and, where they are many, ``smooth``; None stands for NaN."""
    values = np.asarray(series.values, dtype=np.float64)
    values[~np.isfinite(values)] = np.nan
    window = smoothing_window(len(values)) if window is None else window
    kept = thinned(values, MAX_POINTS)
    points = {"x": [series.batches[i] for i in kept], "y": [_rounded(values[i]) for i in kept]}
    if window > 1:
        smooth = moving_mean(values, window)
        points["smooth"] = [_rounded(smooth[i]) for i in kept]
    return points


def smoothing_window(count: int) -> int:
    """An odd number of points, about one in forty: short runs are shown as they are."""
    return 2 * (count // 80) + 1


def moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over the ``window`` points around each, NaN left out; at the ends over those there are."""
    known = np.isfinite(values)
    half, places = window // 2, np.arange(len(values))
    first, stop = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    with np.errstate(invalid="ignore"):
        return (sums[stop] - sums[first]) / (counts[stop] - counts[first])


def thinned(values: np.ndarray, most: int) -> list[int]:
    """Indices of at most ``most`` values: the ends, and the least and greatest of each stretch, so that spikes stay."""
    if len(values) <= most:
        return list(range(len(values)))
    kept = {0, len(values) - 1}
    for part in np.array_split(np.arange(len(values)), (most - 2) // 2):
        known = part[np.isfinite(values[part])]
        if len(known):
            kept |= {int(known[values[known].argmin()]), int(known[values[known].argmax()])}
    return sorted(kept)


def _ordered(run: RunData, condition: str | None) -> Iterator[tuple[str, Series]]:
    """What has a small chart: listed keys first, all but accuracies drawn elsewhere."""
    timed = _timing_series(run.timings)
    logged = {**run.train, **timed, **run.val}
    others = [key for key in logged if key not in PANELS and key.rsplit("/", 1)[-1] not in _DERIVED]
    for key in [key for key in PANELS if key in logged] + others:
        prefix = accuracy_prefix(key)
        if prefix is None:
            yield key, logged[key]
        elif prefix not in ("train/", f"val/{condition}/") and logged[key] is run.accuracy(prefix)[-1]:
            yield key, logged[key]  # of other conditions only what was reached in the end


def _timing_series(lines: Sequence[dict[str, Any]]) -> dict[str, Series]:
    found: dict[str, Series] = {}
    for line in lines:
        for key, value in line.items():
            if key.startswith("time/") and key != "time/clock" and isinstance(value, int | float):
                series = found.setdefault(key, Series())
                series.batches.append(line["batch"])
                series.values.append(float(value))
    return found


def _names(key: str) -> tuple[str, str]:
    if key in PANELS:
        return PANELS[key]
    stage, _, name = key.partition("/")
    if (prefix := accuracy_prefix(key)) is not None:
        turns = key[len(prefix) :].removeprefix("accuracy_turn_")
        return f"Solved within {turns} turns", f"held out, {prefix.removeprefix('val/').rstrip('/') or stage}"
    condition, _, name = name.rpartition("/")
    hint = {"val": "held out", "time": "by the clock"}.get(stage, "")
    return name.replace("_", " ").capitalize() or key, f"{hint}, {condition}" if condition else hint


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
