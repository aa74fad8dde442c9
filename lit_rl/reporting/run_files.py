"""Files that a run only ever appends to, and that a resumed run cuts back to where its checkpoint stands.

A run folder holds ``config.yaml``; ``metrics.jsonl``, one JSON object per training batch and validation, the same
bytes whenever the run is repeated; ``timings.jsonl``, what the clock said; ``episodes.bin``; ``checkpoints/``; and,
made later, ``validation.json`` and ``report.html``.  A folder of many runs may hold a ``frontier.json``.
"""

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

METRICS, TIMINGS, EPISODES = "metrics.jsonl", "timings.jsonl", "episodes.bin"
CONFIG, VALIDATION, REPORT = "config.yaml", "validation.json", "report.html"
FRONTIER = "frontier.json"  # quality against diversity, see `lit_rl.reporting.frontier`
VALIDATION_BEFORE = "validation_before.json"  # the same before training, if somebody validated then


class AppendOnlyFile:
    """Bytes appended without a buffer of ours: what was appended survives the death of the process.

    Args:
        path: Created with its folders when first appended to.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @property
    def offset(self) -> int:
        """Bytes in the file."""
        return self.path.stat().st_size if self.path.exists() else 0

    def append(self, data: bytes) -> None:
        """Write ``data`` at the end."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab", buffering=0) as file:
            file.write(data)

    def cut(self, offset: int) -> None:
        """Go back to the first ``offset`` bytes, from where a resumed run writes on.

        What cannot be gone on with, an earlier run's file (``offset`` 0) or one shorter than ``offset``, is kept beside
        as ``<name>.previous``.
        """
        found = self.offset
        if found < offset:
            warnings.warn(
                f"{self.path} has {found} bytes, but the checkpoint was written when it had {offset}; the file starts "
                "anew. Resume in the folder of the run that wrote the checkpoint to keep its beginning.",
                stacklevel=2,
            )
        if found < offset or offset == 0:
            if found:
                os.replace(self.path, self.path.with_name(self.path.name + ".previous"))
        elif found > offset:
            os.truncate(self.path, offset)


def offset_of_line(path: str | Path, lines: int) -> int:
    """Where line number ``lines`` (0-based) begins; the end of the last whole line if there are fewer."""
    if not Path(path).exists():
        return 0
    offset = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file):
            if number >= lines or not line.endswith(b"\n"):
                break
            offset += len(line)
    return offset


def json_line(values: Mapping[str, Any]) -> bytes:
    """One line of JSON; numbers that JSON lacks become the strings "nan", "inf" and "-inf", which ``float`` reads."""
    plain = {k: str(v) if isinstance(v, float) and v - v != 0 else v for k, v in values.items()}
    return json.dumps(plain, allow_nan=False).encode() + b"\n"


def read_json_lines(path: str | Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file; a last line torn by the end of the process is left out.

    Raises:
        ValueError: A line before the last is no JSON object.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                values = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error}).") from error
            if not isinstance(values, dict):
                raise ValueError(f"{path}, line {number}: wanted a JSON object, found {type(values).__name__}.")
            yield values
