#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the gateway as a process between real sockets: `end_to_end_test.py GATEWAY UPSTREAM [unittest arguments]`.

What is behind it is the upstream of the example, or a stub that shows the very bytes which the gateway sends.
"""

import contextlib
import http.client
import json
import os
import pathlib
import random
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "redis"))
from redis_server import SERVER, Redis  # noqa: E402

GATEWAY, UPSTREAM = (pathlib.Path(program).resolve() for program in sys.argv[1:3])
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
GET = b"GET /item HTTP/1.1\r\nHost: h\r\n\r\n"


def set_limits(limits):
    """Sets what `ulimit` sets: each limit is a resource, and what is allowed of it."""
    for name, soft, hard in limits:
        resource.setrlimit(name, (soft, hard))


class Program:
    """A child process whose first line of output names the port that it listens on."""

    def __init__(self, *argv, limits=()):
        self.process = subprocess.Popen([str(word) for word in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        preexec_fn=lambda: set_limits(limits))  # fmt: skip
        first = self.process.stdout.readline().decode()
        if not first.startswith("listening on "):
            raise AssertionError(f"{argv[0]}: {first}{self.process.stderr.read().decode()}")
        self.port = int(first.rpartition(":")[2])

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, seconds):
        """Returns: the exit code and the lines that it printed."""
        out, err = self.process.communicate(timeout=seconds)
        if err and self.process.returncode != 0:
            sys.stderr.write(err.decode(errors="replace"))
        return self.process.returncode, out.decode().splitlines()

    def says(self, text, seconds=5):
        """Waits for a line on stderr that holds the text. Returns: what it wrote there up to then."""
        until, said = time.monotonic() + seconds, b""
        while text.encode() not in said or not said.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stderr], [], [], max(0, until - time.monotonic()))
            more = os.read(self.process.stderr.fileno(), 65536) if ready else b""
            if not more:
                raise AssertionError(f"no {text!r} in {said!r}")
            said += more
        return said.decode()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class Stub:
    """Takes connections one after the other and has `script(connection)` play the upstream on each."""

    def __init__(self, script):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.script = script
        self.connections = 0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections += 1
                connection.settimeout(5)
                with connection, contextlib.suppress(OSError):
                    self.script(connection)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Client(socket.socket):
    """A connection that speaks in bytes and hears in answers."""

    def __init__(self, port):
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self.settimeout(5)
        self.stream = None
        try:
            self.connect(("127.0.0.1", port))
        except OSError:
            super().close()
            raise
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.makefile("rb")

    def close(self):
        self.stream.close()
        super().close()

    def send_request(self, target="/item", method="GET", body=None, **headers):
        lines = [f"{method} {target} HTTP/1.1", "Host: h"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.sendall("\r\n".join([*lines, "", ""]).encode() + (body or b""))

    def ask(self, *args, **kwargs):
        method = kwargs.get("method", args[1] if len(args) > 1 else "GET")
        self.send_request(*args, **kwargs)
        return self.answer(method)

    def answer(self, method="GET"):
        """Returns: status, headers and body."""
        line = self.stream.readline()
        if not line:
            raise ConnectionError("the connection ended before an answer")
        headers = http.client.parse_headers(self.stream)
        status = int(line.split()[1])
        body = b""
        if method != "HEAD" and status >= 200:
            body = self.stream.read(int(headers["content-length"]))
        return status, headers, body

    def at_end(self):
        """Whether the gateway closes the connection without another byte, and without a reset."""
        return self.stream.read(1) == b""


def read_request(connection):
    """Returns: the head and the body of the next request; nothing at the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    while length and len(body) < int(length[1]):
        body += connection.recv(65536)
    return head.decode(), body


def ok(body=b"ok", headers=""):
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def milliseconds_of(timeout):
    units = {"n": 1e-6, "u": 1e-3, "m": 1, "S": 1e3, "M": 6e4, "H": 3.6e6}
    return int(timeout[:-1]) * units[timeout[-1]]


class EndToEnd(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.upstream = Program(UPSTREAM, "--latency-ms", 1, "--latency-dist", "constant", "--body-bytes", 0)
        cls.addClassCleanup(cls.upstream.kill)

    def start(self, *options, port=None, limits=()):
        gateway = Program(GATEWAY, "--listen", "127.0.0.1:0", "--log", self.log, "--upstream",
                          f"127.0.0.1:{port or self.upstream.port}", *options, limits=limits)  # fmt: skip
        self.addCleanup(gateway.kill)
        return gateway

    def configured(self, **sections):
        """Writes the configuration. Returns: the options that name it."""
        self.config.write_text(json.dumps(sections, indent=1))
        return "--config", self.config

    def connect(self, gateway):
        client = Client(gateway.port)
        self.addCleanup(client.close)
        return client

    def stub(self, script):
        stub = Stub(script)
        self.addCleanup(stub.close)
        return stub

    def setUp(self):
        work = tempfile.mkdtemp(prefix="gateway-test-")
        self.addCleanup(shutil.rmtree, work)
        self.log = pathlib.Path(work) / "log"
        self.config = pathlib.Path(work) / "config.json"

    def control(self, what, method="POST"):
        client = Client(self.upstream.port)
        with contextlib.closing(client):
            status, _, body = client.ask(f"/control/{what}", method)
            self.assertEqual(status, 200)
            return json.loads(body)

    def figures(self, gateway):
        """Returns: what /metrics says, by series."""
        with contextlib.closing(Client(gateway.port)) as client:
            status, headers, text = client.ask("/metrics")
        self.assertEqual((status, headers["content-type"]), (200, "text/plain; version=0.0.4; charset=utf-8"))
        lines = [line for line in text.decode().splitlines() if line and not line.startswith("#")]
        return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}

    def until(self, is_so, what):
        until = time.monotonic() + 5
        while not is_so():
            self.assertLess(time.monotonic(), until, what)
            time.sleep(0.01)

    def until_figure(self, gateway, series, value):
        self.until(lambda: self.figures(gateway).get(series) == value, series)

    def until_connected(self, redis, count):
        """Waits until a redis has so many clients, besides the one that asks."""
        self.until(lambda: redis.command(b"CLIENT", b"LIST").count(b" addr=") == count + 1, "its clients")

    def ended(self, gateway, seconds=5):
        """Waits for the gateway's end. Returns: its report, and the lines about what was left."""
        code, lines = gateway.wait(seconds)
        self.assertEqual(code, 0)
        return dict(line.split("=", 1) for line in lines if re.fullmatch(r"\w+=\S+", line)), [
            line for line in lines if line.startswith("left:")]  # fmt: skip

    # what is passed on

    def test_id_trace_and_remaining_time_reach_the_upstream_and_the_log(self):
        client = self.connect(self.start("--deadline-ms", 1000))
        given = {"x_request_id": "r-42", "traceparent": f"00-{TRACE}-{PARENT}-01"}
        status, headers, body = client.ask("/item?a=b", grpc_timeout="300m", **given)
        seen = json.loads(body)
        self.assertEqual((status, seen["x-request-id"], headers["x-request-id"]), (200, "r-42", "r-42"))
        version, trace, parent, flags = seen["traceparent"].split("-")
        self.assertEqual((version, trace, flags), ("00", TRACE, "01"))
        self.assertRegex(parent, "^[0-9a-f]{16}$")
        self.assertNotEqual(parent, PARENT)
        self.assertTrue(200 < milliseconds_of(seen["grpc-timeout"]) < 300, seen)

        for asked in ("5S", None):  # never more than the gateway itself allows an attempt
            more = {"grpc_timeout": asked} if asked else {}
            seen = json.loads(client.ask(**more)[2])
            self.assertTrue(400 < milliseconds_of(seen["grpc-timeout"]) < 500, seen)
        line = self.log.read_text().splitlines()[0]
        self.assertRegex(line, rf"^\d{{4}}-\d\d-\d\dT[\d:.]+Z r-42 {TRACE} GET /item\?a=b 200 \d+\.\d$")

    def test_what_is_unusable_from_outside_is_replaced(self):
        gateway = self.start()
        client = self.connect(gateway)
        for bad in ("a b", 'a"b', "x" * 129, ""):
            seen = json.loads(client.ask(x_request_id=bad)[2])
            self.assertRegex(seen["x-request-id"], "^[0-9a-f]{32}$")
        one = f"{TRACE}-{PARENT}-01"
        for bad in ("", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"00-{one}-", f"ff-{one}"):
            seen = json.loads(client.ask(traceparent=bad)[2])
            self.assertRegex(seen["traceparent"], "^00-[0-9a-f]{32}-[0-9a-f]{16}-00$")
            self.assertNotIn(TRACE, seen["traceparent"])
        client.sendall(GET[:-2] + f"traceparent: 00-{TRACE}-{PARENT}-01\r\n".encode() * 2 + b"\r\n")
        self.assertNotIn(TRACE, json.loads(client.answer()[2])["traceparent"])
        for bad in ("5", "S", "5s", "123456789m", "-1S"):
            other = self.connect(gateway)
            self.assertEqual(other.ask(grpc_timeout=bad)[0], 400)

    def test_headers_of_one_hop_stay_there(self):
        heard = []

        def script(connection):
            while request := read_request(connection):
                heard.append(request)
                connection.sendall(ok(headers="Keep-Alive: timeout=5\r\nX-Kept: yes\r\nSet-Cookie: a\r\n"
                                      "Set-Cookie: b\r\nConnection: x-hop, set-cookie\r\nX-Hop: 1\r\n"))  # fmt: skip

        client = self.connect(self.start(port=self.stub(script).port))
        given = f"traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: a=1\r\n"
        client.sendall(GET[:-2] + b"Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nX-End: 2\r\nTE: trailers\r\n"
                       b"Upgrade: h2c\r\n" + given.encode() + b"\r\n")  # fmt: skip
        _, headers, _ = client.answer()
        self.assertEqual((headers["x-kept"], headers["x-hop"], headers["keep-alive"]), ("yes", None, None))
        self.assertEqual(headers.get_all("set-cookie"), ["a", "b"])
        head = heard[0][0].lower()
        self.assertIn("\r\nx-end: 2", head)
        self.assertIn("\r\nvia: 1.1 gateway", head)
        self.assertIn("\r\ntracestate: a=1", head)
        for gone in ("x-mine", "\r\nte:", "upgrade", "\r\nconnection"):
            self.assertNotIn(gone, head)
        client.ask(traceparent="nonsense", tracestate="a=1")
        self.assertNotIn("tracestate", heard[1][0].lower())
        client.ask("/item", "POST", b"hi", authorization="Basic eDp5", content_type="text/plain",
                   connection="host, authorization, content-length, content-type")  # fmt: skip
        head, body = heard[2]
        for kept in ("host: h", "authorization: basic edp5", "content-type: text/plain", "content-length: 2"):
            self.assertIn(f"\r\n{kept}", head.lower())
        self.assertEqual(body, b"hi")

    def test_a_client_of_version_1_0_is_translated(self):
        heard = []

        def script(connection):
            while request := read_request(connection):
                heard.append(request)
                connection.sendall(ok())

        stub = self.stub(script)
        gateway = self.start(port=stub.port)
        for request, host in (
            (b"GET /item HTTP/1.0\r\n\r\n", f"127.0.0.1:{stub.port}"),
            (b"GET /item HTTP/1.0\r\nHost: h\r\n\r\n", "h"),
        ):
            client = self.connect(gateway)
            client.sendall(request)
            self.assertEqual(client.answer()[0], 200)
            client.close()
            head = heard[-1][0]
            self.assertTrue(head.startswith("GET /item HTTP/1.1\r\n"), head)
            self.assertEqual(re.findall(r"(?i)\r\nhost: (.*)", head + "\r\n"), [f"{host}\r"])
        client = self.connect(gateway)  # which knows no 100 Continue
        client.sendall(b"POST /item HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        client.settimeout(0.1)
        with self.assertRaises(TimeoutError):
            client.recv(1)
        client.settimeout(5)
        client.sendall(b"hi")
        self.assertEqual((client.answer()[0], heard[-1][1]), (200, b"hi"))
        client = self.connect(gateway)  # nor a transfer coding
        client.sendall(b"POST /item HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
        self.assertEqual(client.answer()[0], 501)
        self.assertTrue(client.at_end())

    def test_bodies_go_both_ways(self):
        heard = []

        def script(connection):
            while request := read_request(connection):
                heard.append(request)
                connection.sendall(ok(request[1] * 2) if not request[0].startswith("HEAD") else ok(b"12345")[:-5])

        client = self.connect(self.start(port=self.stub(script).port))
        large = random.Random(1).randbytes(1_000_000)
        status, _, body = client.ask("/item", "POST", large)
        self.assertEqual((status, body), (200, large * 2))
        client.sendall(b"PUT /item HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        client.sendall(b"2;x=y\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n")
        self.assertEqual(client.answer()[2], b"abcdeabcde")
        self.assertNotIn("x-trailer", heard[1][0].lower())
        status, headers, _ = client.ask("/item", "HEAD")
        self.assertEqual((status, headers["content-length"]), (200, "5"))
        self.assertEqual(client.ask("/healthz", "HEAD")[0], 200)
        client.sendall(b"POST /item HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        self.assertEqual(client.answer()[0], 100)
        client.sendall(b"hi")
        self.assertEqual(client.answer()[2], b"hihi")

    # keep-alive

    def test_one_connection_carries_many_requests_to_one_of_the_upstream(self):
        def script(connection):
            while read_request(connection):
                connection.sendall(ok())

        stub = self.stub(script)
        gateway = self.start(port=stub.port)
        client = self.connect(gateway)
        for _ in range(50):
            self.assertEqual(client.ask()[0], 200)
        self.assertEqual(stub.connections, 1)
        client.sendall(b"GET /item HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        self.assertEqual(client.answer()[1]["connection"], "keep-alive")
        client.sendall(b"GET /item HTTP/1.0\r\n\r\n")
        self.assertEqual(client.answer()[0], 200)
        self.assertTrue(client.at_end())
        gateway.signal()
        self.assertEqual(self.ended(gateway)[0]["connections"], "1")

    def test_pipelined_requests_are_answered_in_order(self):
        client = self.connect(self.start())
        client.sendall(b"".join(GET[:-2] + f"X-Request-Id: p{i}\r\n\r\n".encode() for i in range(5)))
        for i in range(5):
            self.assertEqual(client.answer()[1]["x-request-id"], f"p{i}")

    def test_a_kept_connection_that_was_closed_costs_nothing_idempotent(self):
        def script(connection):
            read_request(connection)
            connection.sendall(ok())
            if read_request(connection):  # looks alive until the second request, which it never answers
                connection.shutdown(socket.SHUT_RDWR)

        client = self.connect(self.start(port=self.stub(script).port))
        self.assertEqual([client.ask()[0] for _ in range(4)], [200] * 4)
        self.assertEqual(client.ask("/item", "POST", b"x")[0], 502)  # may have been executed: not sent again
        self.assertEqual(client.ask("/item", "POST", b"x")[0], 200)

    def test_a_connection_that_the_upstream_means_to_close_is_not_used_again(self):
        def script(connection):
            read_request(connection)
            connection.sendall(ok(headers="Connection: close\r\n"))
            read_request(connection)  # stays open, and never answers

        client = self.connect(self.start(port=self.stub(script).port))
        self.assertEqual([client.ask("/item", "POST", b"x")[0] for _ in range(3)], [200] * 3)

    def test_a_request_that_comes_as_the_patience_ends_is_served(self):
        gateway = self.start("--idle-ms", 100)
        clients = [self.connect(gateway) for _ in range(10)]
        for client in clients:
            client.ask("/healthz")
        gateway.signal(signal.SIGSTOP)
        time.sleep(0.2)  # real time: it finds the passed timer and the request at once
        for client in clients:
            client.send_request()
        gateway.signal(signal.SIGCONT)
        self.assertEqual([client.answer()[0] for client in clients], [200] * 10)

    # an upstream that fails

    def test_an_upstream_that_hangs_costs_504_and_nothing_else(self):
        gateway = self.start("--deadline-ms", 200)
        client = self.connect(gateway)
        self.control("hang?on=1")
        self.addCleanup(self.control, "hang?on=0")
        began = time.monotonic()
        self.assertEqual(client.ask()[0], 504)
        self.assertEqual(client.ask(grpc_timeout="50m")[0], 504)
        self.assertTrue(0.25 <= time.monotonic() - began < 1.0)
        self.control("hang?on=0")
        self.assertEqual(client.ask()[0], 200)
        before = self.control("stats", "GET")["requests"]
        self.assertEqual(client.ask(grpc_timeout="0m")[0], 504)  # expired on arrival
        self.assertEqual(self.control("stats", "GET")["requests"], before)
        self.assertEqual(client.ask()[0], 200)
        gateway.signal()
        self.assertEqual(self.ended(gateway)[0]["deadline_hits"], "3")

    def test_an_upstream_that_is_down_or_speaks_no_http_costs_502(self):
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        client = self.connect(self.start(port=port))
        self.assertEqual([client.ask()[0] for _ in range(2)], [502] * 2)
        self.assertEqual(client.ask("/readyz")[0], 200)

        coded = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\n"
        answers = [b"SSH-2.0-x\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
                   coded.encode() + b"GZIPD\r\n0\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n" + ok(),
                   b"HTTP/1.0 200 OK\r\n\r\nuntil the end"]  # fmt: skip

        def script(connection):
            read_request(connection)
            connection.sendall(answers[stub.connections - 1])

        stub = self.stub(script)
        client = self.connect(self.start(port=stub.port))
        once = ("/item", "POST", b"x")  # which is not tried again
        self.assertEqual([client.ask(*once)[0] for _ in range(5)], [502, 502, 502, 502, 200])
        self.assertEqual(client.ask(*once)[2], b"until the end")

    # a client that misbehaves

    def test_malformed_and_oversized_requests_are_told_so(self):
        gateway = self.start("--max-body-bytes", 1000, "--max-header-bytes", 1024)
        coded = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: %b\r\n\r\n"
        chunked = (coded % b"chunked")[:-2]
        for status, data in (
            (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100 + b"\r\n\r\n"),
            (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            (400, b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"),
            (400, b"GET / HTTP/1.1\r\nno colon\r\n\r\n"),
            (400, b"GET / HTTP/1.1\r\n\r\n"),
            (400, GET[:-2] + b"Host: again\r\n\r\n"),
            (400, GET[:-2] + b"Content-Length: 1x\r\n\r\n"),
            (400, GET[:-2] + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            (400, chunked + b"Content-Length: 5\r\n\r\nGET /"),
            (400, chunked + b"\r\nnot a size\r\n"),
            (413, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n"),
            (413, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n" + b"x" * 500_000),
            (413, chunked + b"\r\n" + b"100\r\n" + b"x" * 256 + b"\r\nfff\r\n" + b"x" * 4095 + b"\r\n0\r\n\r\n"),
            (431, GET[:-2] + b"X-Large: " + b"x" * 2000 + b"\r\n\r\n"),
            (431, b"GET /" + b"x" * 2000),
            (501, b"BREW /pot HTTP/1.1\r\nHost: h\r\n\r\n"),
            (501, b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n"),
            (501, coded % b"gzip" + b"GET /smuggled HTTP/1.1\r\n\r\n"),
            (501, coded % b"gzip, chunked" + b"5\r\nGZIPD\r\n0\r\n\r\n"),
            (501, coded % b"gzip\r\nTransfer-Encoding: chunked" + b"5\r\nGZIPD\r\n0\r\n\r\n"),
        ):
            with self.subTest(data=data[:60]), contextlib.closing(Client(gateway.port)) as client:
                client.sendall(data)
                got, headers, _ = client.answer()
                self.assertEqual((got, headers["connection"]), (status, "close"))
                self.assertTrue(client.at_end())
        self.assertEqual(self.connect(gateway).ask()[0], 200)
        self.assertNotIn("smuggled", self.log.read_text())

    def test_a_slow_request_is_cut_at_its_deadline(self):
        gateway = self.start("--header-ms", 300, "--idle-ms", 300, "--deadline-ms", 300)

        def trickled(client, data):
            """Returns: the seconds until the gateway had enough."""
            began = time.monotonic()
            with contextlib.suppress(OSError):
                for byte in data:
                    client.sendall(bytes([byte]))
                    time.sleep(0.03)
            return time.monotonic() - began

        header = self.connect(gateway)
        threading.Thread(target=trickled, args=(header, GET * 2), daemon=True).start()
        body = self.connect(gateway)
        body.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n")
        threading.Thread(target=trickled, args=(body, b"x" * 100), daemon=True).start()
        silent, idle = self.connect(gateway), self.connect(gateway)
        self.assertEqual(idle.ask()[0], 200)
        began = time.monotonic()
        for client in (header, body):
            self.assertEqual(client.answer()[0], 408)
        for client in (silent, idle):
            self.assertTrue(client.at_end())
        self.assertTrue(0.2 < time.monotonic() - began < 0.9, time.monotonic() - began)

    def test_a_client_that_does_not_read_is_given_up(self):
        def script(connection):
            while read_request(connection):
                connection.sendall(ok(b"x" * 30_000_000))

        gateway = self.start("--idle-ms", 200, port=self.stub(script).port)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", gateway.port))
            client.sendall(GET)
            deadline = time.monotonic() + 4
            while not re.search(r"GET /item 499", self.log.read_text()):
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)
        self.assertEqual(self.figures(gateway)['gateway_answers_sent_total{name="http",class="4xx"}'], 0)

    def test_garbage_on_many_connections_leaves_it_serving(self):
        seed = random.randrange(1 << 32)
        noise = random.Random(seed)
        gateway = self.start("--header-ms", 500)
        clients = [self.connect(gateway) for _ in range(50)]
        for client in clients:
            with contextlib.suppress(OSError):
                for _ in range(noise.randrange(1, 5)):
                    client.sendall(noise.randbytes(noise.randrange(1, 20_000)))
        for client in clients[::2]:
            client.close()
        self.assertEqual([self.connect(gateway).ask()[0] for _ in range(20)], [200] * 20, f"seed {seed}")
        gateway.signal()
        self.assertEqual(self.ended(gateway)[0]["tasks_left"], "0", f"seed {seed}")

    # the guards

    def test_a_client_that_asks_too_often_is_told_when_to_come_back(self):
        gateway = self.start(*self.configured(client={"per_second": 1, "burst": 2, "header": "x-api-key"}))
        before = self.control("stats", "GET")["requests"]
        client = self.connect(gateway)
        for key in ({}, {"x_api_key": "one"}, {"x_api_key": "x" * 128}):  # no key: by address
            with self.subTest(key=key):
                self.assertEqual([client.ask(**key)[0] for _ in range(2)], [200] * 2)
                status, headers, body = client.ask(**key)
                self.assertEqual((status, headers["retry-after"], body), (429, "1", b"clients: rate limited\n"))
        self.assertEqual(client.ask(x_api_key="y" * 129)[0], 429)  # too long: by address
        self.assertEqual(self.control("stats", "GET")["requests"], before + 6)
        other = self.connect(gateway)  # of the same address
        self.assertEqual([other.ask("/healthz")[0] for _ in range(5)], [200] * 5)
        status, headers, _ = other.ask("/item", "POST", b"x")
        self.assertEqual((status, headers["connection"]), (429, "close"))  # its body was not waited for

    def test_the_breaker_opens_on_an_upstream_that_fails_and_closes_when_it_recovers(self):
        heard, fails = [], True

        def script(connection):
            while request := read_request(connection):
                heard.append(request)
                connection.sendall(ok() if not fails else b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

        breaker = {"window": 10, "min_calls": 4, "open_for_ms": 300}
        options = self.configured(retry={"attempts": 1}, breaker=breaker)
        gateway = self.start(*options, port=self.stub(script).port)
        client = self.connect(gateway)
        self.assertEqual([client.ask()[0] for _ in range(4)], [500] * 4)
        status, headers, body = client.ask()
        self.assertEqual((status, headers["retry-after"], body), (503, "1", b"upstream: circuit open\n"))
        self.assertEqual(client.ask("/item", "POST", b"x")[0], 503)
        self.assertEqual(len(heard), 4)
        self.assertEqual(self.figures(gateway)['cordon_circuit_breaker_state{name="upstream",state="open"}'], 1)
        fails = False
        time.sleep(0.3)  # what it is told to stay open
        self.assertEqual([client.ask()[0] for _ in range(4)], [200] * 4)
        self.assertEqual(len(heard), 8)
        self.assertEqual(self.figures(gateway)['cordon_circuit_breaker_state{name="upstream",state="closed"}'], 1)

    def test_an_attempt_that_takes_too_long_costs_504_and_counts_for_the_breaker(self):
        options = self.configured(attempt_ms=100, retry={"attempts": 1}, breaker={"window": 10, "min_calls": 2})
        client = self.connect(self.start("--deadline-ms", 5000, *options))
        self.control("hang?on=1")
        self.addCleanup(self.control, "hang?on=0")
        began = time.monotonic()
        self.assertEqual([client.ask()[0] for _ in range(3)], [504, 504, 503])
        self.assertTrue(0.2 <= time.monotonic() - began < 1.0)

    def test_a_full_bulkhead_costs_503_at_once(self):
        options = self.configured(deadline_ms=5000, attempt_ms=5000, bulkhead={"concurrent": 1, "waiting": 1})
        gateway = self.start(*options)
        runs, waits, comes = (self.connect(gateway) for _ in range(3))
        self.control("hang?on=1")
        self.addCleanup(self.control, "hang?on=0")
        runs.send_request()
        self.until_figure(gateway, 'cordon_bulkhead_in_use{name="upstream"}', 1)
        waits.send_request()
        self.until_figure(gateway, 'cordon_bulkhead_waiting{name="upstream"}', 1)
        began = time.monotonic()
        status, headers, body = comes.ask()
        self.assertLess(time.monotonic() - began, 1)
        self.assertEqual((status, headers["retry-after"], body), (503, None, b"upstream: full\n"))
        refused = self.figures(gateway)['cordon_bulkhead_rejected_total{name="upstream"}']
        self.assertEqual(refused, 1)  # it was not tried again
        self.control("hang?on=0")
        self.assertEqual([client.answer()[0] for client in (runs, waits)], [200] * 2)
        self.assertEqual(comes.ask()[0], 200)

    def test_a_failure_is_hidden_by_a_retry_unless_that_might_have_an_effect_twice(self):
        ledger = self.config.parent / "ledger"
        upstream = Program(UPSTREAM, "--latency-ms", 0, "--error-rate", 0.3, "--seed", 1, "--ledger", ledger)
        self.addCleanup(upstream.kill)
        options = self.configured(retry={"attempts": 10, "backoff_ms": 1, "budget_ratio": 1},
                                  breaker={"window": 1000, "min_calls": 1000})  # fmt: skip
        gateway = self.start(*options, port=upstream.port)
        client = self.connect(gateway)

        def stats():
            with contextlib.closing(Client(upstream.port)) as looks:
                return json.loads(looks.ask("/control/stats")[2])

        for method, body in (("GET", None), ("PUT", b"x")):
            ids = [f"{method}-{i}" for i in range(30)]
            before = stats()
            self.assertEqual([client.ask("/item", method, body, x_request_id=i)[0] for i in ids], [200] * 30)
            errors = stats()["errors"] - before["errors"]
            self.assertGreater(errors, 0)
            self.assertEqual(stats()["requests"] - before["requests"], 30 + errors)
            executed = ledger.read_text().split()
            self.assertEqual([i for i in executed if i.startswith(method)], ids)
        granted = self.figures(gateway)['cordon_retry_budget_granted_total{name="upstream"}']
        self.assertEqual(granted, stats()["errors"])

        before = stats()
        ids = [f"POST-{i}" for i in range(30)]
        status = {i: client.ask("/item", "POST", b"x", x_request_id=i)[0] for i in ids}
        self.assertEqual(stats()["requests"] - before["requests"], 30)
        self.assertEqual(set(status.values()), {200, 500})
        self.assertEqual([i for i in ledger.read_text().split() if i.startswith("POST")],
                         [i for i in ids if status[i] == 200])  # fmt: skip

    def test_a_slow_call_has_a_copy_unless_it_changes_something(self):
        options = ("--latency-ms", 2, "--latency-dist", "constant", "--slow-share", 0.4, "--slow-ms", 80)
        upstream = Program(UPSTREAM, *options)
        self.addCleanup(upstream.kill)
        gateway = self.start(*self.configured(hedge={"delay_ms": 20}, bulkhead=False), port=upstream.port)
        client = self.connect(gateway)

        def asked(requests, *methods, body=None):
            """Returns: how many calls the upstream saw, how many of them were copies, and how many of those won."""
            with contextlib.closing(Client(upstream.port)) as looks:
                before, figures = json.loads(looks.ask("/control/stats")[2])["requests"], self.figures(gateway)
                for n in range(requests):
                    method = methods[n % len(methods)]
                    status, headers, text = client.ask("/item", method, body, x_request_id=f"{method}-{n}")
                    self.assertEqual((status, headers["x-request-id"]), (200, f"{method}-{n}"))
                    if method != "HEAD":  # its own answer, and not a late one
                        self.assertIn(f'"{method}-{n}"', text.decode())
                after = self.figures(gateway)
                series = [f'cordon_hedge_{name}_total{{name="upstream"}}' for name in ("sent", "won")]
                now = json.loads(looks.ask("/control/stats")[2])["requests"]
                return now - before, *(after[name] - figures[name] for name in series)

        seen, sent, won = asked(40, "GET", "HEAD")
        self.assertGreater(won, 0)
        self.assertTrue(40 + won <= seen <= 40 + sent, (seen, sent, won))
        self.assertEqual(asked(10, "PUT", "POST", body=b"x"), (10, 0, 0))

    def test_a_queue_that_stands_is_shed_and_then_all_are_served_again(self):
        options = self.configured(deadline_ms=5000, requests={"concurrent": 1, "waiting": 100},
                                  shedder={"target_ms": 5, "interval_ms": 100})  # fmt: skip
        gateway = self.start(*options)
        self.control("latency?ms=20")
        self.addCleanup(self.control, "latency?ms=1")
        clients = [self.connect(gateway) for _ in range(60)]
        for client in clients:
            client.send_request()
        seen = [client.answer() for client in clients]
        shed = [body for status, _, body in seen if status == 503]
        self.assertTrue(10 < len(shed) < 60, shed)  # at first, and until it is noticed, all are served
        self.assertEqual(set(shed), {b"door: full\n"})
        self.assertEqual(clients[0].ask()[0], 200)  # which had not to wait
        figures = self.figures(gateway)
        counts = [figures[f'cordon_load_shedder_{name}_total{{name="door"}}'] for name in ("admitted", "rejected")]
        self.assertEqual(counts, [61 - len(shed), len(shed)])

    def test_the_figures_are_there_for_prometheus(self):
        options = self.configured(client={"per_second": 1, "burst": 3})
        gateway = self.start(*options, "--threads", 2)
        client = self.connect(gateway)
        self.assertEqual([client.ask()[0] for _ in range(5)], [200] * 3 + [429] * 2)
        self.until_figure(gateway, 'gateway_answers_sent_total{name="http",class="4xx"}', 2)
        seen = self.figures(gateway)
        for series, value in (
            ('gateway_answers_sent_total{name="http",class="4xx"}', 2),
            ('gateway_answers_sent_total{name="http",class="5xx"}', 0),
            ('cordon_keyed_limiter_rejected_total{name="clients"}', 2),
            ('cordon_keyed_limiter_keys{name="clients"}', 1),
            ('cordon_bulkhead_available{name="upstream"}', 256),
            ('cordon_retry_budget_rejected_total{name="upstream"}', 0),
            ('cordon_circuit_breaker_state{name="upstream",state="closed"}', 1),
        ):  # fmt: skip
            with self.subTest(series=series):
                self.assertEqual(seen[series], value)
        self.assertGreaterEqual(seen['gateway_answers_sent_total{name="http",class="2xx"}'], 3)  # and those of /metrics
        self.assertGreaterEqual(seen["cordon_tasks"], 2)  # the connections, at least

    # the routes

    def names_itself(self, name):
        """Returns: a stub whose answers say its name and what was asked for, and the configuration of a route to it."""

        def script(connection):
            while request := read_request(connection):
                connection.sendall(ok(f"{name} {request[0].split()[1]}".encode()))

        stub = self.stub(script)
        return stub, {"upstream": f"127.0.0.1:{stub.port}"}

    def start_with_routes(self, routes, *options, **more):
        gateway = Program(GATEWAY, "--listen", "127.0.0.1:0", "--log", self.log,
                          *self.configured(routes=routes, **more), *options)  # fmt: skip
        self.addCleanup(gateway.kill)
        return gateway

    def test_the_longest_prefix_that_fits_a_path_says_where_it_goes(self):
        routes = {prefix: self.names_itself(name)[1]
                  for name, prefix in (("a", "/a"), ("deep", "/a/b/"), ("dots", "/.x%20"))}  # fmt: skip
        gateway = self.start_with_routes(routes)
        client = self.connect(gateway)
        for target, name in (("/a", "a"), ("/a?x=/a/b/", "a"), ("/a/b", "a"), ("/a/b/", "deep"), ("/a/b/c?d", "deep"),
                             ("http://h/a/b/c", "deep"), ("/.x%20/1", "dots")):  # fmt: skip
            with self.subTest(target=target):
                self.assertEqual(client.ask(target)[::2], (200, f"{name} {target}".encode()))
        for target in ("/", "/ab", "/A", "http://h"):
            with self.subTest(target=target):
                self.assertEqual(client.ask(target)[::2], (404, b"no route has this path\n"))
        self.assertEqual(client.ask("/healthz")[0], 200)
        gateway.kill()
        rest = self.names_itself("rest")[0]
        client = self.connect(self.start_with_routes(routes, "--upstream", f"127.0.0.1:{rest.port}"))
        self.assertEqual([client.ask(target)[2] for target in ("/ab", "/a")], [b"rest /ab", b"a /a"])

    def test_a_connection_keeps_one_to_each_upstream_that_it_uses(self):
        (a, to_a), (b, to_b) = (self.names_itself(name) for name in "ab")
        gateway = self.start_with_routes({"/a": to_a, "/b": to_b, "/also-a": to_a})
        client = self.connect(gateway)
        for _ in range(10):
            self.assertEqual([client.ask(target)[0] for target in ("/a", "/b", "/also-a")], [200] * 3)
        self.assertEqual((a.connections, b.connections), (1, 1))
        c, to_c = self.names_itself("c")  # when the gateway started there were two upstreams, so there are two links
        self.configured(routes={"/a": to_a, "/b": to_b, "/c": to_c})
        gateway.signal(signal.SIGHUP)
        gateway.says("the configuration was read again")
        self.assertEqual([client.ask(target)[2] for target in ("/a", "/c", "/a")], [b"a /a", b"c /c", b"a /a"])
        self.assertEqual((a.connections, c.connections), (1, 1))  # b's was used least lately
        self.assertEqual(client.ask("/b")[2], b"b /b")

    # several upstreams

    def test_calls_go_to_the_upstreams_of_a_route_in_turn(self):
        (a, to_a), (b, to_b), (c, to_c) = (self.names_itself(name) for name in "abc")
        route = {"upstream": [to["upstream"] for to in (to_a, to_b, to_c)]}
        off = {"attempt_ms": False, "retry": False, "breaker": False, "bulkhead": False}
        client = self.connect(self.start_with_routes({"/all": route, "/none": route | off}))
        for path in ("/all", "/none"):
            seen = [client.ask(path, method, body)[2].decode().split()[0]
                    for method, body in (("GET", None), ("POST", b"x")) * 3]  # fmt: skip
            self.assertEqual(seen, list("abcabc"))
        self.assertEqual([stub.connections for stub in (a, b, c)], [1] * 3)

    def fails(self, heard):
        """Returns: the address of a stub that answers each request with 500, and notes it."""

        def script(connection):
            while request := read_request(connection):
                heard.append(request)
                connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

        return f"127.0.0.1:{self.stub(script).port}"

    def test_a_retry_goes_to_another_upstream(self):
        heard = []
        route = {"upstream": [self.fails(heard), self.names_itself("works")[1]["upstream"]]}
        more = {"retry": {"attempts": 2, "backoff_ms": 1}, "breaker": False}
        gateway = self.start_with_routes({"/a": route}, **more)
        client = self.connect(gateway)
        self.assertEqual([client.ask("/a")[::2] for _ in range(20)], [(200, b"works /a")] * 20)
        self.assertEqual(len(heard), 10)  # every second request began there
        self.assertEqual(self.figures(gateway)['cordon_retry_budget_granted_total{name="/a"}'], 10)
        self.assertEqual([client.ask("/a", "POST", b"x")[0] for _ in range(4)], [500, 200] * 2)

    def test_a_copy_goes_to_another_upstream(self):
        slow = Program(UPSTREAM, "--latency-ms", 2000, "--latency-dist", "constant")
        self.addCleanup(slow.kill)
        route = {"upstream": [f"127.0.0.1:{slow.port}", f"127.0.0.1:{self.upstream.port}"], "hedge": {"delay_ms": 20}}
        gateway = self.start_with_routes({"/a": route}, "--deadline-ms", 10_000, attempt_ms=False)
        client = self.connect(gateway)
        began = time.monotonic()
        for n in range(10):
            status, _, text = client.ask("/a", x_request_id=f"r-{n}")
            self.assertEqual((status, json.loads(text)["x-request-id"]), (200, f"r-{n}"))
        self.assertLess(time.monotonic() - began, 1.5)
        figures = self.figures(gateway)
        self.assertEqual([figures[f'cordon_hedge_{name}_total{{name="/a"}}'] for name in ("sent", "won")], [5, 5])

    def test_an_upstream_whose_breaker_is_open_is_passed_over(self):
        heard, more = [], {"retry": False, "breaker": {"window": 4, "min_calls": 2, "open_for_ms": 60_000}}
        bad, good = self.fails(heard), self.names_itself("works")[1]["upstream"]
        gateway = self.start_with_routes({"/a": {"upstream": [bad, good]}}, **more)
        client = self.connect(gateway)
        self.assertEqual([client.ask("/a")[0] for _ in range(3)], [500, 200, 500])
        self.assertEqual([client.ask("/a")[0] for _ in range(10)], [200] * 10)
        self.assertEqual(len(heard), 2)
        figures = self.figures(gateway)
        for upstream, state in ((bad, "open"), (good, "closed")):
            series = f'cordon_circuit_breaker_state{{name="/a",upstream="{upstream}",state="{state}"}}'
            self.assertEqual(figures[series], 1, series)

        worse = self.fails(heard)  # what is known of an upstream stays while it does, and goes with it
        for upstreams, expected in (([bad, good, worse], [200, 500, 200, 500] + [200] * 6), ([worse, bad], [503] * 4),
                                    ([good], [200] * 4), ([bad, good], [500, 200, 500] + [200] * 4)):  # fmt: skip
            with self.subTest(upstreams=upstreams):
                self.configured(routes={"/a": {"upstream": upstreams}}, **more)
                gateway.signal(signal.SIGHUP)
                gateway.says("the configuration was read again")
                seen = [client.ask("/a") for _ in expected]
                self.assertEqual(sorted(status for status, _, _ in seen), sorted(expected))
                if 503 in expected:
                    self.assertEqual(seen[0][2], b"/a: circuit open\n")

    def test_a_route_that_hangs_takes_no_more_than_its_own_places(self):
        hangs = Program(UPSTREAM, "--latency-ms", 0)
        self.addCleanup(hangs.kill)
        with contextlib.closing(Client(hangs.port)) as client:
            client.ask("/control/hang?on=1", "POST")
        gateway = self.start_with_routes(
            {"/hangs": {"upstream": f"127.0.0.1:{hangs.port}", "bulkhead": {"concurrent": 2, "waiting": 0}},
             "/works": {"upstream": f"127.0.0.1:{self.upstream.port}"}},
            deadline_ms=20_000, attempt_ms=False, retry=False, breaker=False,
            requests={"concurrent": 3, "waiting": 0})  # fmt: skip
        first, second, other = (self.connect(gateway) for _ in range(3))
        for client in (first, second):
            client.send_request("/hangs")
        self.until_figure(gateway, 'cordon_bulkhead_in_use{name="/hangs"}', 2)
        status, _, body = other.ask("/hangs")
        self.assertEqual((status, body), (503, b"/hangs: full\n"))
        self.assertEqual([other.ask("/works")[0] for _ in range(5)], [200] * 5)
        with contextlib.closing(Client(hangs.port)) as client:
            client.ask("/control/hang?on=0", "POST")
        self.assertEqual([client.answer()[0] for client in (first, second)], [200] * 2)

    def test_a_route_has_a_deadline_of_its_own(self):
        to = {"upstream": f"127.0.0.1:{self.upstream.port}", "attempt_ms": False}
        client = self.connect(self.start_with_routes({"/a": to, "/b": to | {"deadline_ms": 10_000}}, deadline_ms=5000))
        given = {target: milliseconds_of(json.loads(client.ask(target)[2])["grpc-timeout"]) for target in ("/a", "/b")}
        self.assertTrue(given["/a"] < 5000 < given["/b"] < 10_000, given)

    def test_requests_beyond_those_of_all_routes_wait_or_are_refused(self):
        self.control("hang?on=1")
        self.addCleanup(self.control, "hang?on=0")
        to = {"upstream": f"127.0.0.1:{self.upstream.port}"}
        gateway = self.start_with_routes({"/a": to, "/b": to}, deadline_ms=5000, attempt_ms=5000,
                                         requests={"concurrent": 1, "waiting": 1})  # fmt: skip
        runs, waits, comes = (self.connect(gateway) for _ in range(3))
        runs.send_request("/a")
        self.until_figure(gateway, 'cordon_bulkhead_in_use{name="requests"}', 1)
        waits.send_request("/b")
        self.until_figure(gateway, 'cordon_bulkhead_waiting{name="requests"}', 1)
        self.assertEqual(comes.ask("/b")[::2], (503, b"requests: full\n"))
        self.assertEqual(comes.ask("/healthz")[0], 200)
        self.control("hang?on=0")
        self.assertEqual([client.answer()[0] for client in (runs, waits)], [200] * 2)
        self.control("hang?on=1")
        runs.send_request("/a")
        self.until_figure(gateway, 'cordon_bulkhead_in_use{name="requests"}', 1)
        self.assertEqual(waits.ask("/b", grpc_timeout="50m")[0], 504)  # its time was over while it waited

    def test_guards_that_the_file_turns_off_are_gone(self):
        def script(connection):
            while read_request(connection):
                connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

        fails = {"upstream": f"127.0.0.1:{self.stub(script).port}"}
        gateway = self.start_with_routes({"/all": fails, "/some": fails | {"retry": {}, "breaker": False}},
                                         "--deadline-ms", 5000, attempt_ms=False, retry=False, breaker=False,
                                         bulkhead=False)  # fmt: skip
        client = self.connect(gateway)
        for target in ("/all", "/some"):
            self.assertEqual({client.ask(target)[0] for _ in range(50)}, {500})
        names = [series.partition("{")[0] for series in self.figures(gateway) if "/all" in series or "/some" in series]
        self.assertEqual({name.partition("_budget")[0] for name in names}, {"cordon_retry"})

    @unittest.skipUnless(SERVER, "redis-server is not installed")
    def test_a_route_to_redis_answers_with_values_that_it_keeps(self):
        redis = self.enterContext(Redis())
        route = {"upstream": f"127.0.0.1:{redis.port}", "redis": {"connections": 2, "keep_ms": 600_000}}
        gateway = self.start_with_routes({"/prices": route}, "--threads", 2)
        client = self.connect(gateway)
        for key, value in ((b"/prices/tea", b"5"), (b"/prices/%20", b"\0\r\n"), (b"/other", b"x")):
            self.assertEqual(redis.command(b"SET", key, value), b"+OK\r\n")
        status, headers, body = client.ask("/prices/tea?unit=g")
        self.assertEqual((status, headers["content-type"], body), (200, "application/octet-stream", b"5"))
        self.assertEqual(client.ask("/prices/%20")[2], b"\0\r\n")
        status, headers, _ = client.ask("/prices/tea", "HEAD")
        self.assertEqual((status, headers["content-length"]), (200, "1"))
        self.assertEqual(client.ask("/prices/none")[::2], (404, b"there is no such key\n"))
        self.assertEqual(client.ask("/other")[0], 404)  # no route

        redis.command(b"LPUSH", b"/prices/list", b"1")
        status, _, body = client.ask("/prices/list")
        self.assertEqual(status, 502)
        self.assertIn(b"no answer from the upstream: redis: -WRONGTYPE", body)
        status, headers, _ = self.connect(gateway).ask("/prices/tea", "PUT", b"6")
        self.assertEqual((status, headers["allow"]), (405, "GET, HEAD"))

        redis.command(b"CLIENT", b"PAUSE", b"100")  # so that they all want it at the same time
        clients = [self.connect(gateway) for _ in range(10)]
        for each in clients:
            each.send_request("/prices/new")
        self.assertEqual({each.answer()[0] for each in clients}, {404})
        figures = self.figures(gateway)
        self.assertEqual(figures['cordon_single_flight_calls_total{name="/prices"}'], 5)
        self.assertEqual(figures['cordon_cache_entries{name="/prices"}'], 4)
        self.configured(routes={"/prices": route | {"redis": {"connections": 3, "keep_ms": 500_000}}})
        gateway.signal(signal.SIGHUP)
        gateway.says("the configuration was read again")
        redis.end()
        self.assertEqual([client.ask(f"/prices/{key}")[0] for key in ("tea", "none", "new", "late")],
                         [200, 404, 404, 502])  # fmt: skip
        gateway.signal()
        for each in (client, *clients):
            each.close()
        self.assertEqual(self.ended(gateway)[0]["failed"], "0")

    @unittest.skipUnless(SERVER, "redis-server is not installed")
    def test_an_old_value_answers_for_a_redis_that_is_gone(self):
        redis = self.enterContext(Redis())
        route = {"upstream": f"127.0.0.1:{redis.port}", "redis": {"keep_ms": 1, "stale_ms": 600_000}}
        gateway = self.start_with_routes({"/": route}, retry=False, breaker={"window": 2, "min_calls": 2})
        client = self.connect(gateway)
        redis.command(b"SET", b"/tea", b"5")
        self.assertEqual(client.ask("/tea")[::2], (200, b"5"))
        redis.end()
        self.assertEqual([client.ask("/tea")[::2] for _ in range(4)], [(200, b"5")] * 4)
        self.assertEqual(self.figures(gateway)['cordon_circuit_breaker_state{name="/",state="open"}'], 1)
        self.assertEqual(client.ask("/coffee")[::2], (503, b"/: circuit open\n"))

    @unittest.skipUnless(SERVER, "redis-server is not installed")
    def test_sighup_closes_what_leads_to_a_redis_that_no_route_has_any_more(self):
        redis = self.enterContext(Redis())
        route = {"upstream": f"127.0.0.1:{redis.port}", "redis": {"connections": 2}}
        gateway = self.start_with_routes({"/a": route, "/b": route}, "--threads", 2)

        def pooled(prefix, figure):
            return f'cordon_resource_pool_{figure}{{name="{prefix}",thread="%d"}}'

        def sum_of(series):
            figures = self.figures(gateway)
            return sum(figures[series % thread] for thread in (0, 1))

        self.assertEqual([sum_of(pooled("/a", figure)) for figure in ("limit", "created_total")], [4, 0])
        client = self.connect(gateway)
        self.assertEqual([client.ask(target)[0] for target in ("/a", "/b")], [404] * 2)
        self.assertEqual([sum_of(pooled(prefix, "idle")) for prefix in ("/a", "/b")], [1, 1])
        self.until_connected(redis, 2)
        route = route | {"redis": {"connections": 3}}
        self.configured(routes={"/b": route, "/c": route})
        gateway.signal(signal.SIGHUP)
        gateway.says("the configuration was read again")
        self.until_connected(redis, 1)
        for prefix in ("/b", "/c"):  # on both threads, each of which hears of it on its own
            self.until_figure(gateway, pooled(prefix, "limit") % 0, 3)
            self.until_figure(gateway, pooled(prefix, "limit") % 1, 3)
        self.assertFalse([series for series in self.figures(gateway) if '"/a"' in series])
        self.assertEqual([client.ask(target)[0] for target in ("/a", "/b/new", "/c")], [404] * 3)
        self.assertEqual([sum_of(pooled(prefix, "created_total")) for prefix in ("/b", "/c")], [1, 1])
        self.configured(routes={"/c": {"upstream": f"127.0.0.1:{self.upstream.port}"}})
        gateway.signal(signal.SIGHUP)
        self.until_connected(redis, 0)

    def test_look_ups_that_sighup_meets_have_their_answers(self):
        answers, ended = threading.Event(), threading.Event()

        def script(connection):
            connection.recv(4096)
            answers.wait(5)
            connection.sendall(b"$1\r\n5\r\n")
            with contextlib.suppress(ConnectionResetError):
                connection.recv(1)
            ended.set()

        route = {"upstream": f"127.0.0.1:{self.stub(script).port}", "redis": {}}
        gateway = self.start_with_routes({"/a": route}, deadline_ms=5000, attempt_ms=False)
        client, late = self.connect(gateway), self.connect(gateway)
        late.send_request("/a/late", expect="100-continue", content_length=1)
        self.assertEqual(late.stream.readline() + late.stream.readline(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send_request("/a")
        self.until_figure(gateway, 'cordon_resource_pool_in_use{name="/a",thread="0"}', 1)
        self.configured(routes={"/c": {"upstream": f"127.0.0.1:{self.upstream.port}"}})
        gateway.signal(signal.SIGHUP)
        gateway.says("the configuration was read again")
        answers.set()
        self.assertEqual(client.answer()[::2], (200, b"5"))
        self.assertTrue(ended.wait(5))
        ended.clear()
        late.sendall(b"x")
        self.assertEqual(late.answer()[::2], (200, b"5"))
        self.assertTrue(ended.wait(5))
        self.assertEqual(client.ask("/a")[0], 404)

    def test_sighup_refuses_more_connections_than_there_may_be_files(self):
        route = {"upstream": f"127.0.0.1:{self.upstream.port}"}
        gateway = Program(GATEWAY, "--listen", "127.0.0.1:0", "--log", self.log, "--max-connections", 10,
                          *self.configured(routes={"/a": route}),
                          limits=[(resource.RLIMIT_NOFILE, 70, 100)])  # fmt: skip
        self.addCleanup(gateway.kill)
        client = self.connect(gateway)
        self.assertEqual(client.ask("/b")[0], 404)
        self.configured(routes={"/b": route | {"redis": {"connections": 40}}})
        gateway.signal(signal.SIGHUP)
        gateway.says("the configuration was read again")
        self.configured(routes={"/c": route | {"redis": {"connections": 41}}})
        gateway.signal(signal.SIGHUP)
        said = gateway.says("stays as it was")
        self.assertIn('the sum of redis.connections is "41", allowed is a number up to 40', said)
        self.assertEqual([client.ask(target)[0] for target in ("/a", "/c")], [404] * 2)

    def test_sighup_changes_routes_and_keeps_what_their_breakers_know(self):
        def script(connection):
            while read_request(connection):
                connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

        fails = {"upstream": f"127.0.0.1:{self.stub(script).port}"}
        more = {"retry": {"attempts": 1}, "breaker": {"window": 2, "min_calls": 2, "open_for_ms": 60_000}}
        gateway = self.start_with_routes({"/a": fails}, **more)
        client = self.connect(gateway)
        self.assertEqual([client.ask(target)[0] for target in ("/a", "/a", "/a", "/b")], [500, 500, 503, 404])
        self.configured(routes={"/a": fails, "/b": self.names_itself("b")[1]}, **more)
        gateway.signal(signal.SIGHUP)
        gateway.says("the configuration was read again")
        self.assertEqual([client.ask(target)[0] for target in ("/a", "/b")], [503, 200])
        self.configured(routes={"/a": {}}, **more)
        gateway.signal(signal.SIGHUP)
        said = gateway.says("stays as it was")
        self.assertIn('routes["/a"] is an object, allowed is one that names its upstream', said)
        self.assertEqual([client.ask(target)[0] for target in ("/a", "/b")], [503, 200])

    # the configuration

    def test_sighup_changes_what_is_allowed_and_drops_nothing(self):
        gateway = self.start(*self.configured(client={"per_second": 1, "burst": 2}, bulkhead={"concurrent": 8}))
        self.control("latency?ms=400")
        self.addCleanup(self.control, "latency?ms=1")
        slow, client = self.connect(gateway), self.connect(gateway)
        slow.send_request()
        self.until_figure(gateway, 'cordon_bulkhead_in_use{name="upstream"}', 1)
        self.control("latency?ms=1")
        self.assertEqual([client.ask()[0] for _ in range(2)], [200, 429])
        self.configured(client={"per_second": 1, "burst": 20}, bulkhead={"concurrent": 9})
        gateway.signal(signal.SIGHUP)
        gateway.says("the configuration was read again")
        self.assertEqual([client.ask()[0] for _ in range(21)], [200] * 20 + [429])
        self.assertEqual(self.figures(gateway)['cordon_bulkhead_available{name="upstream"}'], 8)  # and one in use
        self.assertEqual(slow.answer()[0], 200)
        self.until_figure(gateway, 'cordon_bulkhead_available{name="upstream"}', 9)

    def test_sighup_keeps_what_guards_know_whose_numbers_stay_and_tells_them_others(self):
        to = self.names_itself("a")[1] | {"retry": {"budget_ratio": 0}, "hedge": {"delay_ms": 50}}
        more = {"client": {"per_second": 1, "burst": 10}, "requests": {"concurrent": 2, "waiting": 1}, "shedder": {}}
        gateway = self.start_with_routes({"/a": to}, **more)

        def read_again(**changed):
            self.configured(**({"routes": {"/a": to}} | more | changed))
            gateway.signal(signal.SIGHUP)
            gateway.says("the configuration was read again")
            return self.figures(gateway)

        client = self.connect(gateway)
        self.assertEqual([client.ask("/a")[0] for _ in range(5)], [200] * 5)
        admitted = 'cordon_load_shedder_admitted_total{name="door"}'
        figures = read_again(shedder={"target_ms": 50, "interval_ms": 60_000})
        self.assertEqual((figures[admitted], figures['cordon_keyed_limiter_keys{name="clients"}']), (5, 1))
        self.assertEqual([client.ask("/a")[0] for _ in range(6)], [200] * 5 + [429])
        to |= {"retry": {"budget_ratio": 1}, "hedge": {"delay_ms": 70}}
        figures = read_again(requests={"concurrent": 3, "waiting": 1})
        self.assertEqual((figures[admitted], figures['cordon_bulkhead_available{name="requests"}']), (10, 3))
        self.assertEqual(figures['cordon_hedge_delay_seconds{name="/a"}'], 0.07)
        figures = read_again(client={"per_second": 1, "burst": 2}, requests={"concurrent": 3, "waiting": 2})
        self.assertEqual((figures[admitted], figures['cordon_keyed_limiter_keys{name="clients"}']), (10, 0))
        self.assertEqual([client.ask("/a")[0] for _ in range(3)], [200, 200, 429])
        to |= {"upstream": self.names_itself("b")[1]["upstream"]}
        read_again(client={"per_second": 1, "burst": 3})
        self.assertEqual(client.ask("/a")[2], b"b /a")

    def test_sighup_lets_no_more_calls_through_than_there_are_places(self):
        to = {"upstream": f"127.0.0.1:{self.upstream.port}"}
        gateway = self.start_with_routes({"/a": to}, deadline_ms=5000, attempt_ms=False,
                                         bulkhead={"concurrent": 2, "waiting": 0})  # fmt: skip
        self.control("hang?on=1")
        self.addCleanup(self.control, "hang?on=0")
        first, second, third = (self.connect(gateway) for _ in range(3))
        first.send_request("/a")
        self.until_figure(gateway, 'cordon_bulkhead_in_use{name="/a"}', 1)
        self.configured(routes={"/a": to}, deadline_ms=5000, attempt_ms=False, bulkhead={"concurrent": 1, "waiting": 0})
        gateway.signal(signal.SIGHUP)
        gateway.says("the configuration was read again")
        self.assertEqual(second.ask("/a")[::2], (503, b"/a: full\n"))
        self.configured(routes={"/a": to}, deadline_ms=5000, attempt_ms=False, bulkhead=False)
        gateway.signal(signal.SIGHUP)
        gateway.says("the configuration was read again")
        second.send_request("/a")
        third.send_request("/a")
        self.until(lambda: self.control("stats", "GET")["hanging"] == 3, "three calls")
        self.control("hang?on=0")
        self.assertEqual([client.answer()[0] for client in (first, second, third)], [200] * 3)

    def test_sighup_keeps_what_the_breaker_knows_unless_the_upstream_is_another(self):
        def script(connection):
            while read_request(connection):
                connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

        rest = {"retry": {"attempts": 1}, "breaker": {"window": 2, "min_calls": 2, "open_for_ms": 60_000}}
        options = self.configured(upstream=f"127.0.0.1:{self.stub(script).port}", **rest)
        gateway = Program(GATEWAY, "--listen", "127.0.0.1:0", "--log", self.log, *options)
        self.addCleanup(gateway.kill)
        client = self.connect(gateway)
        self.assertEqual([client.ask()[0] for _ in range(3)], [500, 500, 503])
        gateway.signal(signal.SIGHUP)
        gateway.says("the configuration was read again")
        self.assertEqual(client.ask()[0], 503)
        self.configured(upstream=f"127.0.0.1:{self.upstream.port}", **rest)
        gateway.signal(signal.SIGHUP)
        gateway.says("the configuration was read again")
        self.assertEqual(client.ask()[0], 200)

    def test_sighup_with_a_bad_file_keeps_what_was(self):
        gateway = self.start(*self.configured(client={"per_second": 1, "burst": 2}))
        client = self.connect(gateway)
        self.assertEqual(client.ask()[0], 200)
        stays = "gateway: the configuration stays as it was: "
        for text, problem in (
            ('{"client": {"burst": 1000,\n"per_second": 0}}',
             f"{self.config}:2: client.per_second is 0, allowed is a number from 1 to 1000000"),
            (None, f'--config is "{self.config}", allowed is a file that can be read'),
        ):  # fmt: skip
            with self.subTest(text=text):
                if text is not None:
                    self.config.write_text(text)
                else:
                    self.config.unlink()
                gateway.signal(signal.SIGHUP)
                self.assertEqual(gateway.says("gateway: "), f"{stays}{problem}\n")
        self.assertEqual([client.ask()[0] for _ in range(2)], [200, 429])

    def test_sighup_cannot_move_the_listener(self):
        options = self.configured(listen="127.0.0.1:0", upstream=f"127.0.0.1:{self.upstream.port}")
        gateway = Program(GATEWAY, "--log", self.log, *options)
        self.addCleanup(gateway.kill)
        self.assertEqual(self.connect(gateway).ask()[0], 200)
        self.configured(listen="127.0.0.1:1", upstream="127.0.0.1:1")
        gateway.signal(signal.SIGHUP)
        self.assertIn("listen can only change when the gateway starts anew", gateway.says("gateway: "))
        self.assertEqual(self.connect(gateway).ask()[0], 200)

    def test_a_bad_configuration_does_not_start(self):
        self.config.write_text('{\n "breaker": {\n  "failure_rate": 2\n}}')
        done = self.run_limited(["--config", self.config], [])
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(done.stderr, f"gateway: {self.config}:3: breaker.failure_rate is 2, "
                                      "allowed is a number from 0.001 to 1\n")  # fmt: skip

    # the upstream of the example

    def test_the_upstream_executes_so_many_at_a_time_in_order_and_fails_as_told(self):
        upstream = Program(UPSTREAM, "--latency-ms", 100, "--latency-dist", "constant", "--concurrent", 1)
        self.addCleanup(upstream.kill)
        clients = [Client(upstream.port) for _ in range(3)]
        for client in clients:
            self.addCleanup(client.close)
        began = time.monotonic()
        for client in clients:
            client.send_request()
            time.sleep(0.01)
        clients[1].close()  # before its turn: it costs no time
        self.assertEqual([clients[i].answer()[0] for i in (0, 2)], [200] * 2)
        self.assertGreaterEqual(time.monotonic() - began, 0.2)
        seen = json.loads(clients[0].ask("/control/errors?rate=1", "POST")[2])
        self.assertEqual((seen["requests"], seen["executed"], seen["abandoned"]), (3, 2, 1))
        self.assertEqual(clients[0].ask()[0], 500)
        self.assertEqual(clients[0].ask("/control/errors?rate=2", "POST")[0], 400)

    # the bound, and the end

    def test_connections_beyond_the_bound_wait(self):
        for threads in (1, 3):  # whose bound is one for all of them
            with self.subTest(threads=threads):
                self.check_the_bound(self.start("--max-connections", 2, "--threads", threads, "--drain-ms", 1000))

    def check_the_bound(self, gateway):
        first, second = (self.connect(gateway) for _ in range(2))
        self.assertEqual((first.ask()[0], second.ask()[0]), (200, 200))
        third = self.connect(gateway)
        third.send_request()
        third.settimeout(0.2)
        with self.assertRaises(TimeoutError):
            third.recv(1)
        third.settimeout(5)
        first.close()
        self.assertEqual(third.answer()[0], 200)
        late = self.connect(gateway)  # beyond the bound when the signal comes: served when there is room
        late.send_request()
        gateway.signal()
        self.assertEqual(late.answer()[0], 200)
        self.assertEqual(self.ended(gateway)[0]["never_served"], "0")

    def test_the_limit_of_open_files_is_raised_to_what_the_connections_need(self):
        gateway = self.start("--max-connections", 100, limits=[(resource.RLIMIT_NOFILE, 40, 400)])
        clients = [self.connect(gateway) for _ in range(100)]
        self.assertEqual([client.ask()[0] for client in clients], [200] * 100)
        done = self.run_limited(["--max-connections", "100"], [(resource.RLIMIT_NOFILE, 40, 200)])
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn('--max-connections is "100", allowed is what the limit of open files (ulimit -n)', done.stderr)

    def test_more_queued_connections_than_descriptors_are_served_in_the_drain(self):
        gateway = self.start("--max-connections", 1, limits=[(resource.RLIMIT_NOFILE, 70, 70)])
        first = self.connect(gateway)
        self.assertEqual(first.ask()[0], 200)
        queued = [self.connect(gateway) for _ in range(100)]
        for client in queued:
            client.send_request()
        gateway.signal()
        first.close()
        for client in queued:
            self.assertEqual(client.answer()[0], 200)
            client.close()
        report, left = self.ended(gateway)
        self.assertEqual((report["connections"], report["never_served"], left), ("101", "0", []))

    def run_limited(self, options, limits):
        """Returns: how the gateway ended, whose limits do not let it start."""
        return subprocess.run([GATEWAY, *options, "--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:1"], timeout=5,
                              capture_output=True, text=True, check=False, preexec_fn=lambda: set_limits(limits),
                              env=os.environ | {"MALLOC_ARENA_MAX": "1"})  # fmt: skip

    def test_threads_that_run_end_again_if_another_cannot_start(self):
        room = [(resource.RLIMIT_AS, 512 << 20, 512 << 20), (resource.RLIMIT_STACK, 64 << 20, resource.RLIM_INFINITY)]
        if self.run_limited(["--help"], room).returncode != 0:
            self.skipTest("the gateway does not start in 512 MiB of address space, as under a sanitizer")
        done = self.run_limited(["--threads", "16"], room)  # of which each takes 64 MiB for its stack
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr, "gateway: Resource temporarily unavailable\n")

    def test_sigterm_answers_what_is_in_flight_and_a_last_request(self):
        self.control("latency?ms=300")
        self.addCleanup(self.control, "latency?ms=1")
        gateway = self.start("--drain-ms", 2000)
        health, ready, idle, active, slow = (self.connect(gateway) for _ in range(5))
        self.assertEqual(ready.ask("/readyz")[0], 200)
        for client in (health, idle):
            client.ask("/healthz")
        active.sendall(GET * 2)
        slow.sendall(GET[:10])
        time.sleep(0.05)
        gateway.signal()
        time.sleep(0.05)
        with self.assertRaises(ConnectionRefusedError):
            Client(gateway.port)
        slow.sendall(GET[10:])
        status, headers, _ = ready.ask("/readyz")
        self.assertEqual((status, headers["connection"]), (503, "close"))
        self.assertEqual(health.ask("/healthz")[0], 200)
        self.assertEqual(active.answer()[0], 200)  # the second one was in flight, too
        for client in (active, slow):
            status, headers, _ = client.answer()
            self.assertEqual((status, headers["connection"]), (200, "close"))
        for client in (ready, health, active, slow, idle):
            self.assertTrue(client.at_end())
            client.close()
        report, left = self.ended(gateway, 1)
        self.assertEqual((report["tasks_left"], report["never_served"], left), ("0", "0", []))

    def test_several_threads_serve_and_drain_together(self):
        gateway = self.start("--threads", 3)
        clients = [self.connect(gateway) for _ in range(30)]
        for _ in range(2):
            for client in clients:
                client.send_request()
            for client in clients:
                self.assertEqual(client.answer()[0], 200)
        for client in clients:
            client.send_request()
        gateway.signal()
        for client in clients:
            self.assertEqual(client.answer()[0], 200)
            client.close()
        report, left = self.ended(gateway)
        self.assertEqual((report["connections"], report["requests"], report["tasks_left"], left), ("30", "90", "0", []))

    def test_the_dump_says_what_every_task_waits_for(self):
        self.control("latency?ms=400")
        self.addCleanup(self.control, "latency?ms=1")
        gateway = self.start()
        asks, looks = self.connect(gateway), self.connect(gateway)
        asks.send_request()
        time.sleep(0.1)
        peer = "127.0.0.1:%d" % asks.getsockname()[1]
        status, headers, text = looks.ask("/debug/tasks")
        self.assertEqual((status, headers["content-type"]), (200, "text/plain"))
        entry = text.decode().partition(f'"{peer}"')[2]
        self.assertRegex(entry, r"(?s)^  alive \d+ ms  spawned at server.hpp:\d+ in start.*?in converse\n")
        self.assertIn("event ending", text.decode())
        status, headers, text = looks.ask("/debug/tasks?format=json")
        self.assertEqual((status, headers["content-type"]), (200, "application/json"))
        (task,) = (task for task in json.loads(text)["tasks"] if task["name"] == peer)
        self.assertEqual(task["waits_for"], "an Asio operation")
        self.assertIn("converse", [place["function"] for place in task["waits"]])
        gateway.signal(signal.SIGQUIT)
        self.assertEqual(asks.answer()[0], 200)
        gateway.signal()
        for client in (asks, looks):
            client.close()
        out, err = gateway.process.communicate(timeout=5)
        self.assertEqual(gateway.process.returncode, 0)
        self.assertIn(f'"{peer}"', err.decode())

    def test_sigterm_serves_connections_that_nobody_has_accepted_yet(self):
        gateway = self.start()
        idle = [self.connect(gateway) for _ in range(10)]
        for client in idle:
            client.ask("/healthz")
        gateway.signal(signal.SIGSTOP)
        queued = [self.connect(gateway) for _ in range(10)]
        for client in idle + queued:
            client.send_request()
        gateway.signal(signal.SIGTERM)
        gateway.signal(signal.SIGCONT)
        for client in idle + queued:
            self.assertEqual(client.answer()[0], 200)
            client.close()
        self.assertEqual(self.ended(gateway)[0]["tasks_left"], "0")

    def test_the_drain_deadline_and_a_second_signal_stop_the_rest_and_name_it(self):
        self.control("hang?on=1")
        self.addCleanup(self.control, "hang?on=0")
        for drain_ms, signals in ((300, 1), (20_000, 2)):
            with self.subTest(drain_ms=drain_ms):
                gateway = self.start("--deadline-ms", 30_000, "--drain-ms", drain_ms)
                client = self.connect(gateway)
                client.send_request()
                time.sleep(0.1)
                for _ in range(signals):
                    gateway.signal()
                    time.sleep(0.1)
                report, left = self.ended(gateway, 2)
                self.assertEqual(report["tasks_left"], "1")
                self.assertIn("127.0.0.1:%d" % client.getsockname()[1], left[0])
                self.assertIn("in converse", "".join(left[1:]))

    # the command line

    def test_every_option_is_checked(self):
        def said(*options):
            done = subprocess.run([GATEWAY, *options], capture_output=True, text=True, timeout=5, check=False)
            self.assertEqual(done.returncode, 1, options)
            return done.stderr

        upstream = ("--upstream", "127.0.0.1:1")
        for option, value, allowed in (
            ("--deadline-ms", "0", "from 1 to 600000"), ("--deadline-ms", "600001", "from 1 to 600000"),
            ("--drain-ms", "-1", "from 1 to"), ("--header-ms", "1s", "from 1 to"), ("--idle-ms", "", "from 1 to"),
            ("--max-connections", "0", "from 1 to 1000000"), ("--max-header-bytes", "63", "from 64 to"),
            ("--max-body-bytes", "99999999999999999999", "from 0 to"), ("--threads", "0", "from 1 to 256"),
            ("--listen", "localhost", "an address"), ("--listen", "::1:80", "an address"),
            ("--upstream", "1.2.3.4.5:80", "an address"), ("--log", "/nonexistent/log", "a file"),
        ):  # fmt: skip
            error = said(*upstream, option, value)
            for part in (option, f'"{value}"', allowed):
                self.assertIn(part, error)
        self.assertIn("--upstream is missing", said())
        self.assertIn("--what is not an option", said("--what", "1"))
        self.assertIn("lacks a value", said("--listen"))
        self.assertIn("port", said(*upstream, "--listen", "127.0.0.1:65536"))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.assertIn("in use", said(*upstream, "--listen", f"127.0.0.1:{taken.getsockname()[1]}"))
        done = subprocess.run([GATEWAY, "--help"], capture_output=True, text=True, timeout=5, check=True)
        self.assertIn("--drain-ms", done.stdout)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
