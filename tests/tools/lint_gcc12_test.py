# SPDX-License-Identifier: MIT
import re
import unittest

from sample import Sample

BAD = r"""
task<> a() {
    co_await f(opts{a, b});  // aggregate
    co_await f({.n = 2});  // aggregate
    co_await f({});  // aggregate
    co_await aw{trk};  // aggregate
    co_await retry([s = std::string{}] { g(); });  // lambda
    co_await [k]() -> task<> { co_return; }();  // lambda
    int x = co_await f([]() -> task<> { co_return; }) + co_await g([]() -> task<> { co_return; });  // lambdas
    co_await v({1, 2});  // list
    co_await v(std::vector<T>{x});  // list
    std::vector<int> w{co_await a(), co_await b()};  // list
    auto s = co_await a() ? t : u;  // ternary
    auto [p, q] = co_await both();  // binding
    auto& [p2, q2] = co_await both();  // binding
    if (co_await v({1, 2})) g(opts{1});  // list
    co_await run([&] { return 1; }, [&]() -> task<> { co_await f(opts{1}); });  // aggregate
    co_await run([=] {});  // lambda
    co_await run([&, y] {});  // lambda
    co_yield item{1, name};  // aggregate
    std::vector<int> z = {co_await a(), 2};  // list
    co_return co_await m.send(ns::msg{.id = 1});  // aggregate
    co_await f(std::array<T, 2>{x, y});  // list
    while (go && co_await more()) f();  // logic
    co_return a == 7 || co_await more();  // logic
    f((a && b), !(c && co_await more()));  // logic
    if (a && co_await more() && b) f();  // logic
    for (int i = 0; i < 3 && co_await more(); ++i) f();  // logic
    CHECK(co_await more());  // logic
    REQUIRE_FALSE(g(co_await more()));  // logic
}
struct s {
    int member = 1;
    task<> b() {
        try {
            while (co_await more()) f();  // condition
        } catch (...) {
            do { f(); } while (!co_await more());  // condition
        }
    }
    task<> c(int n) { if (n == 0) { if (g(co_await more())) f(); } }  // condition
};
namespace n { int x = 1; class c { int y = 2; task<> f() { if (co_await more()) g(); } }; }  // condition
auto d = []() -> task<> { for (; co_await more();) f([] { int n = 1; g(n); }); };  // condition
auto e = []() -> task<> { switch (co_await more()) { case 1: f(); } };  // condition
"""

GOOD = r"""
#define X(a) co_await a({1, 2})
namespace n { struct s { int a{1}; std::vector<int> v{1, 2}; }; }
n::s::s() : a{1}, b{2} { co_await x; }
task<> a() {
    auto l = [s = 1] { return s; };
    co_await f(l);
    auto t = f([k] { return k; });
    co_await std::move(t);
    for (int i : {1, 2, 3}) co_await g(i);
    for (auto& [k, v] : m) co_await g(k);
    co_await co::with_group({.name = "x", .max_running = 8}, [&](auto& group) -> co::task<> { co_return; });
    co_await group.spawn_when_ready(work(), {.name = "x"});
    co_await co::sleep_for(std::chrono::milliseconds{5});
    const co::deadline d{co_await co::this_task::deadline()};
    std::optional<int> o{co_await a()};
    auto both = co_await co::when_all(a(), b());
    auto& [p, q] = both;
    struct guard { int& b; ~guard() { b = true; } } g{x};
    co_await f(a[1], b[i]);  int arr[3] = {1, 2, 3};
    if (co_await a()) { opts o{1, 2}; int r = c ? 1 : 2; }
    co_await f([this] { return x_; });
    co_await f(opts{1});  // gcc12-ok: trivially copyable
    // gcc12-ok: scalars
    co_await f(a ? 1 : 2);
    const auto text = "co_await f({1})"; /* co_await f({1}) */
    switch (co_await a()) { case 1: { break; } default: g({1}); }
    auto r = [] { return R"(co_await f({1, 2}))"; };
    [[maybe_unused]] auto z = co_await a();
    try { co_await a(); } catch (...) { h({1}); }
    while (co_await a()) { if (x) break; }
    if (x && y) co_await a();
    if (x || y) { const bool more = co_await a() && y; f(more); }
    auto&& u = co_await a();
    f(x && y, co_await a());
    CHECK(more);
    CHECK_THROWS_AS(co_await a(), std::exception);
    CHECK(co::sync_wait([&]() -> co::task<bool> { co_return co_await a(); }()));
}
task<> later() { if (co_await a()) f(); std::vector<int> n; }
task<> inner() { if (co_await a()) { const auto& [k, v] = f(); g(k); } }
task<> looped() { for (auto i : v) { if (co_await a(i)) f(); } }
auto lambda = []() -> task<> { int n = 0; while (co_await a(n)) ++n; };
namespace n { class c { task<> m() { if (co_await a()) f(); int n = 0; } }; }
task<> plain() { for (;;) co_await a(); }
task<> branch() { if (x) co_await a(); else co_await b(); }
task<> step() { for (f(); x; g(co_await a())) h(); }
auto f() -> co::task<std::vector<int>> { co_return {1, 2}; }
"""


class LintGcc12(Sample):
    tool = "lint_gcc12.py"

    def test_every_bad_line_is_found_for_what_it_is(self):
        path = self.file("bad.cpp", BAD)
        said = self.run_tool(path, status=1)
        wanted = [f"{path}:{number}: {bad[1]}" for number, line in enumerate(BAD.splitlines(), 1)
                  if (bad := re.search(r"// (\w+)$", line))]
        self.assertEqual([line.split(" in a co_await")[0] for line in said.splitlines()], wanted)

    def test_nothing_else_is_found(self):
        self.run_tool(self.file("good.cpp", GOOD))

    def test_folders_are_searched(self):
        self.file("src/deep/bad.hpp", BAD)
        self.run_tool(self.root, status=1)

    def test_a_reason_is_needed_to_be_let_off(self):
        self.run_tool(self.file("one.cpp", "void f() { co_await g(o{1}); }  // gcc12-ok:\n"), status=1)


unittest.main()
