# SPDX-License-Identifier: MIT
"""A small checkout in a temporary folder, for tests that run a tool on it and look at what it says."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
LAYERS = """
| layer | room | what for | may include |
|---|---|---|---|
| 0 | core | tasks | std only |
| 1 | time | timers | core |
| 2 | scope | groups | core, time |
| 5 | testing | simulation | any public header |
| 5 | interop | hosts | any public header |
"""


class Sample(unittest.TestCase):
    tool = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.file("docs/layers.md", LAYERS)
        self.file("include/cordon/core/task.hpp", "#include <coroutine>\n")

    def file(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run_tool(self, *arguments, status=0):
        """Runs the tool on the sample, expects its exit status, and returns all that it printed."""
        done = subprocess.run([sys.executable, "-B", TOOLS / self.tool, *arguments], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(done.returncode, status, done.stdout)
        return done.stdout

    def check(self, *arguments, finds=None):
        """Runs the tool on the sample; it has to find nothing, or to say `finds` and fail."""
        said = self.run_tool("--root", self.root, *arguments, status=1 if finds else 0)
        self.assertIn(finds or "", said)

    def test_help_says_what_it_does(self):
        if self.tool:
            self.assertIn("usage:", self.run_tool("--help"))
