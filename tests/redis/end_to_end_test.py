#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the example redis_pool against a redis server of its own: `end_to_end_test.py REDIS_POOL [unittest arguments]`.

Cites [PO-16], a connection that is in the middle of something is not lent again.
"""

import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = pathlib.Path(sys.argv[1]).resolve()
SERVER = shutil.which("redis-server")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Redis:
    """A server that keeps nothing on disk and ends with the test."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        for _ in range(5):  # somebody else may take the port
            self.port = free_port()
            self.process = subprocess.Popen(
                [SERVER, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                 "--daemonize", "no", "--dir", self.folder.name], stdout=subprocess.DEVNULL)
            if self.answers():
                return self
            self.end()
        raise RuntimeError("redis-server does not answer")

    def answers(self):
        for _ in range(200):
            if self.process.poll() is not None:
                return False
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as s:
                    s.sendall(b"PING\r\n")
                    return s.recv(16) == b"+PONG\r\n"
            except OSError:
                time.sleep(0.02)
        return False

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __exit__(self, *_):
        self.end()
        self.folder.cleanup()


@unittest.skipUnless(SERVER, "redis-server is not installed")
class StoppedInMidReply(unittest.TestCase):
    def run_against(self, *options):
        with Redis() as redis:
            return subprocess.run([PROGRAM, str(redis.port), *options], capture_output=True, text=True, timeout=100)

    def test_ten_thousand_stops_and_no_reply_for_the_wrong_caller(self):
        done = self.run_against("10000")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"^100\d\d requests stopped in mid-reply, \d{4,} whole replies, 0 of them wrong, "
                                      r"0 failed; \d+ connections, \d+ given up")
        print(done.stdout, end="")

    def test_the_same_goes_wrong_if_the_pool_is_told_to_keep_the_connections(self):
        done = self.run_against("100", "--mark-clean")
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)


if __name__ == "__main__":
    if not SERVER:
        print("SKIPPED: redis-server is not installed; see scripts/packages.txt")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
