# SPDX-License-Identifier: MIT
"""Runs the gateway in front of upstreams on loopback, and shows that it stands, and what its guards are for.

  steady, paced, hang   standing.py   it serves, loses nothing, and answers in time while its upstream hangs
  drain                 drain.py      it ends without losing a request
  bulkhead              bulkhead.py   one of two dependencies hangs, with a bulkhead and without
  surge                 surge.py      ten times the capacity is asked for, with a limiter, with a shedder, and without
  hedging               hedging.py    one of two replicas is slow, with a second copy of calls and without
  breaker               breaker.py    the upstream fails for a while

The last four are drawn as SVG in BUILD_DIR/demo, if gnuplot is installed.
Exit code: 0 if all of it holds, 1 if not (each failure is named), 2 if the demo could not run.
"""

import argparse
import pathlib
import shutil
import signal
import sys
import tempfile

import breaker
import bulkhead
import hedging
import plots
import standing
import surge
from common import CannotRun, say
from stage import Stage

LIMIT_S = 110


ACTS = {
    "standing": lambda stage, drawing: standing.run(stage),
    "bulkhead": lambda stage, drawing: drawing.bulkhead(bulkhead.run(stage)),
    "surge": lambda stage, drawing: drawing.surge(surge.run(stage)),
    "hedging": lambda stage, drawing: drawing.hedging(hedging.run(stage)),
    "breaker": lambda stage, drawing: draw_breaker(drawing, breaker.run(stage)),
}


def draw_breaker(drawing, seen):
    drawing.breaker(seen)
    drawing.answers(seen)


def interrupted(number, frame):
    raise CannotRun(f"took longer than {LIMIT_S} s" if number == signal.SIGALRM else "interrupted")


def main():
    parser = argparse.ArgumentParser(prog="demo", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("build_dir", metavar="BUILD_DIR", type=pathlib.Path, help="where the examples were built")
    parser.add_argument("acts", metavar="ACT", nargs="*", help=f"some of {', '.join(ACTS)} (default: all)")
    args = parser.parse_args()
    if unknown := set(args.acts) - set(ACTS):
        parser.error(f"there is no act {', '.join(sorted(unknown))}; there are {', '.join(ACTS)}")
    build = args.build_dir.resolve()
    for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    signal.alarm(LIMIT_S)

    work = pathlib.Path(tempfile.mkdtemp(prefix="gateway-demo-"))
    stage, code = None, 2
    try:
        stage = Stage(build, work)
        drawing = plots.Plots(build / "demo")
        for act in args.acts or ACTS:
            ACTS[act](stage, drawing)
        stage.print_account()
        for line in drawing.places():
            say(line)
        code = 1 if stage.failures else 0
        say("FAILED" if code else "passed")
    except CannotRun as problem:
        say(f"CANNOT RUN {problem}")
    finally:
        signal.alarm(0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if stage:
            stage.stop_all()
        if code:
            for said in sorted(work.glob("*.err")):
                if text := said.read_text(errors="replace").strip():
                    say(f"{said.name}: {text[-1000:]}")
            say(f"logs and ledgers are in {work}")
        else:
            shutil.rmtree(work)
    return code


if __name__ == "__main__":
    sys.exit(main())
