# SPDX-License-Identifier: MIT
"""The upstream fails four of five calls for a while. The breaker opens and refuses what would fail, tries now and then
with a few calls, and closes when they succeed. No other guard is there, so that what one sees is the breaker."""

import time

import load
from common import say

RATE = 200
ERRORS = 0.8
BEFORE_S, FAILING_S, AFTER_S = 1.5, 3.0, 2.0
LOOK_S = 0.025
STATES = ("closed", "half_open", "open")
SPARED_AT_LEAST = 0.8


def run(stage):
    say(f"breaker   {RATE} requests/s for {BEFORE_S + FAILING_S + AFTER_S} s; the upstream fails {ERRORS:.0%} of them "
        f"for {FAILING_S:.0f} s")  # fmt: skip
    upstream = stage.upstream("upstream", "--latency-ms", 5, "--latency-dist", "constant")
    gateway = stage.gateway("gateway", upstream=upstream.address, attempt_ms=False, retry=False, bulkhead=False,
                            breaker={"window": 100, "min_calls": 20, "failure_rate": 0.5, "open_for_ms": 500})
    running = stage.load("breaker-load", gateway, RATE, BEFORE_S + FAILING_S + AFTER_S)
    began = time.monotonic()
    errors, looks, changes = 0.0, [], {BEFORE_S: ERRORS, BEFORE_S + FAILING_S: 0.0}
    while running.process.poll() is None:
        now = time.monotonic() - began
        for at in [at for at in changes if at <= now]:
            errors = changes.pop(at)
            upstream.control(f"errors?rate={errors}")
        looks.append((now, errors, state_of(gateway), upstream.control("stats", "GET")["requests"]))
        time.sleep(max(0.0, began + len(looks) * LOOK_S - time.monotonic()))
    _, requests = running.finish()
    for server in (gateway, upstream):
        server.stop()

    states = [look[2] for look in looks]
    order = [state for n, state in enumerate(states) if n == 0 or state != states[n - 1]]
    failing = [look for look in looks if look[1]]
    offered = len(load.due_between(requests, began + failing[0][0], began + failing[-1][0]))
    spared = 1 - (failing[-1][3] - failing[0][3]) / offered
    stage.row_of("errors, breaker", requests, f"{spared:.0%} of the calls to the failing upstream were spared it")
    if order[0] != "closed" or "open" not in order or order[-1] != "closed":
        stage.fail(f"breaker: its states were {', '.join(order)}, not closed, open and closed again")
    if spared < SPARED_AT_LEAST:
        stage.fail(f"breaker: it spared the failing upstream {spared:.0%} of the calls, "
                   f"at least {SPARED_AT_LEAST:.0%} is wanted")  # fmt: skip
    changed = [look for n, look in enumerate(looks) if n in (0, len(looks) - 1) or look[1:3] != looks[n - 1][1:3]]
    return {"changes": [(at, errors * 100, STATES.index(state)) for at, errors, state, _ in changed]}


def state_of(gateway):
    figures = gateway.figures()
    for state in STATES:
        if figures[f'cordon_circuit_breaker_state{{name="upstream",state="{state}"}}']:
            return state
    raise AssertionError("the breaker is in none of its states")
