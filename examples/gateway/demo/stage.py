# SPDX-License-Identifier: MIT
"""What the acts share: the programs that they start, and the account of what was seen."""

import contextlib
import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import time

import load
from common import CannotRun, exit_text, say

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


class Server:
    """An upstream or a gateway that runs."""

    def __init__(self, name, process, port):
        self.name, self.process, self.port = name, process, port

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def call(self, method, path):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)) as connection:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")

    def control(self, what, method="POST"):
        """Tells the upstream what to do, or asks it for `stats`. Returns: its stats."""
        status, body = self.call(method, f"/control/{what}")
        if status != 200:
            raise CannotRun(f"{self.name} answered {status} to {what}: {body}")
        return json.loads(body)

    def figures(self):
        """Returns: what the gateway's /metrics say, by series."""
        lines = [line for line in self.call("GET", "/metrics")[1].splitlines() if line and not line.startswith("#")]
        return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}

    def wait_until_ready(self, path):
        for _ in range(200):
            if self.process.poll() is not None:
                raise CannotRun(f"{self.name} ended at once with {exit_text(self.process.returncode)}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.call("GET", path)[0] == 200:
                    return
            time.sleep(0.05)
        raise CannotRun(f"{self.name} did not answer 200 to {path} within 10 s")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            raise CannotRun(f"{self.name} did not end within 5 s of SIGTERM") from None


class Stage:
    """Starts programs, none of which outlives the demo however it ends, and keeps account of what was seen."""

    def __init__(self, build, work):
        self.work = work
        self.started = []
        self.ahead = False  # whether programs are started with priority over all others
        self.rows, self.notes, self.failures = [], [], []
        self.programs = {name: build / "examples" / "gateway" / name for name in ("upstream", "gateway")}
        self.programs["loadgen"] = build / "examples" / "loadgen" / "loadgen"
        for name, program in self.programs.items():
            if not os.access(program, os.X_OK):
                raise CannotRun(f"there is no {name} at {program}; build the examples first")

    # programs

    def start(self, name, *argv):
        """Starts a program. What it prints goes to NAME.out and NAME.err."""
        with open(self.work / f"{name}.out", "wb") as out, open(self.work / f"{name}.err", "wb") as err:
            child = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                preexec_fn=lambda: prepare_child(self.ahead),
            )
        self.started.append(child)
        return child

    def output(self, name):
        return (self.work / f"{name}.out").read_text(errors="replace")

    def upstream(self, name, *options):
        port = free_port()
        child = self.start(name, self.programs["upstream"], "--port", port, "--seed", 1, *options)
        server = Server(name, child, port)
        server.wait_until_ready("/control/stats")
        return server

    def gateway(self, name, *options, **config):
        """Starts a gateway of one thread with a configuration, see ../config.hpp."""
        port, file = free_port(), self.work / f"{name}.json"
        file.write_text(json.dumps(config, indent=4))
        child = self.start(name, self.programs["gateway"], "--listen", f"127.0.0.1:{port}", "--config", file,
                           "--log", self.work / f"{name}.log", *options)  # fmt: skip
        server = Server(name, child, port)
        server.wait_until_ready("/readyz")
        return server

    def load(self, name, server, rate, seconds, *options):
        """Starts the load generator: so many requests per second, in an open loop."""
        files = {kind: self.work / f"{name}.{kind}" for kind in ("json", "each")}
        child = self.start(name, self.programs["loadgen"], "--target", server.address, "--rate", rate, "--seconds",
                           seconds, "--json", files["json"], "--each", files["each"], *options)  # fmt: skip
        return load.Load(name, child, files)

    def stop_all(self):
        for child in self.started:
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
                child.terminate()
        for child in self.started:
            try:
                child.wait(2)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    # the account

    def row(self, act, requests, ok, refused, late, p50, p99, proved):
        self.rows.append((act, requests, ok, refused, late, p50, p99, proved))

    def row_of(self, act, requests, proved, timed=None):
        """A line of the table about requests that the load generator has sent; `timed` are those whose times count."""
        times = load.latencies(requests if timed is None else timed)
        self.row(act, len(requests), sum(r.ok for r in requests), sum(r.refused for r in requests),
                 sum(r.status == 504 for r in requests), load.quantile(times, 0.5), load.quantile(times, 0.99),
                 proved)  # fmt: skip

    def fail(self, text):
        self.failures.append(text)

    def judge(self, measure):
        """Measures, and fails if that gives a list of what is wrong. But a bar of milliseconds is also missed because
        the machine has something else to do: so what is wrong is measured once more, ahead of all that."""
        wrong = measure()
        if wrong:
            say(f"          once more, ahead of what else runs here, since {'; '.join(wrong)}")
            self.ahead = True
            wrong = measure()
            self.ahead = False
        self.failures += wrong

    def print_account(self):
        say("")
        say(f"{'act':19}{'requests':>9}{'ok':>8}{'refused':>8}{'504':>6}{'p50 ms':>8}{'p99 ms':>8}  seen")
        for act, requests, ok, refused, late, p50, p99, proved in self.rows:
            p50, p99 = ("-" if value is None else f"{value:.1f}" for value in (p50, p99))
            say(f"{act:19}{requests:>9}{ok:>8}{refused:>8}{late:>6}{p50:>8}{p99:>8}  {proved}")
        say("")
        for note in self.notes:
            say(note)
        for failure in self.failures:
            say(f"FAILED {failure}")


def prepare_child(ahead):
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if ahead:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
