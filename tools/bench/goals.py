# SPDX-License-Identifier: MIT
"""The goals, each beside what was measured. They are goals, not gates: a machine in a slow state misses them all."""
from statistics import median

import stats
import times


class Unknown(Exception):
    """It was not measured in this run."""


def row(results, figure, name):
    found = results.get("times", {}).get(figure, {}).get("rows", {}).get(name, {})
    if not found.get("ns"):
        raise Unknown
    return found


def ratio(figure, name, base):
    return lambda results: stats.ratios(row(results, figure, name)["ns"], row(results, figure, base)["ns"])


def over(figure, name, base):
    return lambda results: stats.differences(row(results, figure, name)["ns"], row(results, figure, base)["ns"])


def ns(figure, name):
    def read(results):
        return row(results, figure, name)["ns"]
    read.figure = figure
    return read


def milliseconds(figure, name, items):
    """Of all items together."""
    def read(results):
        return [read.scale * each for each in row(results, figure, name)["ns"]]
    read.figure, read.scale = figure, items / 1e6
    return read


def floor(results, how):
    """The floor of the table that a time comes from: nanoseconds say little without it."""
    figure = getattr(how, "figure", None)
    rows = results.get("times", {}).get(figure, {}).get("rows", {})
    name = times.floor_of(rows)
    if not name or not rows[name].get("ns"):
        return ""
    return f"{stats.spread([getattr(how, 'scale', 1) * ns for ns in rows[name]['ns']])} {name.replace('_', ' ')}"


def memory(figure, name):
    def read(results):
        found = row(results, figure, name)
        if "bytes" not in found:
            raise Unknown
        return [round(found["bytes"])]  # the process grows by a few pages for other reasons
    return read


def count(work, compiler, which=0):
    def read(results):
        try:
            return [results["counts"][work][compiler][which]]
        except KeyError:
            raise Unknown from None
    return read


def allocations(work):
    return count(work, "g++", 1)


def seconds(header):
    def read(results):
        try:
            return results["include"][header]["seconds"]
        except KeyError:
            raise Unknown from None
    return read


def elsewhere(results):
    raise Unknown


MOST, LEAST = "at most", "at least"
NOT_PACKAGED = "not measured: no Debian package of the peer"

# (work, of what, unit, bound, limit, how it is found, or why it is not)
GOALS = [
    ("`co_await` of a ready child, with context and record", "times a bare await with recycled frames", MOST, 1.2,
     ratio("await_ready", "cordon", "floor")),
    ("", "instructions with g++", MOST, 140, count("await", "g++")),
    ("", "instructions with clang", MOST, 130, count("await", "clang++")),
    ("", "allocations", MOST, 0, allocations("await")),
    ("", "times faster than TooManyCooks", LEAST, 1.6, NOT_PACKAGED),
    ("spawn and join of a million on one thread, with records", "ns each", MOST, 70, ns("spawn_1m", "cordon")),
    ("", "bytes each", MOST, 176, memory("spawn_1m", "cordon")),
    ("", "bytes each without records", MOST, 112, memory("spawn_1m", "cordon_no_records")),
    ("the same on a pool of two threads", "ns each", MOST, 110, ns("pool_spawn_2t_1m", "cordon")),
    ("deadline around a ready child", "ns over the bare call, steady clock", MOST, 22,
     over("timeout_ready", "cordon", "bare")),
    ("", "allocations", MOST, 0, allocations("timeout_ready")),
    ("", "times faster than Go's context and select", LEAST, 12,
     ratio("timeout_ready", "go_with_timeout_select", "cordon")),
    ("", "times faster than folly", LEAST, 12, NOT_PACKAGED),
    ("deadline around one hop", "ns over the bare hop", MOST, 40, over("timeout_hop", "cordon", "bare")),
    ("", "allocations", MOST, 0, allocations("timeout_hop")),
    ("", "times faster than folly", LEAST, 5, NOT_PACKAGED),
    ("timer armed and cancelled, a million live, clock read", "ns", MOST, 33,
     ns("timer_at_once_1m", "cordon")),
    ("", "times faster than folly's HHWheelTimer", LEAST, 2, NOT_PACKAGED),
    ("stop callback registered and taken back", "ns", MOST, 6, ns("stop_callback", "cordon")),
    ("", "ns by two threads on one source (libunifex)", MOST, 12.1, ns("stop_callback_shared", "cordon")),
    ("stop request to 100,000 suspended waiters", "ns each, until all have ended", MOST, 20,
     ns("stop_100k_waiters", "cordon")),
    ("", "ns each, the request alone", MOST, 20, ns("stop_100k_waiters", "cordon_request")),
    ("", "times faster than the standard library, callbacks", LEAST, 20, ratio("stop_100k_callbacks", "std", "cordon")),
    ("semaphore, uncontended", "ns (TooManyCooks)", MOST, 6,
     ns("semaphore_uncontended", "cordon")),
    ("hop between two threads and back, both awake", "ns", MOST, 1000, ns("hop_round_trip_awake", "cordon")),
    ("dump of 100,000 tasks while two threads of a pool spawn others", "ms as text", MOST, 250,
     milliseconds("dump_100k_of_busy_pool", "cordon_text", 100_000)),
    ("", "ms as JSON", MOST, 250, milliseconds("dump_100k_of_busy_pool", "cordon_json", 100_000)),
    ("token bucket, a token that is there", "times faster than Go's x/time/rate", LEAST, 8,
     ratio("token_bucket_accept", "go_x_time_rate", "cordon")),
    ("", "times faster than folly's, with the steady clock", LEAST, 1.3, NOT_PACKAGED),
    ("", "times faster than folly's, two threads", LEAST, 1.2, NOT_PACKAGED),
    ("keyed limiter, 100,000 keys", "times faster than a ConcurrentHashMap of buckets, both folly's", LEAST, 5,
     NOT_PACKAGED),
    ("breaker, closed: permit and record, last 100 calls", "ns", MOST, 25, ns("breaker_last_calls", "cordon")),
    ("", "ns with a window of time, steady clock", MOST, 35, ns("breaker_last", "cordon")),
    ("", "ns with that and slow calls", MOST, 60, ns("breaker_last_slow", "cordon")),
    ("", "times faster than a mutex and a ring, two threads", LEAST, 2,
     ratio("breaker_2_threads", "mutex_and_ring", "cordon")),
    ("breaker, open: a refusal as a value", "ns, set for a clock of ticks", MOST, 12, ns("breaker_refusal", "cordon")),
    ("pipeline of five policies around a ready call", "ns over the bare call, set for a clock of ticks", MOST, 30,
     over("pipeline_of_five", "cordon", "bare")),
    ("", "allocations", MOST, 0, allocations("pipeline_of_five")),
    ("object pool: an object got and given back", "ns", MOST, 3.5, ns("object_pair", "cordon")),
    ("", "times faster than new and delete", LEAST, 3, ratio("object_pair", "new", "cordon")),
    ("", "ns got by one thread and given back by another", MOST, 12, ns("object_across_threads", "cordon")),
    ("", "bytes left of each object of 4 KiB, two idle epochs after ten thousand of them", MOST, 64,
     memory("object_burst", "cordon")),
    ("include `cordon.hpp`", "s with g++ -O0", MOST, 1.3, seconds("cordon/cordon.hpp")),
]


def table(results):
    rows = []
    for work, what, bound, limit, how in GOALS:
        goal = f"{bound} {limit:g} {what}" if limit else f"no {what}"
        if isinstance(how, str):
            rows.append((work, goal, how, "", ""))
            continue
        try:
            values = how(results)
        except Unknown:
            rows.append((work, goal, "not measured in this run", "", ""))
            continue
        met = median(values) <= limit if bound == MOST else median(values) >= limit
        shown = stats.spread(values) if len(values) > 1 else stats.number(values[0])
        rows.append((work, goal, shown, floor(results, how), "yes" if met else "no"))
    return stats.markdown(("work", "goal", "measured", "floor beside it", "met"), rows)
