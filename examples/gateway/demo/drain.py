# SPDX-License-Identifier: MIT
"""SIGTERM in mid-load: every request in flight is answered, and the gateway ends by itself with nothing left."""

import collections
import re
import signal
import subprocess
import time

import load
from common import CannotRun, exit_text, say

DRAIN_MS = 3000
RATE = 150  # requests per second, each of which takes 40 ms
CLIENTS = ("--connections", 64, "--requests-per-connection", 4, "--method", "BOTH")  # which connect anew all the time


def run(stage, gateway, executed):
    say(f"drain     {RATE} requests/s; SIGTERM after 2 s")
    running = stage.load("drain", gateway, RATE, 20, "--prefix", "drain", *CLIENTS)
    time.sleep(2)
    # Stopped for a moment, the gateway finds it all at once: the signal, requests that nobody has read yet, and
    # connections that wait to be accepted. That moment comes in every restart; here it comes for certain.
    gateway.process.send_signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    time.sleep(0.1)
    signalled_at = time.monotonic()
    gateway.process.send_signal(signal.SIGTERM)
    gateway.process.send_signal(signal.SIGCONT)
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
    running.end()
    _, requests = running.finish()
    flying = [r for r in requests if r.sent_before(signalled_at) and r.ended_at > signalled_at]
    stage.row_of("drain", requests, f"{len(flying)} in flight at SIGTERM, {ended}", [r for r in requests if r.answered])
    unread = [r for r in flying if not r.sent_before(stopped_at)]
    queued = [r for r in unread if r.nth == 1]
    stage.notes.append(f"in flight at SIGTERM: {len(flying)}, of them {len(unread) - len(queued)} not yet read "
                      f"and {len(queued)} on connections not yet accepted")  # fmt: skip
    join(stage, executed, requests, flying, signalled_at)
    check_report(stage)


def join(stage, executed, requests, flying, signalled_at):
    """Joins what the client saw with what the upstream executed. A request that was sent after the signal and
    reset unexecuted is no loss: the client may safely send it again."""
    if not flying:
        raise CannotRun("drain: no request was in flight at SIGTERM, so nothing was proved")
    times = collections.Counter(executed.read_text().splitlines())

    def executions(request):
        return times[f"drain-{request.number}"]

    # What is due an answer was sent before the signal, or is the first request on a connection that stood before
    # it, whether accepted or still queued.
    due = [r for r in requests if r.ended_at > signalled_at
           and (r.sent_before(signalled_at) or (r.nth == 1 and r.connected_at <= signalled_at))]  # fmt: skip
    early = [r for r in requests if not r.answered and r.ended_at <= signalled_at]
    lost = [r for r in due if not r.answered or r.status in (502, 503)]
    ambiguous = [r for r in requests if not r.answered and executions(r)]
    twice = [r for r in requests if executions(r) > 1]
    unknown = [r for r in requests if r.ok and not executions(r)]
    if early:
        stage.fail(f"drain: {len(early)} requests got no answer before SIGTERM: {load.some(early)}")
    if lost:
        stage.fail(f"drain: {len(lost)} requests in flight at SIGTERM were lost: {load.some(lost)}")
    if ambiguous:
        stage.fail(f"drain: {len(ambiguous)} requests were executed, but not answered: {load.some(ambiguous)}")
    if twice:
        stage.fail(f"drain: {len(twice)} requests were executed twice: {load.some(twice)}")
    if unknown:
        stage.fail(f"drain: {len(unknown)} requests are ok, but unknown to the upstream: {load.some(unknown)}")
    after = [r for r in requests if not r.sent_before(signalled_at) and r.ended_at > signalled_at]
    served = sum(r.answered for r in after)
    refused = sum(r.outcome == "refused" for r in after)
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
