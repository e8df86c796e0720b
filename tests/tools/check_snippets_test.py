# SPDX-License-Identifier: MIT
import unittest

from sample import Sample

EXAMPLE = """int main() {
    // [call]
    first();
    // [inner]
    if (x) {
        second();
    }
    // [/inner]
    // [/call]
}
"""
MARKER = "<!-- snippet: examples/01_x.cpp#call -->\n"
GOOD = MARKER + "```cpp\nfirst();\nif (x) {\n    second();\n}\n```\nend\n"


class CheckSnippets(Sample):
    tool = "check_snippets.py"

    def page(self, text, finds=None):
        self.file("examples/01_x.cpp", EXAMPLE)
        self.file("README.md", text)
        self.check(finds=finds)

    def test_the_text_of_the_region_dedented_is_right(self):
        self.page(GOOD)

    def test_an_old_text_is_found_and_spliced(self):
        self.page(GOOD.replace("first", "zeroth"), "README.md:3: is not what the example says")
        self.check("--write")
        self.assertEqual((self.root / "README.md").read_text(), GOOD)

    def test_pages_of_rooms_are_read_too(self):
        self.file("docs/rooms/core.md", "```cpp\nfirst();\n```\n")
        self.page(GOOD, "docs/rooms/core.md:1: a block of C++ without a snippet marker")

    def test_other_blocks_are_left_alone(self):
        self.page("```text\n```cpp\n```\n```\nls\n```\n" + GOOD)

    def test_a_missing_file_region_or_block_is_found(self):
        self.page(GOOD.replace("01_x", "02_y"), "examples/02_y.cpp does not exist")
        self.page(GOOD.replace("#call", "#cell"), "exactly one `// [cell]`")
        self.page(MARKER + "text\n", "README.md:1: a snippet marker without a block")


unittest.main()
