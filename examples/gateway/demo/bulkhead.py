# SPDX-License-Identifier: MIT
"""One dependency hangs. Behind the gateway are two, each with a route of its own, and all requests share the places in
which they are passed on, as they share the workers or the memory of any server. Without a bulkhead the requests that
hang take all places, and those of the other route wait for one until their time is over. With one they get so many and
no more. No other guard is there, so that what one sees is the bulkhead."""

import time

import load
from common import say

PLACES = 64
BULKHEAD = 16  # of the places, for the route that will hang
DEADLINE_MS = 1000
RATE = 300  # requests per second of the other route, each of 20 to 60 ms: 12 places
HANGING_RATE = 150  # would hold 150 places when each waits for its deadline
QUIET_S, HANG_S, AFTER_S, WARM_UP_S = 2.0, 2.0, 1.5, 0.5
WORSE_AT_MOST = 1.5
TENTH = 0.1


def run(stage):
    say(f"bulkhead  {RATE} requests/s beside {HANGING_RATE}/s of a route that hangs for {HANG_S:.0f} s; twice")
    curves = {}
    without = measure(stage, "hang, no bulkhead", False, curves)
    if without <= WORSE_AT_MOST:
        stage.fail("bulkhead: without one the hang did no harm, so nothing was proved")

    def with_bulkhead():
        ratio = measure(stage, "hang, bulkhead", {"concurrent": BULKHEAD, "waiting": 0}, curves)
        text = f"bulkhead: the other route's p99 is {ratio:.2f} times that of quiet, allowed is {WORSE_AT_MOST}"
        return [text] if ratio > WORSE_AT_MOST else []

    stage.judge(with_bulkhead)
    return {"curves": curves, "hang": (QUIET_S, QUIET_S + HANG_S), "deadline_ms": DEADLINE_MS}


def measure(stage, act, bulkhead, curves):
    """Returns: how many times longer the other route's p99 is while the first one hangs."""
    requests, hung_at, resumed_at = hang(stage, bulkhead)
    quiet = load.due_between(requests, hung_at - QUIET_S, hung_at)
    hanging = load.due_between(requests, hung_at, resumed_at)
    before, during = (load.quantile(load.latencies(r, DEADLINE_MS), 0.99) for r in (quiet, hanging))
    stage.row_of(act, hanging, f"the other route's p99 {during / before:.2f} times that of quiet, {before:.0f} ms")
    curves["with a bulkhead" if bulkhead else "without a bulkhead"] = slowest_by_tenth(requests, hung_at)
    return during / before


def hang(stage, bulkhead):
    """Returns: the requests of the other route, and when the hang began and ended."""
    options = ("--latency-ms", 40, "--latency-dist", "uniform")
    items, reports = stage.upstream("items", *options), stage.upstream("reports", *options)
    gateway = stage.gateway(
        "gateway", deadline_ms=DEADLINE_MS, attempt_ms=False, retry=False, breaker=False, bulkhead=False,
        requests={"concurrent": PLACES, "waiting": 10 * PLACES},
        routes={"/items": {"upstream": items.address}, "/reports": {"upstream": reports.address, "bulkhead": bulkhead}},
    )  # fmt: skip
    more = ("--warm-up", WARM_UP_S, "--connections", 1000)
    seconds = QUIET_S + HANG_S + AFTER_S
    loads = [stage.load("items-load", gateway, RATE, seconds, "--path", "/items/5", *more),
             stage.load("reports-load", gateway, HANGING_RATE, seconds, "--path", "/reports/5", *more)]  # fmt: skip
    time.sleep(WARM_UP_S + QUIET_S)
    hung_at = time.monotonic()
    reports.control("hang?on=1")
    time.sleep(HANG_S)
    reports.control("hang?on=0")
    resumed_at = time.monotonic()
    (_, requests), _ = (running.finish() for running in loads)
    for server in (gateway, items, reports):
        server.stop()
    return requests, hung_at, resumed_at


def slowest_by_tenth(requests, hung_at):
    """Returns: the seconds, and the milliseconds of the slowest request that was due in the tenth of a second there."""
    begin = hung_at - QUIET_S
    pieces = load.bins([r.due_at for r in requests], begin, begin + QUIET_S + HANG_S + AFTER_S, TENTH)
    return [(n * TENTH, load.latencies([requests[i] for i in piece], DEADLINE_MS)[-1])
            for n, piece in enumerate(pieces) if piece]  # fmt: skip
