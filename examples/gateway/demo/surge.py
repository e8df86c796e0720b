# SPDX-License-Identifier: MIT
"""A client asks for ten times what the upstream can do. Without a guard nearly all that is done is done too late: a
queue grows until each request waits in it for longer than its client does. With a limiter what is too much is refused
at once, and what is let in is done in time; but somebody has to know what the upstream can do. With a shedder what has
waited too long is refused as soon as the queue is seen to stand, whatever the upstream can do. No other guard is there
but the bound that makes the queue, so that what one sees is the limiter, or the shedder."""

import load
from common import say

SLOTS, EACH_MS = 8, 40  # on average, 20 to 60
CAPACITY = SLOTS * 1000 // EACH_MS  # requests per second
PLACES = SLOTS + 2  # so that the upstream has something to do while refusals are written
LIMIT = CAPACITY * 95 // 100
RATE = 10 * CAPACITY
SECONDS = 4
QUIET_S = 2
DEADLINE_MS = 500
CONNECTIONS = 1500  # RATE for longer than the deadline
SHEDDER = {"target_ms": 10, "interval_ms": 50}
GOODPUT_AT_LEAST = 0.9
UNGUARDED_AT_MOST = 0.5
REFUSAL_MS = 1.0
SLOWER_AT_MOST = 2.0
FIFTH = 0.2


def run(stage):
    say(f"surge     {RATE} requests/s for {SECONDS} s, of which the upstream can do {CAPACITY}; three times")
    curves = {}
    without = measure(stage, "surge, no guard", "without a guard", {}, curves)
    if without["goodput"] >= UNGUARDED_AT_MOST:
        stage.fail(f"surge: without a guard goodput is {without['goodput']:.0%} of capacity, so nothing was proved")

    def with_limiter():
        client = {"per_second": LIMIT, "burst": 2 * SLOTS}
        seen = measure(stage, "surge, limiter", f"with a limiter of {LIMIT}/s", {"client": client}, curves)
        wrong = too_little_done(seen)
        if seen["refusal_ms"] is None or seen["refusal_ms"] >= REFUSAL_MS:
            wrong.append(f"surge: refusals take {seen['refusal_ms']} ms at p99, less than {REFUSAL_MS} is wanted (the "
                         f"load generator itself was late by up to {seen['own_ms']:.1f} ms)")  # fmt: skip
        return wrong

    def with_shedder():
        requests, _ = surge(stage, {"shedder": SHEDDER}, CAPACITY // 2, QUIET_S)
        quiet_ms = load.quantile(load.latencies(requests), 0.99)
        stage.row_of("quiet, shedder", requests, f"half of capacity, p99 {quiet_ms:.0f} ms")
        seen = measure(stage, "surge, shedder", "with a shedder", {"shedder": SHEDDER}, curves)
        wrong = too_little_done(seen)
        if seen["served_ms"] is None or seen["served_ms"] > SLOWER_AT_MOST * quiet_ms:
            wrong.append(f"surge: what is served takes {seen['served_ms']} ms at p99, at most {SLOWER_AT_MOST} times "
                         f"the {quiet_ms:.1f} ms of quiet is wanted")  # fmt: skip
        return wrong

    stage.judge(with_limiter)
    stage.judge(with_shedder)
    return {"curves": curves, "capacity": CAPACITY}


def too_little_done(seen):
    if seen["goodput"] >= GOODPUT_AT_LEAST:
        return []
    return [f"surge: goodput is {seen['goodput']:.0%} of capacity, at least {GOODPUT_AT_LEAST:.0%} is wanted"]


def measure(stage, act, curve, guard, curves):
    """Returns: goodput as a share of capacity, and milliseconds: what requests that are served, and refusals, take at
    p99, None if there are none, and how late the load generator was itself."""
    requests, own_ms = surge(stage, guard, RATE, SECONDS)
    began = requests[0].due_at
    goodput = sum(r.ok for r in requests) / SECONDS / CAPACITY
    served_ms, refusal_ms = p99_of(requests)
    seen = f"goodput {goodput:.0%} of capacity"
    if refusal_ms is not None:
        seen += f", served in {served_ms} ms, refused in {refusal_ms} ms at p99"
    stage.row_of(act, requests, seen)
    curves[curve] = ok_by_fifth(requests, began)
    return {"goodput": goodput, "refusal_ms": refusal_ms, "served_ms": served_ms, "own_ms": own_ms}


def p99_of(requests):
    """Returns: what requests that are served, and refusals, take at p99; None if there are none."""
    times = (load.latencies(r for r in requests if r.ok), load.latencies(r for r in requests if r.refused))
    return [round(load.quantile(t, 0.99), 2) if t else None for t in times]


def surge(stage, guard, rate, seconds):
    """Returns: the requests, and by how many milliseconds the load generator was late itself."""
    upstream = stage.upstream("upstream", "--latency-ms", EACH_MS, "--latency-dist", "uniform", "--concurrent", SLOTS)
    gateway = stage.gateway("gateway", "--max-connections", 2 * CONNECTIONS, upstream=upstream.address,
                            deadline_ms=DEADLINE_MS, attempt_ms=False, retry=False, breaker=False, bulkhead=False,
                            requests={"concurrent": PLACES, "waiting": CONNECTIONS}, **guard)  # fmt: skip
    more = ("--connections", CONNECTIONS, "--timeout-ms", 2000)
    report, requests = stage.load("surge-load", gateway, rate, seconds, *more).finish()
    for server in (gateway, upstream):
        server.stop()
    return requests, report["own_delay_ms"]


def ok_by_fifth(requests, begin):
    """Returns: the seconds, and how many requests per second were answered with ok in the fifth of a second there."""
    ended = [r.ended_at for r in requests if r.ok]
    return [(n * FIFTH, len(piece) / FIFTH) for n, piece in enumerate(load.bins(ended, begin, begin + SECONDS, FIFTH))]
