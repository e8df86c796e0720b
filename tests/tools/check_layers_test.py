# SPDX-License-Identifier: MIT
import unittest

from sample import Sample


class CheckLayers(Sample):
    tool = "check_layers.py"

    def includes(self, where, what, finds=None):
        self.file(f"include/cordon/{where}", f"// a line\n#include {what}\n")
        self.check(finds=finds and f"include/cordon/{where}:2: #include {what}: {finds}")

    def test_an_edge_of_the_table_is_allowed(self):
        self.includes("scope/with.hpp", "<cordon/time/sleep.hpp>")

    def test_an_edge_upwards_is_found(self):
        self.includes("core/task.hpp", "<cordon/time/sleep.hpp>", "core may include std only")

    def test_a_detail_of_another_room_is_found(self):
        self.includes("scope/with.hpp", "<cordon/time/detail/heap.hpp>", "time/detail belongs to time alone")
        self.includes("testing/simulation.hpp", "<cordon/time/detail/heap.hpp>", "time/detail belongs to time alone")

    def test_the_detail_of_core_is_shared(self):
        self.includes("testing/simulation.hpp", "<cordon/core/detail/config.hpp>")

    def test_detail_obeys_the_table_too(self):
        self.includes("time/detail/heap.hpp", "<cordon/scope/with.hpp>", "time may include core only")

    def test_an_umbrella_is_found(self):
        self.includes("scope/with.hpp", "<cordon/core.hpp>", "an umbrella")

    def test_an_expensive_header_is_found(self):
        for header in ("functional", "iostream", "ranges", "format", "regex"):
            self.includes("core/task.hpp", f"<{header}>", "costs every user")

    def test_an_outside_library_belongs_into_interop(self):
        self.includes("interop/asio.hpp", "<asio.hpp>")
        self.includes("time/sleep.hpp", "<asio.hpp>", "only interop")

    def test_quotes_are_found(self):
        self.includes("core/task.hpp", '"outcome.hpp"', "include it with angle brackets")

    def test_an_unknown_room_is_found(self):
        self.file("include/cordon/attic/old.hpp", "")
        self.check(finds="attic is not a room")


unittest.main()
