#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Sends HTTP/1.1 requests over keep-alive connections and keeps a ledger of what became of each.

Every request has its own id (header X-Request-Id) and exactly one outcome:

  ok                 a complete answer with a status below 400
  http_<status>      a complete answer with another status
  wrong_answer       an answer that names another request's id, or is not HTTP
  refused            no connection could be made
  reset_before_send  the connection broke before all of the request was handed to the kernel
  reset_after_send   the request was sent; the connection ended before the answer was complete
  timeout            no complete answer within --timeout-ms

An end that the server announced (Connection: close) is no error. A keep-alive connection that the server closed
unannounced while it was idle is counted apart (closed_idle): nothing was sent on it, and the request that would have
used it goes out on a new one.

The ledger (--ids) has a line per request: id, outcome, connected_at, sent_at, ended_at, nth (the request's number on
its connection), in_flight. Times are CLOCK_MONOTONIC seconds, `-` where it did not come to that; sent_at is taken when
the kernel has the whole request. in_flight is 1 if sent_at <= the time in --marker-file < ended_at; that file may
appear at any time before the end, and without it the column is `-`. A summary goes to stdout as JSON.
"""

import argparse
import asyncio
import collections
import dataclasses
import itertools
import json
import os
import signal
import socket
import sys
import time


@dataclasses.dataclass(slots=True)
class Row:
    id: str
    outcome: str = "-"
    due_at: float = 0
    connected_at: float | None = None
    sent_at: float | None = None
    ended_at: float = 0
    nth: int = 0

    def answered(self):
        return self.outcome == "ok" or self.outcome.startswith("http_")

    def in_flight(self, marker):
        return self.sent_at is not None and self.sent_at <= marker < self.ended_at


class Broken(Exception):
    """The connection ended before the answer was complete."""


class Connection:
    """A socket used directly, so that what the kernel has taken and what has arrived is known exactly."""

    def __init__(self, sock, limit):
        self.sock = sock
        self.opened_at = time.monotonic()
        self.requests = 0
        self.limit = limit
        self.buffer = b""

    @staticmethod
    async def open(address, limit):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return Connection(sock, limit)

    def close(self):
        self.sock.close()

    def closed_by_peer(self):
        """Between two requests: whether the server closed, or said something that nobody asked for."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except ConnectionError:
            pass
        return True

    async def send(self, data):
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def _more(self):
        """Returns: whether anything came; not so at the end of the stream."""
        try:
            data = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
        except ConnectionError as error:
            raise Broken from error
        self.buffer += data
        return bool(data)

    async def _until(self, mark):
        while mark not in self.buffer:
            if not await self._more():
                raise Broken
        found, _, self.buffer = self.buffer.partition(mark)
        return found

    async def _exactly(self, size):
        while len(self.buffer) < size:
            if not await self._more():
                raise Broken
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    async def answer(self):
        """Reads one answer. Returns: status, body, and whether the connection may carry another request."""
        first, *lines = (await self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, status = first.split(" ")[:2]
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        connection = headers.get("connection", "").lower()
        keep = "close" not in connection and (version == "HTTP/1.1" or "keep-alive" in connection)
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while size := int((await self._until(b"\r\n")).split(b";")[0], 16):
                body += await self._exactly(size)
                await self._exactly(2)
            while await self._until(b"\r\n"):
                pass
        elif "content-length" in headers:
            body = await self._exactly(int(headers["content-length"]))
        elif status in ("204", "304"):
            body = b""
        else:
            while await self._more():
                pass
            body, self.buffer, keep = self.buffer, b"", False
        return int(status), body, keep


class Load:
    def __init__(self, options):
        self.options = options
        self.rows = []
        self.closed_idle = 0
        self.stopping = asyncio.Event()
        self.numbers = itertools.count()
        self.started_at = time.monotonic()

    async def run(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self.stopping.set)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.watch_for_the_end())
            for worker in range(self.options.connections):
                group.create_task(self.work(worker))

    async def watch_for_the_end(self):
        end = self.started_at + self.options.seconds
        while not self.stopping.is_set() and time.monotonic() < end:
            if self.options.stop_file and os.path.exists(self.options.stop_file):
                break
            await self.pause(min(0.02, end - time.monotonic()))
        self.stopping.set()

    async def pause(self, seconds):
        """Waits, but no longer than until the load stops."""
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self.stopping.wait()
            except TimeoutError:
                pass

    async def work(self, worker):
        """Uses one connection at a time. With a rate, the next request goes to whichever worker is free, and its time
        counts from the moment when it was due, so that a stall of the server is not hidden by sending less."""
        connection = None
        limit = self.options.requests_per_connection
        # The first connections end early, at different requests, so that the workers do not reconnect all at once.
        next_limit = limit and 1 + worker % limit
        while not self.stopping.is_set():
            number = next(self.numbers)
            row = Row(f"{self.options.prefix}-{number}", due_at=time.monotonic())
            if self.options.rate:
                row.due_at = self.started_at + number / self.options.rate
                await self.pause(row.due_at - time.monotonic())
                if self.stopping.is_set():
                    break
            connection = await self.request(connection, row, next_limit, post=number % 2 == 1)
            if row.nth:
                next_limit = limit
            if row.outcome in ("refused", "reset_before_send") and not self.options.rate:
                await self.pause(0.02)
        if connection:
            self.closed_idle += connection.closed_by_peer()
            connection.close()

    async def request(self, connection, row, limit, post):
        """Opens a connection for `limit` requests if there is none. Returns: the connection, if it can carry more."""
        self.rows.append(row)
        keep = False
        try:
            async with asyncio.timeout(self.options.timeout_ms / 1000):
                if connection and connection.closed_by_peer():
                    self.closed_idle += 1
                    connection.close()
                    connection = None
                if not connection:
                    connection = await Connection.open(self.options.address, limit)
                keep = await self.exchange(connection, row, post)
        except TimeoutError:
            row.outcome = "timeout"
        except ConnectionRefusedError:
            row.outcome = "refused"
        except ConnectionError:
            row.outcome = "reset_before_send"
        except Broken:
            row.outcome = "reset_after_send"
        except ValueError:
            row.outcome = "wrong_answer"
        row.ended_at = time.monotonic()
        if connection and not keep:
            connection.close()
            connection = None
        return connection

    async def exchange(self, connection, row, post):
        connection.requests += 1
        row.nth = connection.requests
        row.connected_at = connection.opened_at
        last = connection.requests == connection.limit
        body = f"id={row.id}" if post else ""
        lines = [
            f"{'POST' if post else 'GET'} {self.options.path} HTTP/1.1",
            f"Host: {self.options.host}",
            f"X-Request-Id: {row.id}",
        ]
        if post:
            lines.append(f"Content-Length: {len(body)}")
        if last:
            lines.append("Connection: close")
        await connection.send("\r\n".join([*lines, "", body]).encode())
        row.sent_at = time.monotonic()
        status, answer, keep = await connection.answer()
        row.outcome = "ok" if status < 400 else f"http_{status}"
        if names_another(answer, row.id):
            row.outcome = "wrong_answer"
        return keep and not last

    def write_rows(self, marker):
        def cell(moment):
            return "-" if moment is None else f"{moment:.6f}"

        with open(self.options.ids, "w", encoding="ascii") as out:
            print("id", "outcome", "connected_at", "sent_at", "ended_at", "nth", "in_flight", sep="\t", file=out)
            for row in self.rows:
                flying = "-" if marker is None else int(row.in_flight(marker))
                times = (cell(row.connected_at), cell(row.sent_at), cell(row.ended_at))
                print(row.id, row.outcome, *times, row.nth, flying, sep="\t", file=out)

    def summary(self, marker):
        took = sorted((row.ended_at - row.due_at) * 1000 for row in self.rows if row.answered())
        flying = [row for row in self.rows if marker is not None and row.in_flight(marker)]
        return {
            "requests": len(self.rows),
            "seconds": round(time.monotonic() - self.started_at, 3),
            "outcomes": dict(collections.Counter(row.outcome for row in self.rows)),
            "closed_idle": self.closed_idle,
            "p50_ms": quantile(took, 0.50),
            "p99_ms": quantile(took, 0.99),
            "in_flight_at_marker": len(flying),
            "in_flight_unanswered": sum(not row.answered() for row in flying),
        }


def names_another(answer, own_id):
    try:
        named = json.loads(answer).get("x-request-id")
    except (ValueError, AttributeError):
        return False
    return named is not None and named != own_id


def quantile(ordered, share):
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1) if ordered else None


def read_marker(path):
    try:
        with open(path, encoding="ascii") as file:
            return float(file.read())
    except FileNotFoundError:
        return None


def within(kind, low, high):
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f'"{text}" is not allowed, a number from {low} to {high} is')
        return value

    return parse


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=within(int, 1, 65535), required=True)
    parser.add_argument("--path", default="/item")
    parser.add_argument("--connections", type=within(int, 1, 1000), default=32)
    parser.add_argument("--rate", type=within(float, 0, 10000), default=0, help="per second; 0: as fast as answered")
    parser.add_argument("--seconds", type=within(float, 0, 600), default=10)
    parser.add_argument("--timeout-ms", type=within(int, 1, 60000), default=5000)
    parser.add_argument("--requests-per-connection", type=within(int, 0, 1000000), default=0, help="0: no limit")
    parser.add_argument("--prefix", default="r", help="ids are PREFIX-NUMBER")
    parser.add_argument("--ids", default="ids.tsv", help="where the ledger goes")
    parser.add_argument("--marker-file", help="holds a CLOCK_MONOTONIC time in seconds")
    parser.add_argument("--stop-file", help="the load ends once this file exists")
    options = parser.parse_args()
    options.address = (options.host, options.port)
    return options


async def main():
    options = parse_options()
    load = Load(options)
    await load.run()
    marker = read_marker(options.marker_file) if options.marker_file else None
    load.write_rows(marker)
    print(json.dumps(load.summary(marker)))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
