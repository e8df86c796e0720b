# SPDX-License-Identifier: MIT
import unittest

from sample import Sample


class CheckUmbrellas(Sample):
    tool = "check_umbrellas.py"

    def setUp(self):
        super().setUp()
        self.file("include/cordon/testing/simulation.hpp", "")
        self.file("include/cordon/interop/asio.hpp", "")
        self.file("include/cordon/version.hpp", "")
        self.check("--write")

    def umbrella(self, name):
        return (self.root / f"include/cordon/{name}.hpp").read_text()

    def test_what_it_writes_is_what_it_wants(self):
        self.check()
        self.assertIn("#include <cordon/core/task.hpp>\n", self.umbrella("core"))
        self.assertIn("#include <cordon/core.hpp>\n#include <cordon/version.hpp>\n", self.umbrella("cordon"))
        self.assertNotIn("testing", self.umbrella("cordon").replace("but testing", ""))
        self.assertFalse((self.root / "include/cordon/interop.hpp").exists())

    def test_a_missing_header_is_found(self):
        self.file("include/cordon/core/outcome.hpp", "")
        self.check(finds="include/cordon/core.hpp: differs in #include <cordon/core/outcome.hpp>")

    def test_a_detail_does_not_belong_into_an_umbrella(self):
        self.file("include/cordon/core/detail/config.hpp", "")
        self.check()

    def test_a_line_too_much_is_found(self):
        self.file("include/cordon/cordon.hpp", self.umbrella("cordon") + "#include <cordon/testing.hpp>\n")
        self.check(finds="differs in #include <cordon/testing.hpp>")

    def test_a_missing_umbrella_is_found(self):
        self.file("include/cordon/time/sleep.hpp", "")
        self.check(finds="include/cordon/time.hpp: differs")

    def test_an_umbrella_of_no_room_is_found(self):
        self.file("include/cordon/attic.hpp", "")
        self.check(finds="attic.hpp: is the umbrella of no room")


unittest.main()
