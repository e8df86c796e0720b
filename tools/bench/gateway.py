# SPDX-License-Identifier: MIT
"""What the guards cost the gateway of examples/: instructions of a request, by callgrind, and throughput.

Every guard on: a limit for each client, a bound on all requests with a shedder before it, retries with a budget, a
breaker, a bulkhead and a timeout, none of which refuses anything here. Instructions are (count(2200) - count(200)) / 2000 of requests on one
connection, so that starting up does not count. Throughput is that of a closed loop, in pairs of which each has its two
halves in random order; both gateways run all the time. The processor time of a request is the gateway's own in that
loop. Who may, as root may, has all this run ahead of other programs, with pauses for them.
"""
import contextlib
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

import machine
import stats

FEW, MANY = 200, 2200
PAIRS, SECONDS, CLIENTS = 20, 1, 8
BUILD = pathlib.Path("build/gcc-release/examples")
OFF = dict.fromkeys(("attempt_ms", "retry", "breaker", "bulkhead", "requests"), False)
CONFIGS = {
    "every guard": {"requests": {}, "shedder": {}, "client": {"per_second": 1_000_000, "burst": 1_000_000}},
    "none": OFF,
}


class Program:
    """A server whose first line of output names the port that it listens on."""

    def __init__(self, *argv):
        self.process = subprocess.Popen([str(word) for word in argv], stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, preexec_fn=ahead)
        first = self.process.stdout.readline().decode()
        self.address = found(r"listening on (\S+)", first)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)


def ahead():
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def found(pattern, text):
    match = re.search(pattern, text, re.M)
    if not match:
        raise SystemExit(f"gateway: no {pattern} in {text[:500]!r}")
    return match[1]


def upstream(root):
    return Program(root / BUILD / "gateway/upstream", "--latency-ms", 0, "--body-bytes", 0)


def command(root, work, upstream_address, guards):
    config = work / f"{guards.replace(' ', '_')}.json"
    config.write_text(json.dumps(CONFIGS[guards]))
    return [root / BUILD / "gateway/gateway", "--listen", "127.0.0.1:0", "--upstream", upstream_address,
            "--config", config, "--log", "/dev/null"]


def ask(address, times):
    with contextlib.closing(http.client.HTTPConnection(address)) as connection:
        for _ in range(times):
            connection.request("GET", "/item")
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise SystemExit(f"gateway: {answer.status} instead of an answer")


def instructions(root, work, guards, times):
    """Of a whole run of the gateway that has so many requests."""
    out = work / "callgrind.out"
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
    with upstream(root) as behind, Program(*valgrind, *command(root, work, behind.address, guards)) as gateway:
        ask(gateway.address, times)
    return int(found(r"^(?:totals|summary): (\d+)", out.read_text()))


def processor_seconds(process):
    """Of the first thread of a process, to the nanosecond."""
    return int(pathlib.Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9


def load(root, work, gateway):
    """Returns: requests per second in a closed loop, and the gateway's microseconds for each."""
    report = work / "report.json"
    options = {"target": gateway.address, "clients": CLIENTS, "seconds": SECONDS, "json": report}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    before = processor_seconds(gateway.process)
    subprocess.run([root / BUILD / "loadgen/loadgen", *words], check=True, capture_output=True, preexec_fn=ahead)
    took = processor_seconds(gateway.process) - before
    seen = json.loads(report.read_text())
    if seen["outcomes"]["ok"] != seen["requests"]:
        raise SystemExit(f"gateway: not all answers were ok: {seen['outcomes']}")
    return seen["answered_per_s"], 1e6 * took / seen["requests"]


def pairs(root, work, quick):
    """{guards: what `load` gives in each pair}."""
    loads = {guards: [] for guards in CONFIGS}
    with contextlib.ExitStack() as running:
        behind = running.enter_context(upstream(root))
        gateways = {guards: running.enter_context(Program(*command(root, work, behind.address, guards)))
                    for guards in CONFIGS}
        for _ in range(2 if quick else PAIRS):
            for guards in random.sample(list(CONFIGS), len(CONFIGS)):
                time.sleep(SECONDS)
                loads[guards].append(load(root, work, gateways[guards]))
    return loads


def measure(root, quick):
    if shutil.which("valgrind") is None:
        raise SystemExit("gateway: valgrind is not installed")
    others = machine.Load()
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        runs = {guards: [instructions(root, work, guards, times) for times in (FEW, MANY)] for guards in CONFIGS}
        counted = {guards: (many - few) / (MANY - FEW) for guards, (few, many) in runs.items()}
        loads = pairs(root, work, quick)
    return {"instructions": counted, "loads": loads, "foreign load": others.foreign()}


def table(results):
    counted = results["instructions"]
    rates, times = ({guards: [pair[i] for pair in pairs] for guards, pairs in results["loads"].items()} for i in (0, 1))
    rows = [[guards, f"{counted[guards]:,.0f}", stats.number(statistics.median(times[guards])),
             f"{statistics.median(rates[guards]):,.0f}"] for guards in CONFIGS]
    to_none = [stats.spread(stats.ratios(figures["every guard"], figures["none"])) for figures in (times, rates)]
    rows.append(["every guard, to none", f"{counted['every guard'] / counted['none'] - 1:+.2%}", *to_none])
    return ("    scripts/bench --gateway\n\n"
            + stats.markdown(["guards", "instructions a request", "µs of processor a request", "requests/s"], rows)
            + f"\n\n{len(rates['none'])} pairs; meanwhile others used {results['foreign load']:.0%} of all processors.")
