# SPDX-License-Identifier: MIT
"""Instructions and allocations of one operation, by callgrind: unlike times they do not drift.

(count(11000) - count(1000)) / 10000, so that setting up does not count.
"""
import concurrent.futures
import os
import re
import shutil
import subprocess
import tempfile

import stats

FEW, MANY = 1000, 11000
ALLOCATORS = {"malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign", "memalign"}
BUILDS = {"g++": "build/bench/bench/bench_counts", "clang++": "build/bench-clang/bench/bench_counts"}
COMMAND = "valgrind --tool=callgrind --compress-strings=no {} <work> <{} and {}>".format(
    BUILDS["g++"], FEW, MANY)


def once(program, work, n):
    """(instructions, allocations) of a whole process."""
    with tempfile.NamedTemporaryFile(suffix=".callgrind") as out:
        subprocess.run(["valgrind", "--tool=callgrind", "--compress-strings=no", f"--callgrind-out-file={out.name}",
                        program, work, str(n)], check=True, capture_output=True)
        text = open(out.name).read()
    allocations = sum(int(calls) for name, calls in re.findall(r"^cfn=(\w+).*\ncalls=(\d+) ", text, re.M)
                      if name in ALLOCATORS)
    return int(re.search(r"^(?:totals|summary): (\d+)", text, re.M)[1]), allocations


def operation(program, work):
    few, many = once(program, work, FEW), once(program, work, MANY)
    return [(b - a) / (MANY - FEW) for a, b in zip(few, many)]


def measure(root, only):
    """{work: {compiler: [instructions, allocations]}}; empty without valgrind."""
    if shutil.which("valgrind") is None:
        print("counts: valgrind is not installed; left out")
        return {}
    results, jobs = {}, {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for compiler, path in BUILDS.items():
            if not (root / path).exists():
                print(f"counts: {path} is not built; left out")
                continue
            for work in subprocess.run([root / path], capture_output=True, text=True, check=True).stdout.split():
                if only.search(work):
                    jobs[work, compiler] = pool.submit(operation, root / path, work)
    for (work, compiler), job in jobs.items():
        results.setdefault(work, {})[compiler] = job.result()
    return results


def table(results):
    compilers = [c for c in BUILDS if any(c in by for by in results.values())]
    header = ["work", *(f"instructions, {c}" for c in compilers), *(f"allocations, {c}" for c in compilers)]
    rows = []
    for work, by in results.items():
        found = [by.get(c) for c in compilers]
        rows.append([work.replace("_", " "), *(f"{f[0]:.0f}" if f else "" for f in found),
                     *(f"{f[1]:.2f}".rstrip("0").rstrip(".") if f else "" for f in found)])
    return "    " + COMMAND + "\n\n" + stats.markdown(header, rows)
