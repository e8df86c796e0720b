#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the demo computes and draws; the acts themselves are run by scripts/demo."""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples" / "gateway" / "demo"))
import hedging  # noqa: E402
import load  # noqa: E402
import plots  # noqa: E402

EACH = """number\tdue_at\tconnected_at\tsent_at\tended_at\toutcome\tstatus\tnth
1\t10.500000\t10.000000\t10.510000\t10.540000\tok\t200\t2
0\t10.000000\t10.000000\t10.000100\t10.001000\tstatus\t503\t1
2\t11.000000\t11.000000\t0.000000\t12.000000\ttimeout\t0\t1
"""


class Figures(unittest.TestCase):
    def test_requests_come_in_the_order_in_which_they_were_due(self):
        refused, answered, timed_out = load.read_requests(EACH)
        self.assertEqual([r.due_at for r in (refused, answered, timed_out)], [10.0, 10.5, 11.0])
        self.assertEqual([(r.ok, r.refused) for r in (refused, answered, timed_out)],
                         [(False, True), (True, False), (False, False)])  # fmt: skip
        self.assertAlmostEqual(answered.took_ms, 40)
        self.assertEqual([(r.answered, r.nth, r.number) for r in (refused, answered, timed_out)],
                         [(True, 1, 0), (True, 2, 1), (False, 1, 2)])  # fmt: skip
        self.assertEqual([answered.sent_before(moment) for moment in (10.5, 10.51)], [False, True])
        self.assertFalse(timed_out.sent_before(20))
        self.assertEqual(load.some([refused, timed_out]), "number 0 status 503, number 2 timeout")
        self.assertEqual(load.due_between([refused, answered, timed_out], 10.0, 11.0), [refused, answered])

    def test_who_fails_at_once_does_not_look_fast(self):
        times = load.latencies(load.read_requests(EACH), 500)
        self.assertEqual([round(time, 3) for time in times], [40, 500, 1000])
        self.assertEqual([round(time, 3) for time in load.latencies(load.read_requests(EACH))], [1, 40, 1000])

    def test_a_quantile_is_the_least_value_that_so_many_do_not_exceed(self):
        self.assertIsNone(load.quantile([], 0.5))
        self.assertEqual([load.quantile([7], share) for share in (0, 0.5, 1)], [7, 7, 7])
        hundred = list(range(1, 101))
        self.assertEqual([load.quantile(hundred, share) for share in (0.01, 0.5, 0.99, 0.995)], [1, 50, 99, 100])

    def test_of_the_slowest_no_share_is_shown(self):
        self.assertEqual(hedging.slower_than([10, 20, 30, 400]), [(10, 75), (20, 50), (30, 25)])

    def test_pieces_of_time_have_what_is_in_them_and_nothing_else(self):
        moments = [4.9, 5.0, 5.05, 5.19, 5.31, 5.4]
        self.assertEqual(load.bins(moments, 5.0, 5.4, 0.1), [[1, 2], [3], [], [4]])


class Plots(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.plots = plots.Plots(pathlib.Path(folder.name) / "demo")

    def draw_all(self):
        curves = {"without": [(0, 100), (0.1, 900)], "with": [(0, 100), (0.1, 110)]}
        self.plots.bulkhead({"curves": curves, "hang": (0.05, 0.1), "deadline_ms": 1000})
        self.plots.surge({"curves": curves, "capacity": 200})
        self.plots.hedging({"curves": curves})
        self.plots.answers({"sent": curves})
        self.plots.breaker({"changes": [(0, 0, 0), (0.1, 80, 2), (0.2, 80, 1)]})

    def test_each_curve_is_a_block_of_its_file(self):
        self.plots.gnuplot = None
        self.draw_all()
        self.assertEqual((self.plots.folder / "surge.dat").read_text(),
                         "# without\n0.000 100.000\n0.100 900.000\n\n\n# with\n0.000 100.000\n0.100 110.000\n")
        self.assertEqual((self.plots.folder / "breaker.dat").read_text().splitlines()[1:],
                         ["0.000 0.000 0.000", "0.100 80.000 2.000", "0.200 80.000 1.000"])  # fmt: skip

    def test_without_gnuplot_there_are_figures_but_no_plots_and_that_is_said(self):
        self.plots.gnuplot = None
        self.draw_all()
        self.assertEqual(sorted(path.suffix for path in self.plots.folder.iterdir()), [".dat"] * 5 + [".gp"] * 5)
        first, second = self.plots.places()
        self.assertIn("gnuplot is not installed", first)
        self.assertIn(str(self.plots.folder), second)

    def test_gnuplot_draws_what_it_is_told(self):
        if not self.plots.gnuplot:
            self.skipTest("gnuplot is not installed")
        self.draw_all()
        self.assertEqual(len(self.plots.places()), 5)
        for path in self.plots.drawn:
            self.assertIn("<svg", path.read_text())


if __name__ == "__main__":
    unittest.main()
