# SPDX-License-Identifier: MIT
"""One of two replicas has become slow: each of its calls takes 400 ms, where those of the other take 10 to 30. Calls go
to them in turn, so half are slow. With a hedge one that takes longer than 40 ms has a copy, which goes to the other
replica, and the first answer counts. That is half a call more for each call: the budget has to allow so many. With the
usual budget of a fifth most slow calls have no copy, and the replica that is well has no more to do than that. No other
guard is there, so that what one sees is the hedge."""

import load
from common import say

RATE = 200
SECONDS, WARM_UP_S = 3, 1.5  # so that what a budget has at the beginning is used up
USUAL_MS, SLOW_MS, DELAY_MS = 20, 400, 40
AT_ANY_RATE = 100  # copies that a budget grants in the ten seconds that it looks at, however few calls there are
CONNECTIONS = 200
P99_AT_MOST = 0.5  # of that without
ENOUGH, USUAL = 0.5, 0.2


def run(stage):
    say(f"hedging   {RATE} requests/s for {SECONDS} s to two replicas, one of which is slow; three times")
    curves = {}
    without_ms, _ = measure(stage, "slow, no hedge", "no hedge", False, USUAL, curves)
    if without_ms < SLOW_MS:
        stage.fail(f"hedging: without a hedge p99 is {without_ms:.0f} ms, so nothing was proved")

    def with_hedge():
        hedge = {"delay_ms": DELAY_MS}
        bound_ms, bound_more = measure(stage, "slow, usual budget", f"hedge, budget {USUAL}", hedge, USUAL, curves)
        hedged_ms, more = measure(stage, "slow, hedge", f"hedge, budget {ENOUGH}", hedge, ENOUGH, curves)
        wrong = []
        if hedged_ms > P99_AT_MOST * without_ms:
            wrong.append(f"hedging: p99 is {hedged_ms:.0f} ms, at most {P99_AT_MOST:.0%} of {without_ms:.0f} is wanted")
        if bound_ms < SLOW_MS:
            wrong.append(f"hedging: with the usual budget p99 is {bound_ms:.0f} ms, so that it bounds nothing")
        for name, seen, ratio in (("usual", bound_more, USUAL), ("larger", more, ENOUGH)):
            if seen > most_more(ratio):
                wrong.append(f"hedging: with the {name} budget {seen:.1%} more calls were sent, at most "
                             f"{most_more(ratio):.1%} are allowed")  # fmt: skip
        return wrong

    stage.judge(with_hedge)
    return {"curves": curves}


def asked():
    return round(RATE * (SECONDS + WARM_UP_S))


def most_more(ratio):
    """Returns: how many calls more than requests a budget allows, as a share of these."""
    return ratio + AT_ANY_RATE / asked()


def measure(stage, act, curve, hedge, ratio, curves):
    """Returns: p99 in milliseconds, and how many calls more than requests the replicas saw, as a share of these."""
    well = stage.upstream("well", "--latency-ms", USUAL_MS, "--latency-dist", "uniform")
    slow = stage.upstream("slow", "--latency-ms", SLOW_MS, "--latency-dist", "constant")
    gateway = stage.gateway("gateway", upstream=[well.address, slow.address], attempt_ms=False, breaker=False,
                            bulkhead=False, hedge=hedge, retry={"attempts": 1, "budget_ratio": ratio})  # fmt: skip
    more = ("--warm-up", WARM_UP_S, "--connections", CONNECTIONS)
    _, requests = stage.load("hedging-load", gateway, RATE, SECONDS, *more).finish()
    calls = sum(replica.control("stats", "GET")["requests"] for replica in (well, slow))
    for server in (gateway, well, slow):
        server.stop()
    times = load.latencies(requests)
    share = sum(time >= SLOW_MS for time in times) / len(times)
    stage.row_of(act, requests, f"{calls / asked() - 1:.0%} more calls, {share:.0%} took {SLOW_MS} ms and more")
    curves[curve] = slower_than(times)
    return load.quantile(times, 0.99), calls / asked() - 1


def slower_than(times):
    """Returns: milliseconds, and how many percent of the requests took longer. The slowest, than which none did, is
    left out, since zero has no place on a logarithmic scale."""
    return [(ms, 100 * (len(times) - n) / len(times)) for n, ms in enumerate(times[:-1], 1)]
