# SPDX-License-Identifier: MIT
"""What the load generator saw of each request."""

import dataclasses
import json
import math
import signal

from common import CannotRun, exit_text


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    number: int
    due_at: float  # of time.monotonic(), like all times here
    connected_at: float  # its connection; 0: it did not come to that, as below
    sent_at: float  # when the kernel had all of it
    ended_at: float
    outcome: str
    status: int  # 0: no answer
    nth: int  # on its connection

    @property
    def ok(self):
        return self.outcome == "ok"

    @property
    def answered(self):
        return self.outcome in ("ok", "status")

    @property
    def refused(self):
        return self.status in (429, 503)

    @property
    def took_ms(self):
        return (self.ended_at - self.due_at) * 1000

    def sent_before(self, moment):
        return 0 < self.sent_at <= moment


class Load:
    """A load generator that runs."""

    def __init__(self, name, process, files):
        self.name, self.process, self.files = name, process, files

    def end(self):
        """Has it send nothing more."""
        self.process.send_signal(signal.SIGINT)

    def finish(self):
        """Waits for its end. Returns: its report, and the requests in the order in which they were due."""
        if self.process.wait() != 0:
            raise CannotRun(f"{self.name} ended with {exit_text(self.process.returncode)}")
        report = json.loads(self.files["json"].read_text())
        if report["never_sent"]:
            raise CannotRun(f"{self.name} had too few connections for {report['never_sent']} requests")
        return report, read_requests(self.files["each"].read_text())


def read_requests(text):
    requests = []
    for line in text.splitlines()[1:]:
        number, *times, outcome, status, nth = line.split("\t")
        requests.append(Request(int(number), *map(float, times), outcome, int(status), int(nth)))
    return sorted(requests, key=lambda r: r.due_at)


def some(requests):
    """Returns: the first of them, for a message."""
    shown = ", ".join(f"number {r.number} {r.outcome} {r.status or ''}".rstrip() for r in requests[:5])
    return shown + (", ..." if len(requests) > 5 else "")


def due_between(requests, begin, end):
    return [r for r in requests if begin <= r.due_at < end]


def latencies(requests, at_least_if_failed=0):
    """Returns: how long each took, sorted. One that was not answered with ok cannot look fast by failing at once: it
    counts as at least so many milliseconds."""
    return sorted(r.took_ms if r.ok else max(r.took_ms, at_least_if_failed) for r in requests)


def quantile(ordered, share):
    """Returns: the least of the values that `share` of them do not exceed; None if there are none."""
    return ordered[max(0, math.ceil(len(ordered) * share - 1e-9) - 1)] if ordered else None


def bins(moments, begin, end, width):
    """Returns: a list of indices of `moments` for each piece of that width from `begin` to `end`."""
    pieces = [[] for _ in range(round((end - begin) / width))]
    for i, moment in enumerate(moments):
        n = math.floor((moment - begin) / width)
        if 0 <= n < len(pieces):
            pieces[n].append(i)
    return pieces
