# SPDX-License-Identifier: MIT
"""Runs the benchmarks. A row is called figure/row, and its repetitions are compared with those of the same figure."""
import random
import shlex
import sys

import google_rows
import peer_rows
import stats

# What each figure is, in the order of the page; `{}` after a colon says what one operation is.
FIGURES = {
    "await_ready": "`co_await` of a child that ends at once",
    "timeout_ready": "A deadline around a child that ends at once",
    "timeout_hop": "A deadline around an operation that goes once around its loop",
    "yield": "Once around the loop",
    "spawn_1k": "A thousand empty tasks, spawned and joined; for each",
    "spawn_100k": "A hundred thousand empty tasks, spawned and joined; for each",
    "spawn_1m": "A million empty tasks, spawned and joined; for each",
    "stop_callback": "A stop callback, registered and taken back",
    "stop_callback_shared": "The same by two threads on one source; the time of both for all of them",
    "stop_source": "A stop source, made and stopped",
    "stop_source_with_callback": "The same with a callback",
    "stop_100k_callbacks": "A stop request to a hundred thousand callbacks; for each",
    "stop_100k_waiters": "A stop request to a hundred thousand suspended coroutines, until they have ended; for each",
    "semaphore_uncontended": "A semaphore that nobody else wants, acquired and released",
    "semaphore_ping_pong": "Two tasks that wake each other; for each switch",
    "semaphore_ping_pong_2_threads": "The same on two threads that are awake; for each switch",
    "hop_round_trip_awake": "To another thread's loop and back, both awake",
    "hop_round_trip_asleep": "The same, each asleep until it is woken",
    "timer_at_once_10k_live": "A timer armed and cancelled at once, ten thousand others pending",
    "timer_at_once_1m": "The same with a million others",
    "timer_cancel_all_1m": "A million timers armed, then all cancelled; for each",
    "timer_fire_all": "A hundred thousand timers armed, then all fired; for each",
    "frame_pair": "A frame of 112 bytes, taken and given back",
    "frame_1000": "A thousand frames taken, then given back; for each",
    "frame_across_threads": "Frames taken by one thread and given back by another; for each",
    "asio_echo": "64 bytes to and fro through a local socket, on Asio",
    "asio_post": "Once around an `asio::io_context`",
    "pool_spawn_1t_1m": "A million empty tasks on a pool of one thread, spawned there and joined; for each",
    "pool_spawn_2t_1m": "The same on two threads",
    "pool_spawn_1t_1k": "A thousand of them on one thread",
    "pool_spawn_2t_1k": "A thousand of them on two",
    "pool_spawn_outside_1t_1m": "A million, spawned by a thread that is not the pool's, on one thread; for each",
    "pool_spawn_outside_2t_1m": "The same on two threads",
    "pool_spawn_outside_2t_100": "A hundred, on a pool of two threads or on a thread each; for each",
    "pool_hop_round_trip_awake": "To another pool and back, both awake",
    "pool_hop_round_trip_parked": "The same, both asleep",
    "pool_yield_1t": "Once around a pool of one thread",
    "pool_yield_2t": "Once around a pool of two",
    "pool_fib25_1t": "fib(25) by fork and join, on one thread; for each task",
    "pool_fib25_2t": "The same on two threads",
    "pool_skynet_1t": "A tree of 111,111 tasks, ten children each, on one thread; for each",
    "pool_skynet_2t": "The same on two threads",
    "channel_uncontended": "An item through a channel that nobody else uses",
    "channel_stream": "A stream of items from one task to another; for each",
    "channel_rendezvous": "The same without room",
    "channel_stream_2_threads": "A stream from one thread to another; for each",
    "token_bucket_accept": "A token that is there",
    "token_bucket_accept_2_threads": "The same by two threads on one bucket; the time of both for all of them",
    "token_bucket_refuse": "A token that is not there",
    "token_bucket_refuse_2_threads": "The same by two threads on one bucket; the time of both for all of them",
    "keyed_limiter_integers": "A token that is there, of one of a hundred thousand keys at random, which are integers",
    "keyed_limiter_integers_2_threads": "The same by two threads; the time of both for all of them",
    "keyed_limiter_strings": "The same with strings",
    "keyed_limiter_refuse": "A token that is not there, of one of a thousand keys in turn",
    "keyed_limiter_refuse_2_threads": "The same by two threads; the time of both for all of them",
    "keyed_limiter_new_keys": "A token of a key that was never seen before",
    "bulkhead": "A place that is free, taken and given back",
    "bulkhead_2_threads": "The same by two threads; the time of both for all of them",
    "bulkhead_refuse": "A place that is not free",
    "bulkhead_refuse_2_threads": "The same by two threads; the time of both for all of them",
    "breaker_last_calls": "A call through a closed breaker over the last 100 calls, which succeeds",
    "breaker_last_calls_slow": "The same with a bound on slow calls",
    "breaker_last": "The same over the last ten seconds",
    "breaker_last_slow": "That with a bound on slow calls",
    "breaker_2_threads": "The same by two threads on one breaker; the time of both for all of them",
    "breaker_refusal": "A call that an open breaker refuses",
    "breaker_refusal_2_threads": "The same by two threads on one breaker; the time of both for all of them",
    "pipeline_of_five": "A call through a fallback, retries, a breaker, a token bucket and a bulkhead, all of which let it "
                        "pass, and which is ready",
    "pipeline_of_five_2_threads": "The same by two threads that share the guards; the time of both for all of them",
    "pipeline_on_a_thread": "A plain function, called through those five policies on a thread",
    "pipeline_refusal": "A call that an open breaker in a pipeline refuses",
    "pipeline_refusal_2_threads": "The same by two threads on one breaker; the time of both for all of them",
    "hedge_ready": "A hedged call that ends at once",
    "hedge_hop": "A hedged call that goes once around its loop, and has no copy",
    "hedge_copy": "The same with a copy at once: two calls, of which one is stopped",
    "adaptive_limiter": "A permit of a limit that measures, taken and told of a success",
    "adaptive_limiter_2_threads": "The same by two threads on one limit; the time of both for all of them",
    "object_pair": "An object of 256 bytes, got from a pool and given back",
    "object_pair_2_threads": "The same by two threads, each for itself, on one pool; the time of both for all of them",
    "object_64": "64 objects got, then given back; for each",
    "object_across_threads": "Objects got by one thread and given back by another; for each",
    "object_across_threads_used": "The same, each object written by the one and read by the other; for each",
    "object_burst": "Ten thousand objects of 4 KiB got, filled and given back; for each, and what is left of each when nobody "
                    "has needed them for two epochs",
    "resource_pair": "A resource that is idle, borrowed and given back",
    "resource_pair_2_threads": "The same by two threads on one pool; the time of both for all of them",
    "dump_100k": "A dump of a hundred thousand tasks of three frames; for each",
    "dump_100k_of_busy_pool": "The same, by the wall, while two threads of a pool spawn and end other tasks; for each",
    "metrics_1k": "A look at the metrics of a thousand semaphores, two figures each; for each",
}


def figures(root, only):
    """{figure: {program: [rows]}}, in the order of the page; unknown ones last."""
    table = {name: {} for name in FIGURES}
    for program in google_rows.programs(root) + peer_rows.programs(root):
        for name in kind(program).listed(program):
            figure, row = name.split("/")[:2]
            table.setdefault(figure, {}).setdefault(program, []).append(row)
    return {figure: by for figure, by in table.items() if by and only.search(figure)}


def kind(program):
    return peer_rows if program.name in peer_rows.LANGUAGES else google_rows


def measure(root, only, quick):
    """{figure: {"commands": [...], "rows": {row: {...}}}}. The processes of all figures run in random order."""
    jobs, results = [], {}
    for figure, by_program in figures(root, only).items():
        results[figure] = {"commands": [], "rows": {row: {} for rows in by_program.values() for row in rows}}
        alone = figure.endswith("_1m")
        repetitions = (2 if alone else 3) if quick else (5 if alone else 9)
        for program, rows in by_program.items():
            for row in rows if alone else [None]:
                line = kind(program).command(program, figure, row, repetitions, 0.01 if quick else 0.05)
                jobs.append((figure, kind(program).run, line, 1 if alone else 0))
            shown = kind(program).command(program.relative_to(root), figure, "<row>" if alone else None, repetitions,
                                          0.05)
            results[figure]["commands"].append(shlex.join(shown))
    for sentence in peer_rows.left_out(root):
        print(sentence, file=sys.stderr)
    random.shuffle(jobs)
    for number, (figure, run, line, drop) in enumerate(jobs, 1):
        if sys.stderr.isatty():
            print(f"\r\033[K{number}/{len(jobs)} {figure}", end="", file=sys.stderr)
        for row, values in run(line, drop).items():
            results[figure]["rows"].setdefault(row, {}).update(values)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return results


def broken(results):
    return [f"{figure}/{row}: {values.get('error', 'no figures')}" for figure, found in results.items()
            for row, values in found["rows"].items() if "error" in values or not values.get("ns")]


def comparison(rows, row, base):
    """The ratio of two rows, for a cell; nothing for a row and itself."""
    if row == base or base not in rows or not rows[base].get("ns"):
        return ""
    return stats.spread(stats.ratios(rows[row]["ns"], rows[base]["ns"]))


def floor_of(rows):
    """The row that the others stand on: the first that is called so, or bare."""
    return next((row for row in rows if row.startswith(("floor", "bare"))), None)


def base_of(rows):
    """The row of cordon's that peers stand beside: the plain one, or the first."""
    ours = [row for row in rows if row.startswith(("cordon", "use_cordon"))]
    return "cordon" if "cordon" in ours else next(iter(ours), None)


def tables(results):
    texts = []
    for figure, found in results.items():
        rows = {row: values for row, values in found["rows"].items() if values.get("ns")}
        floor = floor_of(rows)
        base = base_of(rows)
        header = ["row", "ns", *(f"to {name.replace('_', ' ')}" for name in (floor, base) if name)]
        lines = []
        for row, values in sorted(rows.items(), key=lambda item: (not item[0].startswith(("floor", "bare")),
                                                                  "cordon" not in item[0], item[0])):
            cells = [row.replace("_", " "), stats.spread(values["ns"])]
            if floor:
                cells.append(comparison(rows, row, floor))
            if base:
                cells.append(comparison(rows, row, base))
            lines.append(cells)
        memory = [f"{row.replace('_', ' ')} {values['bytes']:.0f}" for row, values in rows.items() if "bytes" in values]
        notes = [f"Bytes of memory for each: {', '.join(memory)}."] if memory else []
        commands = "\n".join(f"    {line}" for line in found["commands"])
        title = FIGURES.get(figure, figure)
        texts.append("\n\n".join([f"### {title}", commands, stats.markdown(header, lines), *notes]))
    return "\n\n".join(texts)
