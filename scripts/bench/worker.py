"""A worker's end of the comparison: it trains one iteration each time its turn comes, and reports what that took."""

import json
import os
import sys
import time
from typing import Any


class Turns:
    """Waits for the other side, keeps the time of one iteration, reports.

    An iteration lasts from `begin` to `end`: whatever a framework does between two optimizer steps is in it.
    """

    def __init__(self) -> None:
        self.reports = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print is no report
        self.started = self.asked = self.sampled = self.used = 0.0
        self.tokens: dict[str, int] = {}

    def begin(self) -> None:
        """Wait until this side is to run its next iteration; the end if nobody asks any more."""
        if not sys.stdin.readline():
            sys.exit()
        self.started, self.used = time.perf_counter(), time.process_time()

    def begin_sampling(self) -> None:
        """Everything before was neither sampling nor learning."""
        self.asked = time.perf_counter()

    def end_sampling(self, *, sampled: int, row: int) -> None:
        """A scored batch is there; from here on it is learned from.

        Args:
            sampled: Tokens sampled, and to be learned from.
            row: Tokens of all rows, without padding.
        """
        self.sampled = time.perf_counter()
        self.tokens = {"sampled_tokens": sampled, "row_tokens": row}

    def end(self, **figures: float) -> None:
        """The optimizer step is done."""
        now = time.perf_counter()
        report: dict[str, Any] = {
            "rest": self.asked - self.started,
            "sampling": self.sampled - self.asked,
            "learning": now - self.sampled,
            "iteration": now - self.started,
            "cpu": time.process_time() - self.used,
        }
        print(json.dumps(report | self.tokens | figures), file=self.reports, flush=True)
