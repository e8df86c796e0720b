# SPDX-License-Identifier: MIT
import unittest

from sample import Sample

ROWS = "".join(f"C-{n:03}\tGo\tclaim {n}\n" for n in range(1, 11))
TEST = 'TEST_CASE("all of them hold",\n    "[core]"\n    "' + "".join(f"[C-{n:03}]" for n in range(1, 11)) + '") {}\n'


class Conformance(Sample):
    tool = "conformance.py"

    def sample(self, rows=ROWS, test=TEST, finds=None):
        self.file("docs/conformance/rows.tsv", rows)
        self.file("tests/core/task.test.cpp", test)
        self.check(finds=finds)

    def test_the_page_lists_each_row_with_its_tests(self):
        self.sample()
        self.assertIn("| C-003 | Go | claim 3 | `tests/core/task.test.cpp`: all of them hold |",
                      (self.root / "docs/conformance.md").read_text())
        self.check("--check")

    def test_a_stale_page_is_found(self):
        self.sample()
        self.file("docs/conformance/rows.tsv", ROWS.replace("claim 3", "claim three"))
        self.check("--check", finds="docs/conformance.md: stale")

    def test_a_row_without_a_test_is_found(self):
        self.sample(test=TEST.replace("[C-003]", ""), finds="C-003: no test cites it")

    def test_a_comment_is_no_test(self):
        self.sample(test=TEST.replace("[C-003]", "") + "// [C-003]\n", finds="C-003: no test cites it")

    def test_a_program_that_must_not_compile_is_a_test(self):
        self.file("tests/compile_fail/null_key.cpp", "// [C-003]\n")
        self.sample(test=TEST.replace("[C-003]", ""))

    def test_an_unknown_row_is_found(self):
        self.sample(test=TEST.replace("[C-003]", "[C-003][C-999]"), finds="C-999: no such row")

    def test_one_row_in_ten_may_be_not_applicable(self):
        rows = ROWS.replace("claim 3\n", "claim 3\tn/a: there is no nil\n")
        self.sample(rows, TEST.replace("[C-003]", ""))
        self.sample(rows, finds="C-003: not applicable, but cited")
        rows = rows.replace("claim 4\n", "claim 4\tn/a: nor this\n")
        self.sample(rows, TEST.replace("[C-003][C-004]", ""), finds="2 of 10 rows are not applicable")

    def test_a_malformed_or_repeated_row_is_found(self):
        self.sample(ROWS + "C-011 Go claim\n", finds="rows.tsv:11: not")
        self.sample(ROWS.replace("claim 3\n", "claim 3\tlater\n"), finds="rows.tsv:3: not")
        self.sample(ROWS + "C-003\tGo\tagain\n", finds="C-003: is there twice")


unittest.main()
