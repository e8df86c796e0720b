# SPDX-License-Identifier: MIT
"""One in fifty calls is slow, as if one replica of many were: it takes 400 ms, where the others take 10 to 30. With a
hedge a call that takes longer than 95 of 100 do has a copy, and the first answer counts. No other guard is there, so
that what one sees is the hedge."""

import load
from common import say

RATE = 200
SECONDS, WARM_UP_S = 5, 0.5  # the hedge has to learn what is usual
USUAL_MS, SLOW_MS, SLOW_SHARE = 20, 400, 0.02
CONNECTIONS = 200
P99_AT_MOST = 0.5  # of that without
MORE_CALLS_AT_MOST = 0.1


def run(stage):
    say(f"hedging   {RATE} requests/s for {SECONDS} s, of which {SLOW_SHARE:.0%} are slow; twice")
    curves = {}
    without_ms, _ = measure(stage, "slow, no hedge", "without a hedge", False, curves)
    if without_ms < SLOW_MS:
        stage.fail(f"hedging: without a hedge p99 is {without_ms:.0f} ms, so nothing was proved")

    def with_hedge():
        hedged_ms, more = measure(stage, "slow, hedge", "with a hedge", {"percentile": 0.95}, curves)
        wrong = []
        if hedged_ms > P99_AT_MOST * without_ms:
            wrong.append(f"hedging: p99 is {hedged_ms:.0f} ms, at most {P99_AT_MOST:.0%} of {without_ms:.0f} is wanted")
        if more > MORE_CALLS_AT_MOST:
            wrong.append(f"hedging: {more:.1%} more calls were sent, at most {MORE_CALLS_AT_MOST:.0%} are wanted")
        return wrong

    stage.judge(with_hedge)
    return {"curves": curves}


def measure(stage, act, curve, hedge, curves):
    """Returns: p99 in milliseconds, and how many calls more than requests the upstream saw, as a share of these."""
    upstream = stage.upstream("upstream", "--latency-ms", USUAL_MS, "--latency-dist", "uniform",
                              "--slow-share", SLOW_SHARE, "--slow-ms", SLOW_MS)  # fmt: skip
    gateway = stage.gateway("gateway", upstream=upstream.address, attempt_ms=False, retry=False, breaker=False,
                            bulkhead=False, hedge=hedge)  # fmt: skip
    more = ("--warm-up", WARM_UP_S, "--connections", CONNECTIONS)
    _, requests = stage.load("hedging-load", gateway, RATE, SECONDS, *more).finish()
    calls, asked = upstream.control("stats", "GET")["requests"], round(RATE * (SECONDS + WARM_UP_S))
    for server in (gateway, upstream):
        server.stop()
    times = load.latencies(requests)
    stage.row_of(act, requests, f"{calls / asked - 1:.1%} more calls, the slowest {times[-1]:.0f} ms")
    curves[curve] = slower_than(times)
    return load.quantile(times, 0.99), calls / asked - 1


def slower_than(times):
    """Returns: milliseconds, and how many percent of the requests took longer. The slowest, than which none did, is
    left out, since zero has no place on a logarithmic scale."""
    return [(ms, 100 * (len(times) - n) / len(times)) for n, ms in enumerate(times[:-1], 1)]
