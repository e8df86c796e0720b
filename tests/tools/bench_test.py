# SPDX-License-Identifier: MIT
import json
import sys
import unittest

from sample import Sample

# A benchmark program: its rows, and how many nanoseconds an operation of each takes; none for a row that is broken.
PROGRAM = """#!{python}
import json, re, sys
rows = {rows}
options = dict(a.lstrip("-").split("=", 1) for a in sys.argv[1:])
if options.get("benchmark_list_tests") == "true":
    print(*rows, sep="\\n")
    sys.exit()
found = []
for name, ns in rows.items():
    if not re.search(options["benchmark_filter"], name):
        continue
    for i in range(int(options["benchmark_repetitions"])):
        entry = {{"run_name": name, "name": name, "run_type": "iteration", "repetition_index": i, "time_unit": "ns"}}
        if ns is None:
            entry |= {{"error_occurred": True, "error_message": "the work was not done"}}
        else:
            entry |= {{"cpu_time": ns * (100 if i == 0 else 1), "real_time": 7 * ns}}
        found.append(entry)
json.dump({{"benchmarks": found}}, open(options["benchmark_out"], "w"))
"""
# A program in another language: its rows, and how many nanoseconds an operation of each takes.
PEER_PROGRAM = """#!{python}
import sys
rows = {rows}
if sys.argv[1:] == ["--list"]:
    print(*rows, sep="\\n")
    sys.exit()
wanted, repetitions = sys.argv[2], int(sys.argv[4])
for name, ns in rows.items():
    if name == wanted or name.startswith(wanted + "/"):
        for i in range(repetitions):
            print(name.split("/")[1], ns * (100 if i == 0 else 1))
"""
PAGE = "Kept.\n" + "".join(f"<!-- bench: {name} -->\nold\n<!-- /bench -->\n"
                           for name in ("machine", "goals", "times", "counts", "include"))
RESULTS = {
    "machine": {"date": "2026-01-01"},
    "times": {"await_ready": {"commands": ["run it"], "rows": {"floor": {"ns": [10.0, 10.0, 20.0]},
                                                               "cordon": {"ns": [11.0, 13.0, 22.0]},
                                                               "asio": {"ns": [33.0, 39.0, 44.0]}}},
              "dump_100k_of_busy_pool": {"commands": ["run it"], "rows": {"bare_text": {"ns": [800.0, 810.0]},
                                                                          "cordon_text": {"ns": [2400.0, 2420.0]},
                                                                          "cordon_json": {"ns": [2600.0, 2580.0]}}},
              "spawn_1m": {"commands": ["run it"], "rows": {"cordon": {"ns": [71.0], "bytes": 176.0}}}},
    "counts": {"await": {"g++": [138.2, 0.0], "clang++": [131.0, 0.0]}},
}


class Bench(Sample):
    tool = "bench"

    def program(self, name, rows):
        path = self.file(f"build/bench/bench/{name}", PROGRAM.format(python=sys.executable, rows=rows))
        path.chmod(0o755)

    def peer_program(self, name, built_by, rows):
        self.file(f"build/bench/peers/{name}.txt", built_by + "\n")
        path = self.file(f"build/bench/peers/{name}", PEER_PROGRAM.format(python=sys.executable, rows=rows))
        path.chmod(0o755)
        return path

    def saved(self, results):
        return self.file("results.json", json.dumps(results))

    def row(self, said, first):
        return next(line for line in said.splitlines() if line.startswith(f"| {first} |"))

    def test_ratios_are_taken_repetition_by_repetition(self):
        said = self.run_tool("--root", self.root, "--from", self.saved(RESULTS))
        self.assertEqual("| cordon | 13.0 [11.0..22.0] | 1.10 [1.10..1.30] |  |", self.row(said, "cordon"))
        self.assertEqual("| asio | 39.0 [33.0..44.0] | 3.30 [2.20..3.90] | 3.00 [2.00..3.00] |", self.row(said, "asio"))

    def test_goals_stand_beside_what_was_measured(self):
        said = self.run_tool("--root", self.root, "--from", self.saved(RESULTS))
        self.assertIn("| at most 1.2 times a bare await with recycled frames | 1.10 [1.10..1.30] |  | yes |", said)
        self.assertIn("| at most 140 instructions with g++ | 138 |  | yes |", said)
        self.assertIn("| at most 130 instructions with clang | 131 |  | no |", said)
        self.assertIn("| at most 70 ns each | 71.0 |  | no |", said)
        self.assertIn("| at most 176 bytes each | 176 |  | yes |", said)
        self.assertIn("| at most 1.3 s with g++ -O0 | not measured in this run |", said)

    def test_a_goal_in_milliseconds_is_that_of_all_operations_and_so_is_its_floor(self):
        said = self.run_tool("--root", self.root, "--from", self.saved(RESULTS))
        self.assertIn("| at most 250 ms as text | 241 [240..242] | 80.5 [80.0..81.0] bare text | yes |", said)
        self.assertIn("| at most 250 ms as JSON | 259 [258..260] | 80.5 [80.0..81.0] bare text | no |", said)

    def test_peers_stand_beside_the_first_row_of_cordon_if_none_is_the_plain_one(self):
        rows = {"text": {"ns": [3.0]}, "cordon_b": {"ns": [2.0]}, "cordon_a": {"ns": [4.0]}, "tbb": {"ns": [8.0]}}
        saved = self.saved(RESULTS | {"times": {"trees": {"commands": ["run it"], "rows": rows}}})
        said = self.run_tool("--root", self.root, "--from", saved)
        self.assertIn("| row | ns | to cordon b |", said)
        self.assertEqual("| tbb | 8.00 [8.00..8.00] | 4.00 [4.00..4.00] |", self.row(said, "tbb"))

    def test_a_table_without_cordon_has_no_ratios_to_it(self):
        saved = self.saved(RESULTS | {"times": {"dump": {"commands": ["run it"], "rows": {"text": {"ns": [3.0]}}}}})
        said = self.run_tool("--root", self.root, "--from", saved)
        self.assertIn("| row | ns |\n", said)
        self.assertEqual("| text | 3.00 [3.00..3.00] |", self.row(said, "text"))

    def test_rows_of_other_languages_stand_beside_ours(self):
        self.program("bench_sync_channel", {"channel_stream/cordon": 5})
        self.peer_program("go", "go1.19.8", {"channel_stream/go_channel": 40, "channel_uncontended/go_channel": 7})
        self.peer_program("rust", "rustc 1.95.0", {"channel_stream/rust_channel": 10})
        said = self.run_tool("--root", self.root, "--quick", "--only", "channel_stream")
        self.assertIn("| Go | go1.19.8 |\n", said)
        self.assertIn("| Rust | rustc 1.95.0 |\n", said)
        self.assertEqual("| go channel | 40.0 [40.0..4000] | 8.00 [8.00..8.00] |", self.row(said, "go channel"))
        self.assertEqual("| rust channel | 10.0 [10.0..1000] | 2.00 [2.00..2.00] |", self.row(said, "rust channel"))
        self.assertIn("    build/bench/peers/go --run channel_stream --repetitions 3 --min-time 0.05\n", said)
        self.assertNotIn("no figures", said)

    def test_the_first_repetition_of_a_million_is_dropped_in_other_languages_too(self):
        self.program("bench_run_thread_pool", {"pool_spawn_1t_1m/cordon/iterations:1": 50})
        self.peer_program("go", "go1.19.8", {"pool_spawn_1t_1m/go_wait_group": 400})
        said = self.run_tool("--root", self.root, "--quick")
        self.assertEqual("| go wait group | 400 [400..400] | 8.00 [8.00..8.00] |", self.row(said, "go wait group"))
        self.assertIn("build/bench/peers/go --run 'pool_spawn_1t_1m/<row>' --repetitions 2 --min-time 0\n", said)

    def test_a_language_that_is_left_out_is_told_with_the_reason(self):
        self.program("bench_sync_channel", {"channel_stream/cordon": 5})
        self.peer_program("go", "go1.19.8; x/time/rate is left out: there is no such package", {})
        self.file("build/bench/peers/rust.txt", "governor is left out: there is no cargo\n")
        said = self.run_tool("--root", self.root, "--quick")
        self.assertIn("| Rust | governor is left out: there is no cargo |\n", said)
        self.assertIn("Rust: governor is left out: there is no cargo\n", said)
        self.assertIn("Go: go1.19.8; x/time/rate is left out: there is no such package\n", said)
        self.assertIn("Java: left out: bench/peers/build has not run\n", said)

    def test_a_row_of_another_language_that_fails_is_told(self):
        self.program("bench_sync_channel", {"channel_stream/cordon": 5})
        path = self.peer_program("go", "go1.19.8", {"channel_stream/go_channel": 40})
        path.write_text(path.read_text().replace("wanted, ", 'sys.exit("the work was not done")\nwanted, '))
        said = self.run_tool("--root", self.root, "--quick", status=1)
        self.assertIn("exit code 1: the work was not done", said)
        self.assertIn("broken: channel_stream/go_channel: no figures", said)

    def test_a_slow_run_is_no_failure_but_a_row_without_work_is(self):
        self.program("bench_core_task", {"await_ready/cordon": 1e6, "await_ready/floor": 1})
        self.run_tool("--root", self.root, "--quick")
        self.program("bench_core_task", {"await_ready/cordon": None, "await_ready/floor": 1})
        self.assertIn("broken: await_ready/cordon: the work was not done",
                      self.run_tool("--root", self.root, "--quick", status=1))

    def test_a_program_that_dies_is_told(self):
        self.program("bench_core_task", {"await_ready/cordon": 1})
        path = self.root / "build/bench/bench/bench_core_task"
        path.write_text(path.read_text().replace("found = []", "sys.exit('it died')"))
        said = self.run_tool("--root", self.root, "--quick", status=1)
        self.assertIn("it died", said)
        self.assertIn("broken: await_ready/cordon: no figures", said)

    def test_the_first_repetition_of_a_million_is_dropped(self):
        self.program("bench_scope_task_group", {"spawn_1m/cordon/iterations:1": 50, "spawn_1m/floor/iterations:1": 25})
        said = self.run_tool("--root", self.root, "--quick")
        self.assertEqual("| cordon | 50.0 [50.0..50.0] | 2.00 [2.00..2.00] |  |", self.row(said, "cordon"))

    def test_where_threads_meet_the_wall_clock_counts(self):
        self.program("bench_run_run_loop", {"hop_round_trip_awake/cordon/real_time": 3})
        said = self.run_tool("--root", self.root, "--quick")
        self.assertIn("21.0 [21.0..21.0]", self.row(said, "cordon"))

    def test_the_page_keeps_what_is_written_by_hand(self):
        page = self.file("docs/performance.md", PAGE)
        self.run_tool("--root", self.root, "--from", self.saved(RESULTS), "--write")
        text = page.read_text()
        self.assertTrue(text.startswith("Kept.\n<!-- bench: machine -->\n"))
        self.assertIn("<!-- bench: counts -->\n\n    valgrind", text)
        self.assertIn("<!-- bench: include -->\nold\n<!-- /bench -->", text)  # not measured: left as it is
        self.assertEqual(1, text.count("old\n"))

    def test_the_cost_of_guards_is_a_part_of_the_page_of_its_own(self):
        page = self.file("docs/performance.md", PAGE + "<!-- bench: gateway -->\n<!-- /bench -->\n")
        results = self.saved({"instructions": {"every guard": 81_600.0, "none": 80_000.0}, "foreign load": 0.25,
                              "loads": {"every guard": [(980, 92), (1000, 88), (990, 90)],
                                        "none": [(1000, 80), (1010, 88), (900, 81)]}})
        said = self.run_tool("--root", self.root, "--gateway", "--from", results, "--write")
        self.assertIn("| every guard | 81,600 | 90.0 | 990 |\n| none | 80,000 | 81.0 | 1,000 |\n", said)
        self.assertIn("| every guard, to none | +2.00% | 1.11 [1.00..1.15] | 0.99 [0.98..1.10] |\n\n3 pairs; ", said)
        self.assertIn(said.strip(), page.read_text())
        self.assertEqual(page.read_text().count("old\n"), 5)

    def test_a_page_without_a_place_is_told(self):
        self.file("docs/performance.md", "Nothing.\n")
        self.assertIn("has no place for machine",
                      self.run_tool("--root", self.root, "--from", self.saved(RESULTS), "--write", status=1))


if __name__ == "__main__":
    unittest.main()
