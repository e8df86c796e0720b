# SPDX-License-Identifier: MIT
"""The gateway stands, under load and when its upstream hangs.

  steady  wrk over 32 keep-alive connections; no socket error
  paced   loadgen, so many requests per second whatever becomes of them; none ambiguous, none lost
  hang    the upstream hangs for two seconds under load; deadlines answer 504, and service resumes

Then drain.py ends it.
"""

import re
import shutil
import time

import drain
import load
from common import CannotRun, exit_text, found, say

DEADLINE_MS = 400
PACED_RATE = 600  # requests per second of loadgen, of which each takes 40 ms
RATE = 150  # requests per second in the hang; 60 are in flight then


def run(stage):
    if not shutil.which("wrk"):
        raise CannotRun("wrk is not installed (Debian: apt-get install wrk)")
    say("start     upstream (20 to 60 ms a request) and gateway "
        f"(deadline {DEADLINE_MS} ms, drain {drain.DRAIN_MS} ms), one thread each")
    executed = stage.work / "executed.txt"
    upstream = stage.upstream("upstream", "--latency-ms", 40, "--latency-dist", "uniform", "--ledger", executed)
    gateway = stage.gateway("gateway", "--upstream", upstream.address, "--deadline-ms", DEADLINE_MS,
                            "--drain-ms", drain.DRAIN_MS, "--max-connections", 512)  # fmt: skip
    steady(stage, gateway)
    paced(stage, gateway, executed)
    hang(stage, upstream, gateway)
    if gateway.process.poll() is None:
        drain.run(stage, gateway, executed)
    else:
        stage.fail(f"the gateway ended with {exit_text(gateway.process.returncode)}")
    upstream.stop()


def steady(stage, gateway):
    say("steady    wrk, 32 connections, 8 s")
    wrk = stage.start("wrk", "wrk", "-t2", "-c32", "-d8s", "--latency", "--timeout", "2s",
                      f"http://{gateway.address}/item")  # fmt: skip
    if wrk.wait() != 0:
        raise CannotRun(f"wrk ended with {exit_text(wrk.returncode)}")
    text = stage.output("wrk")
    requests = int(found(r"(\d+) requests in", text) or 0)
    rate = float(found(r"Requests/sec:\s+([\d.]+)", text) or 0)
    not_ok = int(found(r"Non-2xx or 3xx responses: (\d+)", text) or 0)
    socket_errors = found(r"Socket errors: (.*)", text)
    quantiles = [wrk_ms(found(rf"{share}%\s+([\d.]+(?:us|ms|s))", text)) for share in (50, 99)]
    if socket_errors:
        stage.fail(f"steady: wrk reported socket errors: {socket_errors}")
    if requests == 0 or not_ok > requests // 100:
        stage.fail(f"steady: {not_ok} of {requests} answers were not 2xx")
    seen = f"{rate:,.0f} requests/s, {'socket errors' if socket_errors else 'no socket error'}"
    stage.row("steady", requests, requests - not_ok, "-", "-", *quantiles, seen)


def paced(stage, gateway, executed):
    say(f"paced     loadgen, {PACED_RATE} requests/s, 4 s after 1 s of warm-up")
    running = stage.load("loadgen", gateway, PACED_RATE, 4, "--warm-up", 1, "--ledger", executed)
    report, requests = running.finish()
    outcomes, late = report["outcomes"], report["statuses"].get("504", 0)
    unanswered = {name: n for name, n in outcomes.items() if n and name not in ("ok", "status")}
    if unanswered:
        stage.fail(f"paced: requests got no answer: {unanswered}")
    if not requests or outcomes["status"] > len(requests) // 100:
        stage.fail(f"paced: {outcomes['status']} of {len(requests)} answers were not 2xx")
    # A request whose deadline passed is answered 504, and may have been executed all the same.
    ambiguous = max(0, report["ambiguous"] - late)
    if ambiguous or report["lost"] or report["executed_twice"]:
        stage.fail(f"paced: {ambiguous} requests were executed but not answered, {report['lost']} lost, "
                   f"{report['executed_twice']} executed twice")  # fmt: skip
    seen = f"{report['sent_per_s']:,.0f} requests/s, ambiguous {report['ambiguous']}, lost {report['lost']}"
    stage.row_of("paced", requests, seen)


def hang(stage, upstream, gateway):
    say(f"hang      {RATE} requests/s for 6 s; the upstream hangs from 1.5 s to 3.5 s")
    running = stage.load("hang", gateway, RATE, 6, *drain.CLIENTS)
    time.sleep(1.5)
    upstream.control("hang?on=1")
    time.sleep(2)
    upstream.control("hang?on=0")
    resumed_at = time.monotonic()
    _, requests = running.finish()

    late = [r for r in requests if r.status == 504]
    unanswered = [r for r in requests if not r.answered]
    later = [r.ended_at for r in requests if r.ok and not r.sent_before(resumed_at)]
    proved = "no 504"
    if late:
        slowest = max(r.ended_at - r.sent_at for r in late) * 1000
        proved = f"504 after {slowest:.0f} ms at most (deadline {DEADLINE_MS} ms)"
    else:
        stage.fail("hang: the upstream hung for 2 s and no request was answered 504")
    if unanswered:
        stage.fail(f"hang: {len(unanswered)} requests got no answer: {load.some(unanswered)}")
    if later:
        proved += f", ok again {(min(later) - resumed_at) * 1000:.0f} ms after the hang"
    else:
        stage.fail("hang: no request succeeded after the hang was over")
    stage.row_of("hang", requests, proved)


def wrk_ms(text):
    if text is None:
        return None
    amount, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(amount) * {"us": 0.001, "ms": 1, "s": 1000}[unit]
