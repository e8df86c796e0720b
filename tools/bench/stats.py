# SPDX-License-Identifier: MIT
"""Medians and ranges, and how they are written."""
from statistics import median


def number(x):
    """Three digits that count, without an exponent."""
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}"


def spread(values):
    """`median [least..most]`."""
    return f"{number(median(values))} [{number(min(values))}..{number(max(values))}]"


def ratios(values, base):
    """One ratio for each repetition of two rows."""
    return [v / b for v, b in zip(values, base)]


def differences(values, base):
    return [v - b for v, b in zip(values, base)]


def markdown(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
