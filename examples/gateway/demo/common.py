# SPDX-License-Identifier: MIT
"""Small things that the others use."""

import re


class CannotRun(Exception):
    """The demo could not be carried out, which says nothing about the gateway."""


def say(text):
    print(text, flush=True)


def found(pattern, text):
    match = re.search(pattern, text)
    return match and match.group(1)


def exit_text(code):
    return f"code {code}" if code >= 0 else f"signal {-code}"
