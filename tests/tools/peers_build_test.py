# SPDX-License-Identifier: MIT
import pathlib
import shutil
import subprocess
import unittest

from sample import Sample

PEERS = pathlib.Path(__file__).resolve().parents[2] / "bench/peers"
NEEDED = ("bash", "basename", "chmod", "cp", "cut", "dirname", "head", "mkdir", "realpath", "rm", "sed", "sort", "timeout")


class PeersBuild(Sample):
    def setUp(self):
        super().setUp()
        shutil.copytree(PEERS, self.root / "bench/peers", ignore=shutil.ignore_patterns("Cargo.lock", "target"))
        for name in NEEDED:
            self.file(f"bin/{name}", "").unlink()
            (self.root / "bin" / name).symlink_to(shutil.which(name))

    def tool_that_says(self, name, script):
        self.file(f"bin/{name}", f"#!/bin/sh\n{script}\n").chmod(0o755)

    def built(self, name):
        """What is said of a program after a build with the tools in bin/ alone."""
        subprocess.run([self.root / "bench/peers/build", name], env={"PATH": str(self.root / "bin")}, check=True)
        return self.result(f"{name}.txt").read_text().strip()

    def result(self, name):
        return self.root / "build/bench/peers" / name

    def test_what_has_no_toolchain_is_left_out_and_that_is_said(self):
        self.assertEqual("gobreaker and failsafe-go are left out: there is no go", self.built("go_modules"))
        self.assertEqual("governor is left out: there is no cargo", self.built("rust"))
        self.assertEqual("Resilience4j is left out: there is no mvn", self.built("java"))
        self.assertFalse(self.result("rust").exists())

    def test_a_go_that_is_too_old_is_said(self):
        self.tool_that_says("go", "echo go1.19.8")
        self.assertEqual("gobreaker and failsafe-go are left out: go1.19.8 is older than go1.22.0",
                         self.built("go_modules"))

    def test_packages_that_cannot_be_fetched_are_said_and_the_log_says_more(self):
        self.tool_that_says("rustc", "echo rustc 1.95.0")
        self.tool_that_says("cargo", "echo no network >&2; exit 1")
        self.assertEqual("governor is left out: cargo could not fetch its crates", self.built("rust"))
        self.assertIn("no network\n", self.result("rust.log").read_text())

    def test_a_program_of_an_earlier_build_does_not_stay_when_there_is_no_new_one(self):
        self.file("build/bench/peers/rust", "old")
        self.built("rust")
        self.assertFalse(self.result("rust").exists())

    def test_a_program_stands_beside_what_built_it(self):
        self.tool_that_says("rustc", "echo 'rustc 1.95.0 (and more)'")
        self.tool_that_says("cargo", 'test "$1" = fetch && exit; mkdir -p "$4/release"; echo rows >"$4/release/rows"')
        self.assertRegex(self.built("rust"), r"^rustc 1\.95\.0, governor \d+\.\d+\.\d+$")
        self.assertEqual("rows\n", self.result("rust").read_text())


if __name__ == "__main__":
    unittest.main()
