#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Finds coroutine code that g++ 12 miscompiles: eight patterns around a co_await or co_yield.

  aggregate  a braced temporary: copied bit by bit into the frame and destroyed twice if it is an aggregate
  list       a braced initializer_list: an error, "array used as initializer"
  lambda     a temporary lambda that captures by value: destroyed twice
  lambdas    two lambdas that are coroutines: a jump to null
  ternary    a conditional expression: destroys what was not selected
  binding    auto [a, b] = co_await x: destructors skipped, by g++ 15 and 16 too
  logic      a co_await on the right of && or ||, or in a CHECK or REQUIRE of Catch2: awaited even if the left decides
  condition  a condition with a co_await, in a coroutine that declares nothing: its frame is broken

It reads tokens, not types, so it also finds what happens to be safe, such as a trivially copyable aggregate. Say so with
`// gcc12-ok: reason` on that line or above it. What is spelled std::, co:: or cordon:: is taken to be safe.
"""
import argparse
import pathlib
import re
import sys

TOKEN = re.compile(r"""(?P<skip>\s+|//[^\n]*|/\*.*?\*/|\#(?:\\\n|[^\n])*)
    |\w*R"(?P<raw>[^()\s]*)\(.*?\)(?P=raw)"\w*|\w*"(?:\\.|[^"\\])*"\w*|(?:u8|[uUL])?'(?:\\.|[^'\\])*'
    |\.?\d(?:[eEpP][+-]|['\w.])*|\w+|::|->|&&|\|\||.""", re.S | re.X)
KEYWORD = r"\b(?:return|co_return|co_await|co_yield|throw|case|else|do)\b"
WORD = rf"(?!{KEYWORD})[A-Za-z_]\w*(?: < [^;{{}}]* >)?"
NAME = re.compile(rf"(?:(?<= )|^)(?::: )?(?:{WORD} :: )*{WORD}$")
LIST = re.compile(r"(std::)?(array|(forward_)?list|vector|deque|initializer_list|(unordered_)?(multi)?(map|set))$")
SAFE = re.compile(r"(::)?(std|co|cordon)::|(.*\b)?(spawn(_future|_when_ready)?|((nano|micro|milli)?seconds|minutes|hours)"
                  r"|bool|char|int|unsigned|double|size_t)$")
DECLARATION = re.compile(rf"(?:(?:if|for|while|switch|else|constexpr) )*(?:\( )?(?:using|struct|class|enum|(?:const )?(?!{KEYWORD}"
                         r"|delete|goto|new)(?::: )?\w+(?: :: \w+| < .* >)*(?: const| &&?| \*)* (?:\w+ [=;({[:,]|\[ \w))")
CATCH = re.compile(r"(CATCH_)?(CHECK|REQUIRE)(_FALSE|_NOFAIL|ED_IF|ED_ELSE)?$")
SUFFIX = re.compile(r"\.([chi]pp|[ch]xx|cc|hh?|ixx|cppm)$")
ADVICE = {
    "aggregate": "name the object first and pass it with std::move, or give its type a constructor",
    "list": "name the container first and pass it with std::move",
    "lambda": "name the lambda first, or capture by reference",
    "lambdas": "await each in a statement of its own, or name the lambdas first",
    "ternary": "use if and else",
    "binding": "name the result first: auto r = co_await x; auto& [a, b] = r;",
    "logic": "name the result first, in an if of its own where the left decides",
    "condition": "name the result first: const bool done = co_await x; if (done)",
}


class Source:
    """The tokens of a file; a brace is a lambda's body, another block, or an initializer."""

    def __init__(self, text):
        self.tokens, self.lines, line = [], [], 1
        for match in TOKEN.finditer(text):
            if match["skip"] is None:
                self.tokens.append(match[0])
                self.lines.append(line)
            line += match[0].count("\n")
        self.parent, self.close, self.ends = [], {}, set()  # the bracket around each token; its end; ends of statements
        stack = [-1]
        for i, token in enumerate(self.tokens):
            if token in (")", "]", "}") and len(stack) > 1:
                self.close[stack.pop()] = i
            self.parent.append(stack[-1])
            if token in ("(", "[", "{"):
                stack.append(i)
        self.bodies = {body: i for i in self.close if self.tokens[i] == "[" and (body := self.body(i))}
        self.blocks = set(self.bodies)
        for i in sorted(self.close, reverse=True):  # inner brackets first
            before, inside = self.tokens[i - 1], range(i + 1, self.close[i])
            if self.tokens[i] == "(" and before in ("if", "for", "while", "switch", "constexpr"):
                self.ends.add(self.close[i])
            if self.tokens[i] == "{" and (before in (")", "else", "do", "try") or any(self.tokens[j] == ";" or (
                    j in self.blocks and j not in self.bodies) for j in inside if self.parent[j] == i)):
                self.blocks.add(i)
        self.coroutines, self.owner = set(), {-1: None}  # the opening brackets of lambdas with a co_ word of their own
        for i, token in enumerate(self.tokens):
            self.owner[i] = self.bodies.get(self.parent[i], self.owner[self.parent[i]])
            if token in ("co_await", "co_return", "co_yield"):
                self.coroutines.add(self.owner[i])

    def body(self, i):
        """The `{` of the lambda that begins at i; None for a subscript, an attribute or a structured binding."""
        before = " ".join(self.tokens[max(i - 2, 0):i])
        if self.tokens[i + 1] == "[" or re.search(r"auto( &&?)?$|[\w\")\][]$", re.sub(KEYWORD, "", before)):
            return None
        i = self.close[i] + 1
        while self.tokens[i:i + 1] not in ([], ["{"], [";"], [")"], ["}"]):
            i = self.close.get(i, i) + 1
        return i if i in self.close else None

    def name_before(self, end):
        """The qualified name before `end`, without template arguments, and the token before it."""
        name = NAME.search(text := " ".join(self.tokens[max(end - 40, 0):end]))
        before = ["", *text[:name.start()].split()] if name else [""]
        return re.sub(r" |<.*>", "", name[0]) if name else "", before[-1]

    def statements(self, begin, end):
        """The full expressions between two indices, each a list of indices; lambda bodies have their own."""
        statement, i = [], begin
        while i < end:
            last = i in self.ends or self.tokens[i] == ";" or i in self.blocks and i not in self.bodies
            statement.append(i)
            if i in self.blocks:
                yield from self.statements(i + 1, self.close[i])
                i = self.close[statement.pop()]
            if last:
                yield statement
                statement = []
            i += 1
        yield statement

    def brace(self, i):
        """The pattern that the initializer at i is an instance of, or None."""
        name, before = self.name_before(i)
        around = self.tokens[self.parent[i]] if self.parent[i] >= 0 else ""
        if name and around != "(" and re.match(r"[\w>&*]", before) and not re.match(KEYWORD, before):  # T name{...}
            return "list" if LIST.match(self.name_before(i - 1)[0]) else None
        if LIST.match(name):
            return "list"
        callee = name or self.name_before(self.parent[i])[0]
        if SAFE.match(callee) or around == "{" and self.parent[i] not in self.blocks:
            return None
        return "aggregate" if name or self.tokens[i + 1] in (".", "}") else "list"

    def around(self, i):
        """The opening brackets around i, inner ones first."""
        while (i := self.parent[i]) >= 0:
            yield i

    def is_decided_before(self, i):
        """Whether the left side of a && or || decides if the co_await at i is reached."""
        for bracket in (i, *self.around(i)):
            if bracket in self.blocks:
                return False
            before = [j for j in range(self.parent[bracket] + 1, bracket) if self.parent[j] == self.parent[bracket]]
            for j in reversed(before):
                if self.tokens[j] in (",", ";", "=") or j in self.blocks:
                    break
                if self.tokens[j] in ("&&", "||"):
                    return True
            if self.tokens[bracket] == "(" and CATCH.match(self.tokens[bracket - 1]):
                return True
        return False

    def function(self, i):
        """The opening brace of the function around i, or None."""
        if self.owner[i] is not None:
            return self.body(self.owner[i])
        return next((j for j in reversed([*self.around(i)]) if j in self.blocks and not re.search(
            r"\b(class|struct|union|enum|namespace)\b[^;(){}]*$", " ".join(self.tokens[max(j - 20, 0):j]))), None)

    def declares(self, i):
        """Whether the function around i declares anything."""
        if (body := self.function(i)) is None:
            return False
        return any(DECLARATION.match(" ".join(self.tokens[j] for j in statement))
                   for statement in self.statements(body + 1, self.close[body])
                   if statement and self.owner[statement[0]] == self.owner[i])

    def is_condition(self, i):
        """Whether the co_await at i is in the condition of a statement."""
        for bracket in self.around(i):
            if bracket in self.blocks:
                return False
            if self.tokens[bracket] == "(" and self.tokens[bracket - 1] in ("if", "while", "for", "switch"):
                heads = [j for j in range(bracket, i) if self.tokens[j] == ";" and self.parent[j] == bracket]
                return self.tokens[bracket - 1] != "for" or len(heads) == 1
        return False

    def judge(self, statement):
        """Yields (line, pattern) for a full expression."""
        if not {"co_await", "co_yield"} & set(words := [self.tokens[i] for i in statement]):
            return
        lambdas = [i for i in statement if i in self.bodies.values()]
        found = [(i, "ternary") for i in statement if self.tokens[i] == "?"
                 and not all(re.match(r"\d", arm) for arm in self.tokens[i + 1:i + 4:2])]
        found += [(i, self.brace(i)) for i in statement if self.tokens[i] == "{"]
        found += [(i, "lambda") for i in lambdas if re.search(
            r"(^|,)\s*(?!&|this\s*(,|$))\S", " ".join(self.tokens[i + 1:self.close[i]]))]
        found += [(i, "lambdas") for i in [j for j in lambdas if j in self.coroutines][1:]]
        awaits = [i for i in statement if self.tokens[i] == "co_await"]
        found += [(i, "logic") for i in awaits if self.is_decided_before(i)]
        found += [(i, "condition") for i in awaits if self.is_condition(i) and not self.declares(i)]
        found += [(statement[0], "binding")] if re.search(r"\bauto (&&? )?\[ [\w ,]*\] =", " ".join(words)) else []
        yield from ((self.lines[i], pattern) for i, pattern in found if pattern)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=pathlib.Path, help="C++ source files, or folders of them")
    files, found = [], 0
    for path in parser.parse_args().paths:
        files += [file for file in sorted(path.rglob("*")) if SUFFIX.match(file.suffix)] if path.is_dir() else [path]
    for path in files:
        source, lines = Source(text := path.read_text(errors="replace")), ["", *text.splitlines()]
        for line, pattern in sorted({f for s in source.statements(0, len(source.tokens)) for f in source.judge(s)}):
            if not any(re.search(r"//.*gcc12-ok: \S", near) for near in lines[line - 1:line + 1]):
                print(f"{path}:{line}: {pattern} in a co_await expression: {ADVICE[pattern]}", file=sys.stderr)
                found += 1
    if not found:
        print(f"gcc12: {len(files)} files, none of the eight patterns")
    sys.exit(1 if found else 0)


main()
