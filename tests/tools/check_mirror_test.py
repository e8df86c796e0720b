# SPDX-License-Identifier: MIT
import unittest

from sample import Sample


class CheckMirror(Sample):
    tool = "check_mirror.py"

    def test_a_header_without_a_test_is_found(self):
        self.check(finds="include/cordon/core/task.hpp: has no tests/core/task.test.cpp")

    def test_an_empty_test_is_found(self):
        self.file("tests/core/task.test.cpp", "")
        self.check(finds="tests/core/task.test.cpp: has no TEST_CASE")

    def test_a_name_that_ctest_would_cut_in_two_is_found(self):
        self.file("tests/core/task.test.cpp", 'TEST_CASE("one; two") {}\n')
        self.check(finds="a test's name holds a semicolon: one; two")

    def test_a_header_that_is_not_the_first_is_found(self):
        self.file("tests/core/task.test.cpp",
                  '#include <vector>\n#include <cordon/core/task.hpp>\nTEST_CASE("it is lazy") {}\n')
        self.check(finds="tests/core/task.test.cpp: cordon/core/task.hpp is not its first include")

    def test_a_test_is_enough_and_details_need_none(self):
        self.file("tests/core/task.test.cpp", 'TEST_CASE("it is lazy") {}\n')
        self.file("include/cordon/core/detail/config.hpp", "")
        self.check()


unittest.main()
