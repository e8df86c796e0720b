#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the load generator as a process: `end_to_end_test.py LOADGEN UPSTREAM [unittest arguments]`.

It asks the upstream of the example gateway, with wrk as a witness of the throughput, or a stub that breaks what it is
told to break.
"""

import contextlib
import json
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

LOADGEN, UPSTREAM = (pathlib.Path(program).resolve() for program in sys.argv[1:3])


class Upstream:
    """The upstream of the example, with a ledger if there is a file for it."""

    def __init__(self, *options):
        self.process = subprocess.Popen([UPSTREAM, *options], stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline().decode().rpartition(":")[2])

    def end(self):
        self.process.terminate()
        self.process.communicate()


class Stub:
    """Has `answer(number, connection)` do what it likes about each request, and keeps a ledger: `executed(number)`."""

    def __init__(self, ledger, prefix, answer):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.ledger, self.prefix, self.answer = ledger, prefix, answer
        self.lock = threading.Lock()
        self.seen = []
        self.connections = 0
        ledger.touch()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection, contextlib.suppress(OSError):
            while head := self.read_request(connection):
                number = int(re.search(rf"\r\nX-Request-Id: {self.prefix}-(\d+)\r\n", head)[1])
                self.seen.append((number, head))
                if not self.answer(self, number, connection):
                    break

    @staticmethod
    def read_request(connection):
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return None
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        while length and len(body) < int(length[1]):
            body += connection.recv(65536)
        return head.decode() + "\r\n\r\n" + body.decode()

    def execute(self, number, times=1):
        with self.lock, self.ledger.open("a") as out:
            out.write(f"{self.prefix}-{number}\n" * times)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def ok(connection, status="200 OK", headers=""):
    connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n{headers}\r\nok".encode())
    return True


def reset(connection):
    """Ends a connection with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class EndToEnd(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory(prefix="loadgen-")
        self.addCleanup(work.cleanup)
        self.work = pathlib.Path(work.name)
        self.ledger = self.work / "executed.txt"
        self.json = self.work / "report.json"

    def upstream(self, *options):
        server = Upstream("--ledger", self.ledger, *options)
        self.addCleanup(server.end)
        return server

    def stub(self, answer, prefix="t"):
        server = Stub(self.ledger, prefix, answer)
        self.addCleanup(server.close)
        return server

    def start(self, port, *options):
        words = [LOADGEN, "--target", f"127.0.0.1:{port}", "--json", self.json, *map(str, options)]
        load = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(load.communicate)
        self.addCleanup(load.kill)
        return load

    def ended(self, load):
        """Returns: the report; the table and the progress are in `self.table` and `self.progress`."""
        self.table, self.progress = load.communicate(timeout=10)
        self.assertEqual(load.returncode, 0, self.progress)
        return json.loads(self.json.read_text())

    def run_load(self, port, *options):
        return self.ended(self.start(port, *options))

    def check(self, report, **expected):
        """Every outcome that is not named is 0."""
        self.assertEqual({name: n for name, n in report["outcomes"].items() if n}, expected)

    def check_ledger(self, report, **expected):
        names = ("executed", "ambiguous", "lost", "ok_not_executed", "unanswered", "executed_twice")
        self.assertEqual({name: report[name] for name in names if report[name]}, expected)

    # what the client saw, and what the upstream executed

    def test_open_loop_sends_what_was_asked_for_and_every_request_is_in_the_ledger(self):
        port = self.upstream("--latency-ms", "2", "--latency-dist", "constant").port
        report = self.run_load(port, "--rate", 200, "--seconds", 1.2, "--warm-up", 0.3, "--ledger", self.ledger)
        self.check(report, ok=240)
        self.assertEqual((report["requests"], report["never_sent"]), (240, 0))
        self.assertAlmostEqual(report["sent_per_s"], 200, delta=0.001)
        self.check_ledger(report, executed=240)
        self.assertEqual(len(self.ledger.read_text().splitlines()), 300)  # those of the warm-up, too
        times = report["latency_ms"]
        self.assertEqual(times["count"], 240)
        ordered = [times[name] for name in ("p50", "p90", "p99", "p99.9", "p99.99", "max")]
        self.assertEqual(ordered, sorted(ordered))
        self.assertGreaterEqual(ordered[0], 2)
        self.assertEqual(len(self.progress.splitlines()), 1)
        self.assertIn("240 requests in 1.2 s: 200.0/s of 200.0/s asked for", self.table)

    def test_posts_carry_their_body_over_connections_that_are_kept(self):
        stub = self.stub(lambda stub, number, connection: stub.execute(number) or ok(connection))
        report = self.run_load(stub.port, "--rate", 100, "--seconds", 0.4, "--connections", 2, "--method", "POST",
                               "--path", "/a?b", "--body-bytes", 7, "--prefix", "t",
                               "--ledger", self.ledger)  # fmt: skip
        self.check(report, ok=40)
        self.check_ledger(report, executed=40)
        self.assertEqual(stub.connections, 2)
        self.assertEqual(sorted(number for number, _ in stub.seen), list(range(40)))
        for _, request in stub.seen:
            self.assertRegex(request, r"(?s)\APOST /a\?b HTTP/1.1\r\nHost: 127.0.0.1:\d+\r\n.*\r\n\r\nx{7}\Z")

    def test_connections_end_after_so_many_requests_and_methods_take_turns(self):
        closed = []

        def answer(stub, number, connection):
            stub.execute(number)
            ok(connection)
            if "\r\nConnection: close\r\n" in stub.seen[-1][1]:  # announced, and done: in the other order it is a reset
                closed.append(connection.recv(1) == b"")
            return True

        stub, each = self.stub(answer), self.work / "each"
        self.run_load(stub.port, "--rate", 100, "--seconds", 0.2, "--connections", 1, "--requests-per-connection", 4,
                      "--method", "BOTH", "--body-bytes", 3, "--prefix", "t", "--each", each)  # fmt: skip
        self.assertEqual([head[:5] for _, head in stub.seen], ["GET /", "POST "] * 10)
        rows = [line.split("\t") for line in each.read_text().splitlines()[1:]]
        self.assertEqual([int(row[7]) for row in rows], [1, *(1, 2, 3, 4) * 4, 1, 2, 3])
        self.assertEqual(closed, [True] * 5)
        self.assertEqual(stub.connections, 6)
        for row in rows:
            connected_at, sent_at, ended_at = (float(row[n]) for n in (2, 3, 4))
            self.assertTrue(0 < connected_at <= sent_at <= ended_at)
        self.assertEqual(len({row[2] for row in rows}), 6)

    def test_injected_faults_are_counted_one_by_one(self):
        def answer(stub, number, connection):
            if number == 3:  # the answer is lost on its way
                stub.execute(number)
                return reset(connection)
            if number == 5:  # executed twice, as by a retry in between
                stub.execute(number, 2)
                return ok(connection)
            if number == 7:  # neither executed nor answered
                return reset(connection)
            if number == 9:  # said to be done, but it is not
                return ok(connection)
            if number == 11:
                stub.execute(number)
                return ok(connection, "504 Gateway Timeout")
            if number == 13:
                return ok(connection, "404 Not Found")
            stub.execute(number)
            if number == 15:
                connection.sendall(b"SMTP ready\r\n\r\n")
                return False
            if number == 17:
                return ok(connection, headers="X-Request-Id: t-1\r\n")
            if number == 19:  # an end that was announced is no error, and is for the client to heed
                ok(connection, headers="Connection: close\r\n")
                connection.recv(1)
                return False
            return ok(connection, headers=f"X-Request-Id: t-{number}\r\n")

        stub = self.stub(answer)
        report = self.run_load(stub.port, "--rate", 100, "--seconds", 0.5, "--prefix", "t", "--ledger", self.ledger,
                               "--connections", 1)  # fmt: skip
        self.check(report, ok=44, status=2, reset_after_send=2, malformed=2)
        self.assertEqual(report["statuses"], {"404": 1, "504": 1})
        # Ambiguous are 3, 11, 15 and 17, lost is 9.
        self.check_ledger(report, executed=47, ambiguous=4, lost=1, ok_not_executed=1, executed_twice=1)
        self.assertEqual(report["latency_of_others_ms"]["count"], 6)
        self.assertIn("ambiguous 4, lost 1 (ok but not executed 1, unanswered 0), executed twice 1", self.table)
        self.assertIn("status 504", self.table)

    def test_one_dropped_reply_is_one_ambiguous_request(self):
        def answer(stub, number, connection):
            stub.execute(number)
            return reset(connection) if number == 20 else ok(connection)

        report = self.run_load(self.stub(answer).port, "--rate", 100, "--seconds", 0.4, "--prefix", "t",
                               "--ledger", self.ledger)  # fmt: skip
        self.check(report, ok=39, reset_after_send=1)
        self.check_ledger(report, executed=40, ambiguous=1)

    def test_a_port_that_nobody_listens_on_refuses(self):
        report = self.run_load(free_port(), "--rate", 100, "--seconds", 0.3)
        self.check(report, refused=30)
        self.assertEqual(report["latency_ms"], {"count": 0})
        self.assertNotIn("lost", report)
        # A closed loop does not spin.
        report = self.run_load(free_port(), "--clients", 2, "--seconds", 0.3)
        self.assertGreater(report["outcomes"]["refused"], 2)
        self.assertLess(report["outcomes"]["refused"], 100)

    def test_a_request_without_an_answer_times_out_and_costs_its_connection(self):
        def answer(stub, number, connection):
            if number == 4:
                stub.execute(number)
                return connection.recv(1) != b""  # waits until the client has left
            stub.execute(number)
            return ok(connection)

        stub = self.stub(answer)
        report = self.run_load(stub.port, "--rate", 50, "--seconds", 0.4, "--prefix", "t", "--ledger", self.ledger,
                               "--timeout-ms", 200, "--connections", 1)  # fmt: skip
        self.check(report, ok=19, timeout=1)
        self.check_ledger(report, executed=20, ambiguous=1)
        self.assertEqual(stub.connections, 2)
        self.assertGreaterEqual(report["latency_of_others_ms"]["max"], 200)
        # 5 was due 20 ms after 4, and waited for the only connection.
        self.assertGreaterEqual(report["latency_ms"]["max"], 180)

    def test_a_connection_that_breaks_under_a_large_body_was_reset_before_send(self):
        class Breaker(Stub):
            def serve(self, connection):
                with connection:
                    connection.recv(1)
                    reset(connection)

        stub = Breaker(self.ledger, "t", None)
        self.addCleanup(stub.close)
        report = self.run_load(stub.port, "--clients", 1, "--seconds", 0.2, "--method", "POST",
                               "--body-bytes", 16_777_216, "--ledger", self.ledger)  # fmt: skip
        self.assertGreater(report["outcomes"]["reset_before_send"], 0)
        self.check(report, reset_before_send=report["requests"])
        self.check_ledger(report)

    def test_what_is_in_flight_at_the_end_and_never_answered_is_lost_unless_executed(self):
        def answer(stub, number, connection):
            if number == 38:
                stub.execute(number)
            if number >= 38:
                return connection.recv(1) != b""
            stub.execute(number)
            return ok(connection)

        report = self.run_load(self.stub(answer).port, "--rate", 100, "--seconds", 0.4, "--prefix", "t",
                               "--ledger", self.ledger, "--timeout-ms", 400)  # fmt: skip
        self.check(report, ok=38, timeout=2)
        self.check_ledger(report, executed=39, ambiguous=1, lost=1, unanswered=1)

    def test_a_stall_of_the_server_delays_all_that_were_due_meanwhile(self):
        port = self.upstream("--latency-ms", "1", "--latency-dist", "constant").port
        load = self.start(port, "--rate", 200, "--seconds", 1.5, "--connections", 2, "--ledger", self.ledger)
        time.sleep(0.5)
        for on in "10":
            with socket.create_connection(("127.0.0.1", port)) as control:
                control.sendall(f"POST /control/hang?on={on} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                self.assertIn(b"200", control.recv(4096))
            if on == "1":
                time.sleep(0.5)
        report = self.ended(load)
        self.check(report, ok=300)
        # A third of the time: 100 requests wait, of which half for more than 250 ms. Two connections sent two of them.
        self.assertGreater(report["latency_ms"]["p90"], 150)
        self.assertGreater(report["latency_ms"]["max"], 400)

    # ending early

    def test_sigint_ends_the_load_early_with_a_report(self):
        port = self.upstream("--latency-ms", "50", "--latency-dist", "constant").port
        load = self.start(port, "--rate", 100, "--seconds", 60, "--ledger", self.ledger)
        time.sleep(0.5)
        load.send_signal(signal.SIGINT)
        report = self.ended(load)
        self.assertLess(report["seconds"], 5)
        self.assertAlmostEqual(report["requests"], report["seconds"] * 100, delta=1)
        self.check(report, ok=report["requests"])
        self.assertEqual(report["never_sent"], 0)
        self.check_ledger(report, executed=report["requests"])

    def test_a_second_sigint_abandons_what_is_in_flight(self):
        stub = self.stub(lambda stub, number, connection: connection.recv(1) != b"")
        load = self.start(stub.port, "--clients", 3, "--seconds", 60, "--timeout-ms", 60_000, "--prefix", "t",
                          "--ledger", self.ledger, "--settle-ms", 0)  # fmt: skip
        for _ in range(100):
            if len(stub.seen) == 3:
                break
            time.sleep(0.02)
        for _ in range(2):
            load.send_signal(signal.SIGINT)
            time.sleep(0.1)
        report = self.ended(load)
        self.check(report, abandoned=3)
        self.check_ledger(report, lost=3, unanswered=3)

    # witnesses and the command line

    def test_closed_loop_throughput_is_within_a_factor_of_two_of_wrk(self):
        if not shutil.which("wrk"):
            self.skipTest("wrk is not installed (Debian: apt-get install wrk)")
        port = self.upstream("--latency-ms", "2", "--latency-dist", "constant").port
        wrk = ["wrk", "-t1", "-c8", "-d1s", f"http://127.0.0.1:{port}/item"]
        said = subprocess.run(wrk, capture_output=True, text=True, check=True, timeout=10).stdout
        theirs = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])
        report = self.run_load(port, "--clients", 8, "--seconds", 1)
        self.check(report, ok=report["requests"])
        self.assertIsNone(report["asked_per_s"])
        self.assertGreater(report["answered_per_s"], theirs / 2)
        self.assertLess(report["answered_per_s"], theirs * 2)
        # Little's law: so many clients, each of which always waits for an answer.
        self.assertLess(report["answered_per_s"], 8 / 0.002)

    def test_the_command_line_is_checked_before_anything_is_sent(self):
        def said(*options):
            done = subprocess.run([LOADGEN, *options], capture_output=True, text=True, timeout=5, check=False)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            return done.stderr

        target = ("--target", "127.0.0.1:1", "--rate", "1")
        self.assertEqual(said(*target, "--timeout-ms", "0"),
                         'loadgen: --timeout-ms is "0", allowed is a number from 1 to 600000\n')  # fmt: skip
        self.assertEqual(said(*target, "--ledger", "/nonexistent"),
                         'loadgen: --ledger is "/nonexistent", allowed is a file that can be read\n')  # fmt: skip
        self.assertEqual(said(*target, "--json", "/nonexistent/x"),
                         'loadgen: --json is "/nonexistent/x", allowed is a file that can be written\n')  # fmt: skip
        few = f"ulimit -n 40; exec '{LOADGEN}' --target 127.0.0.1:1 --clients 100"
        done = subprocess.run(["sh", "-c", few], capture_output=True, text=True, timeout=5, check=False)
        self.assertIn('"100", allowed is what the limit of open files (ulimit -n) leaves room for', done.stderr)
        helped = subprocess.run([LOADGEN, "--help"], capture_output=True, text=True, timeout=5, check=True)
        self.assertIn("--warm-up", helped.stdout)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
