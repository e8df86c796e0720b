# SPDX-License-Identifier: MIT
"""SIGTERM in mid-load: every request in flight is answered, and the gateway ends by itself with nothing left."""

import re
import signal
import subprocess
import time

import ledger
from common import CannotRun, exit_text, say

DRAIN_MS = 3000
RATE = 150  # requests per second, each of which takes 40 ms


def run(stage, gateway, executed):
    say(f"drain     {RATE} requests/s; SIGTERM after 2 s")
    marker = stage.work / "signalled_at"
    client = ledger.start_client(stage, gateway, "drain", RATE, "--seconds", 20, "--marker-file", marker)
    time.sleep(2)
    # Stopped for a moment, the gateway finds it all at once: the signal, requests that nobody has read yet, and
    # connections that wait to be accepted. That moment comes in every restart; here it comes for certain.
    gateway.process.send_signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    time.sleep(0.1)
    signalled_at = time.monotonic()
    gateway.process.send_signal(signal.SIGTERM)
    gateway.process.send_signal(signal.SIGCONT)
    marker.write_text(f"{signalled_at:.6f}", encoding="ascii")
    try:
        gateway.process.wait(DRAIN_MS / 1000 + 2)
        took_ms = (time.monotonic() - signalled_at) * 1000
        ended = f"ended by itself {took_ms:.0f} ms after SIGTERM"
        if gateway.process.returncode != 0:
            stage.fail(f"drain: the gateway ended with {exit_text(gateway.process.returncode)}")
    except subprocess.TimeoutExpired:
        ended = "did not end"
        stage.fail(f"drain: the gateway did not end within {DRAIN_MS + 2000} ms of SIGTERM")
        gateway.process.kill()
        gateway.process.wait()
    time.sleep(0.2)
    summary, rows = ledger.finish_client(stage, "drain", client)
    flying = [row for row in rows if row["in_flight"] == "1"]
    ledger.add_row(stage, "drain", summary, rows, f"{len(flying)} in flight at SIGTERM, {ended}")
    unread = [row for row in flying if not ledger.sent_before(stopped_at, row)]
    queued = [row for row in unread if row["nth"] == "1"]
    stage.notes.append(f"in flight at SIGTERM: {len(flying)}, of them {len(unread) - len(queued)} not yet read "
                      f"and {len(queued)} on connections not yet accepted")  # fmt: skip
    join(stage, executed, rows, flying, signalled_at)
    check_report(stage)


def join(stage, executed, rows, flying, signalled_at):
    """Joins what the client saw with what the upstream executed. A request that was sent after the signal and
    reset unexecuted is no loss: the client may safely send it again."""
    times = {}
    for line in executed.read_text().splitlines():
        times[line] = times.get(line, 0) + 1
    if not flying:
        raise CannotRun("drain: no request was in flight at SIGTERM, so nothing was proved")

    # What is due an answer was sent before the signal, or is the first request on a connection that stood before
    # it, whether accepted or still queued.
    open_at_signal = [row for row in rows if float(row["ended_at"]) > signalled_at]
    due = [row for row in open_at_signal if ledger.sent_before(signalled_at, row)
           or (row["nth"] == "1" and float(row["connected_at"]) <= signalled_at)]  # fmt: skip
    early = [row for row in rows if not ledger.answered(row) and float(row["ended_at"]) <= signalled_at]
    lost = [row for row in due if not ledger.answered(row) or ledger.turned_away(row)]
    ambiguous = [row for row in rows if not ledger.answered(row) and row["id"] in times]
    twice = [row for row in rows if times.get(row["id"], 0) > 1]
    unknown = [row for row in rows if row["outcome"] == "ok" and row["id"] not in times]
    if early:
        stage.fail(f"drain: {len(early)} requests got no answer before SIGTERM: {ledger.some(early)}")
    if lost:
        stage.fail(f"drain: {len(lost)} requests in flight at SIGTERM were lost: {ledger.some(lost)}")
    if ambiguous:
        stage.fail(f"drain: {len(ambiguous)} requests were executed, but not answered: {ledger.some(ambiguous)}")
    if twice:
        stage.fail(f"drain: {len(twice)} requests were executed twice: {ledger.some(twice)}")
    if unknown:
        stage.fail(f"drain: {len(unknown)} requests are ok, but unknown to the upstream: {ledger.some(unknown)}")
    after = [row for row in rows if not ledger.sent_before(signalled_at, row)]
    served = sum(ledger.answered(row) for row in after)
    refused = sum(row["outcome"] == "refused" for row in after)
    stage.notes += [
        f"lost: {len(lost)}; executed but not answered: {len(ambiguous)}; executed twice: {len(twice)}",
        f"tried after SIGTERM: {len(after)}, of them {served} answered, {refused} refused, "
        f"{len(after) - served - refused} reset",
    ]


def check_report(stage):
    """The gateway's own account, which it prints when it ends."""
    lines = stage.output("gateway").splitlines()
    report = dict(line.split("=", 1) for line in lines if re.fullmatch(r"\w+=\S+", line))
    left = [line for line in lines if line.startswith("left:")]
    stage.notes.append("gateway: " + " ".join(f"{key}={value}" for key, value in report.items()))
    stage.notes += left
    if "tasks_left" not in report or "deadline_hits" not in report:
        stage.fail("drain: the gateway's report lacks tasks_left or deadline_hits")
        return
    if report["tasks_left"] != "0":
        stage.fail(f"drain: tasks leaked, tasks_left={report['tasks_left']} {' '.join(left)}")
    if report["deadline_hits"] == "0":
        stage.fail("hang: the hang caused no deadline hit, deadline_hits=0")
