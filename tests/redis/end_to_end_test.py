#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the example redis_pool against a redis server of its own: `end_to_end_test.py REDIS_POOL [unittest arguments]`.

Cites [PO-16], a connection that is in the middle of something is not lent again.
"""

import pathlib
import subprocess
import sys
import time
import unittest

from redis_server import SERVER, Redis

PROGRAM = pathlib.Path(sys.argv[1]).resolve()


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

    def test_a_server_that_goes_away_fails_the_requests_and_ends_the_program(self):
        with Redis() as redis:
            program = subprocess.Popen([PROGRAM, str(redis.port), "100000000"], stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, text=True)
            time.sleep(0.3)
            redis.process.kill()
            try:
                said, _ = program.communicate(timeout=20)
            finally:
                program.kill()
        self.assertEqual(program.returncode, 1, said)
        self.assertRegex(said, r"0 of them wrong, [1-9]\d* failed")


if __name__ == "__main__":
    if not SERVER:
        print("SKIPPED: redis-server is not installed; see scripts/packages.txt")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
