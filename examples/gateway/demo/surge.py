# SPDX-License-Identifier: MIT
"""A client asks for ten times what the upstream can do. Without a limit nearly all that is done is done too late: a
queue grows until each request waits in it for longer than its client does. With one, what is too much is refused at
once, and what is let in is done in time. No other guard is there, so that what one sees is the limiter."""

import load
from common import say

SLOTS, EACH_MS = 4, 20
CAPACITY = SLOTS * 1000 // EACH_MS  # requests per second
LIMIT = CAPACITY * 95 // 100
RATE = 10 * CAPACITY
SECONDS = 4
DEADLINE_MS = 500
CONNECTIONS = 1500  # RATE for longer than the deadline
ALL_CONNECTED_S = 1  # by when each connection has had a request, before which it has to be made
GOODPUT_AT_LEAST = 0.9
REFUSAL_MS = 1.0
FIFTH = 0.2


def run(stage):
    say(f"surge     {RATE} requests/s for {SECONDS} s, of which the upstream can do {CAPACITY}; twice")
    curves = {}
    without, _, _ = measure(stage, "surge, no limiter", {}, curves)
    if without >= GOODPUT_AT_LEAST:
        stage.fail("surge: without a limiter it did no harm, so nothing was proved")

    def with_limiter():
        limit = {"per_second": LIMIT, "burst": 2 * SLOTS}
        goodput, refusal_ms, own_ms = measure(stage, "surge, limiter", limit, curves)
        wrong = []
        if goodput < GOODPUT_AT_LEAST:
            wrong.append(f"surge: goodput is {goodput:.0%} of capacity, at least {GOODPUT_AT_LEAST:.0%} is wanted")
        if refusal_ms is None or refusal_ms >= REFUSAL_MS:
            wrong.append(f"surge: refusals take {refusal_ms} ms at p99, less than {REFUSAL_MS} is wanted (the load "
                         f"generator itself was late by up to {own_ms:.1f} ms)")  # fmt: skip
        return wrong

    stage.judge(with_limiter)
    return {"curves": curves, "capacity": CAPACITY}


def measure(stage, act, client, curves):
    """Returns: goodput as a share of capacity, and milliseconds: what refusals take at p99, None if there are none, and
    how late the load generator was itself."""
    requests, own_ms = surge(stage, client)
    began = requests[0].due_at
    goodput = sum(r.ok for r in requests) / SECONDS / CAPACITY
    refusals = [r for r in requests if r.refused and r.due_at >= began + ALL_CONNECTED_S]
    refusal_ms = load.quantile(load.latencies(refusals), 0.99)
    seen = f"goodput {goodput:.0%} of capacity"
    if refusal_ms is not None:
        refusal_ms = round(refusal_ms, 2)
        seen += f", refused in {refusal_ms} ms at p99"
    stage.row_of(act, requests, seen)
    curves[f"with a limiter of {LIMIT}/s" if client else "without a limiter"] = ok_by_fifth(requests, began)
    return goodput, refusal_ms, own_ms


def surge(stage, client):
    """Returns: the requests, and by how many milliseconds the load generator was late itself."""
    upstream = stage.upstream("upstream", "--latency-ms", EACH_MS, "--latency-dist", "constant", "--concurrent", SLOTS)
    gateway = stage.gateway("gateway", "--max-connections", 2 * CONNECTIONS, upstream=upstream.address,
                            deadline_ms=DEADLINE_MS, attempt_ms=False, retry=False, breaker=False, bulkhead=False,
                            client=client)  # fmt: skip
    more = ("--connections", CONNECTIONS, "--timeout-ms", 2000)
    report, requests = stage.load("surge-load", gateway, RATE, SECONDS, *more).finish()
    for server in (gateway, upstream):
        server.stop()
    return requests, report["own_delay_ms"]


def ok_by_fifth(requests, begin):
    """Returns: the seconds, and how many requests per second were answered with ok in the fifth of a second there."""
    ended = [r.ended_at for r in requests if r.ok]
    return [(n * FIFTH, len(piece) / FIFTH) for n, piece in enumerate(load.bins(ended, begin, begin + SECONDS, FIFTH))]
