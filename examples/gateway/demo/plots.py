# SPDX-License-Identifier: MIT
"""Writes what the acts have measured as columns of text, and draws it with gnuplot."""

import shutil
import subprocess

import breaker

STYLE = """set terminal svg size 760,360 dynamic font "sans-serif,13" background "white"
set border 3
set tics nomirror
set grid ytics linecolor "#dddddd"
set style line 1 linecolor "#c0392b" linewidth 2
set style line 2 linecolor "#2471a3" linewidth 2
set style line 3 linecolor "#777777" linewidth 1 dashtype 2
set xlabel "seconds"
set autoscale xfixmax
"""


class Plots:
    """The figures in one folder: NAME.dat, NAME.gp and, if gnuplot is there, NAME.svg."""

    def __init__(self, folder):
        self.folder = folder
        self.gnuplot = shutil.which("gnuplot")
        self.drawn = []
        folder.mkdir(parents=True, exist_ok=True)

    def bulkhead(self, seen):
        begin, end = seen["hang"]
        title = "Requests to one of two services, of which the other hangs"
        self.draw("bulkhead", title, seen["curves"].items(), f"""
set ylabel "slowest request, ms"
set logscale y
set yrange [20:{2 * seen["deadline_ms"]}]
set style rectangle fillcolor "#eeeeee" fillstyle solid noborder
set object 1 rectangle from first {begin}, graph 0 to first {end}, graph 1 behind
set label 1 "it hangs" at first {(begin + end) / 2}, graph 0.1 center
set key outside bottom center horizontal
plot {curves(seen["curves"])}
""")  # fmt: skip

    def surge(self, seen):
        capacity = seen["capacity"]
        self.draw("surge", "Ten times the capacity is asked for", seen["curves"].items(), f"""
set ylabel "requests served per second"
set yrange [0:{1.25 * capacity}]
set key outside bottom center horizontal width -2
set style line 3 linecolor "#1e8449" linewidth 2 dashtype solid
set style line 4 linecolor "#777777" linewidth 1 dashtype 2
plot {capacity} title "capacity, {capacity}/s" linestyle 4, \\
    {curves(seen["curves"])}
""")  # fmt: skip

    def hedging(self, seen):
        self.draw("hedging", "One of two replicas is slow", seen["curves"].items(), f"""
set xlabel "milliseconds"
set ylabel "requests that took longer, %"
set logscale y
set yrange [0.1:100]
set key outside bottom center horizontal
set style line 3 linecolor "#1e8449" linewidth 2 dashtype solid
plot {curves(seen["curves"])}
""")  # fmt: skip

    def breaker(self, seen):
        states = ", ".join(f'"{state.replace("_", "-")}" {n}' for n, state in enumerate(breaker.STATES))
        changes = [("seconds, percent, state", seen["changes"])]
        self.draw("breaker", "Four of five calls fail for a while", changes, f"""
set ylabel "calls that fail, %"
set yrange [0:100]
set y2range [-0.15:2.15]
set y2tics ({states})
set border 11
set key outside bottom center horizontal
plot data using 1:2 with fillsteps fillstyle solid noborder linecolor "#f2d7d5" title "errors of the upstream", \\
    data using 1:3 axes x1y2 with steps linestyle 2 title "state of the breaker"
""")  # fmt: skip

    def answers(self, seen):
        self.draw("answers", "Answers of a gateway whose upstream fails for a while, from its /metrics", seen["sent"].items(), f"""
set ylabel "answers per second"
set yrange [0:{1.25 * breaker.RATE}]
set key outside bottom center horizontal
plot {curves(seen["sent"])}
""")  # fmt: skip

    def draw(self, name, title, data, script):
        text = "\n\n\n".join("\n".join([f"# {title}"] + [" ".join(f"{x:.3f}" for x in row) for row in rows])
                             for title, rows in data)  # fmt: skip
        (self.folder / f"{name}.dat").write_text(text + "\n")
        head = f'data = "{name}.dat"\n{STYLE}set output "{name}.svg"\nset title "{title}"'
        (self.folder / f"{name}.gp").write_text(head + script)
        (self.folder / f"{name}.svg").unlink(missing_ok=True)
        if self.gnuplot:
            subprocess.run([self.gnuplot, f"{name}.gp"], cwd=self.folder, check=True)
            self.drawn.append(self.folder / f"{name}.svg")

    def places(self):
        """Returns: lines that say where the plots are, or why there are none."""
        if self.gnuplot:
            return [f"plot: {path}" for path in self.drawn]
        return ["no plots: gnuplot is not installed (Debian: apt-get install gnuplot-nox)",
                f"the figures are in {self.folder}"]  # fmt: skip


def curves(named):
    """Returns: what draws each block of the data under its name."""
    return ", \\\n    ".join(f'data index {n} with lines linestyle {n + 1} title "{title}"'
                             for n, title in enumerate(named))  # fmt: skip
