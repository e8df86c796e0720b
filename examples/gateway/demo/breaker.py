# SPDX-License-Identifier: MIT
"""The upstream fails four of five calls for a while. The breaker opens and refuses what would fail, tries now and then
with a few calls, and closes when they succeed. No other guard is there, so that what one sees is the breaker."""

import dataclasses
import time

import load
from common import say

RATE = 200
ERRORS = 0.8
BEFORE_S, FAILING_S, AFTER_S = 1.5, 3.0, 2.0
LOOK_S = 0.025
STATES = ("closed", "half_open", "open")
SPARED_AT_LEAST = 0.8
RATE_OVER_S = 0.2
SENT = 'gateway_answers_sent_total{{name="http",class="{}"}}'


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    at: float  # seconds since the load began
    errors: float  # the share of calls that the upstream fails
    state: str
    reached: int  # requests that the upstream has seen
    sent: dict  # answers of the gateway by class of status, without those of /metrics


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
        figures = gateway.figures()
        sent = {kind: figures[SENT.format(kind)] - (len(looks) if kind == "2xx" else 0) for kind in ("5xx", "2xx")}
        looks.append(Look(now, errors, state_of(figures), upstream.control("stats", "GET")["requests"], sent))
        time.sleep(max(0.0, began + len(looks) * LOOK_S - time.monotonic()))
    _, requests = running.finish()
    for server in (gateway, upstream):
        server.stop()

    states = [look.state for look in looks]
    order = [state for n, state in enumerate(states) if n == 0 or state != states[n - 1]]
    failing = [look for look in looks if look.errors]
    offered = len(load.due_between(requests, began + failing[0].at, began + failing[-1].at))
    spared = 1 - (failing[-1].reached - failing[0].reached) / offered
    stage.row_of("errors, breaker", requests, f"{spared:.0%} of the calls to the failing upstream were spared it")
    if order[0] != "closed" or "open" not in order or order[-1] != "closed":
        stage.fail(f"breaker: its states were {', '.join(order)}, not closed, open and closed again")
    if spared < SPARED_AT_LEAST:
        stage.fail(f"breaker: it spared the failing upstream {spared:.0%} of the calls, "
                   f"at least {SPARED_AT_LEAST:.0%} is wanted")  # fmt: skip
    return {"changes": changes_of(looks), "sent": {kind: rate_of(looks, kind) for kind in ("5xx", "2xx")}}


def changes_of(looks):
    """Returns: seconds, errors in percent and the number of the state, where one of the two changes, and at the end."""
    rows = [(look.at, look.errors * 100, STATES.index(look.state)) for look in looks]
    return [row for n, row in enumerate(rows) if n in (0, len(rows) - 1) or row[1:] != rows[n - 1][1:]]


def rate_of(looks, kind):
    """Returns: seconds, and how many answers of that class were sent per second in the piece of time that ends there."""
    rows, last = [], looks[0]
    for look in looks:
        if look.at - last.at >= RATE_OVER_S:
            rows.append((look.at, (look.sent[kind] - last.sent[kind]) / (look.at - last.at)))
            last = look
    return rows


def state_of(figures):
    for state in STATES:
        if figures[f'cordon_circuit_breaker_state{{name="upstream",state="{state}"}}']:
            return state
    raise AssertionError("the breaker is in none of its states")
