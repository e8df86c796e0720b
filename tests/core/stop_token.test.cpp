// SPDX-License-Identifier: MIT
#include <cordon/core/stop_token.hpp>

#include "catch.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <source_location>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__unix__)
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#endif

namespace {

using cordon::inplace_stop_callback;
using cordon::inplace_stop_source;
using cordon::inplace_stop_token;
using cordon::stop_kind;
using cordon::stop_reason;
using cordon::detail::attached;
using cordon::detail::stop_link;
using cordon::detail::stop_node;

struct nothing {
    void operator()() const noexcept {}
};

// A token, a source, and a registration are part of every scope and of every wait.
static_assert(sizeof(inplace_stop_token) == sizeof(void*) && std::is_trivially_copyable_v<inplace_stop_token>);
static_assert(std::is_trivially_copyable_v<stop_reason>);
static_assert(sizeof(void*) != 8 || sizeof(inplace_stop_source) <= 48);
static_assert(sizeof(stop_node) <= 4 * sizeof(void*) && sizeof(stop_link) <= 4 * sizeof(void*));
static_assert(sizeof(inplace_stop_callback<nothing>) <= 5 * sizeof(void*));

static_assert(!std::is_copy_constructible_v<inplace_stop_source> && !std::is_move_constructible_v<inplace_stop_source>);
static_assert(std::is_same_v<inplace_stop_token::callback_type<nothing>, inplace_stop_callback<nothing>>);
static_assert(std::is_nothrow_constructible_v<inplace_stop_callback<nothing>, inplace_stop_token, nothing>);
static_assert(!std::is_nothrow_constructible_v<inplace_stop_callback<std::function<void()>>, inplace_stop_token,
                                               const std::function<void()>&>);
static_assert(inplace_stop_source::stop_possible());

constinit inplace_stop_source constant_initialised;

constexpr stop_reason because(int code, stop_kind kind = stop_kind::requested) { return {kind, code, {}}; }

/// A source that is linked to a parent.
struct child {
    explicit child(const inplace_stop_source& parent) { link.attach(parent.get_token(), source); }
    inplace_stop_source source;
    stop_link link;
};

/// A callback that counts how often it ran, and then does what it was told.
struct counter {
    struct call {
        counter* self;
        void operator()() const noexcept {
            ++self->runs;
            if (self->then) self->then();
        }
    };
    explicit counter(const inplace_stop_source& source, std::function<void()> f = {}) : then(std::move(f)) {
        callback.emplace(source.get_token(), call{this});
    }
    int runs = 0;
    std::function<void()> then;
    std::optional<inplace_stop_callback<call>> callback;
};

}  // namespace

TEST_CASE("a default token never stops", "[core][stop_token][C-067]") {
    const inplace_stop_token none;
    CHECK_FALSE(none.stop_possible());
    CHECK_FALSE(none.stop_requested());
    CHECK(none.reason().kind == stop_kind::none);
    CHECK(none == inplace_stop_token{});

    bool ran = false;
    {
        const inplace_stop_callback callback(none, [&]() noexcept { ran = true; });
    }
    CHECK_FALSE(ran);

    inplace_stop_source source;
    stop_link link;
    CHECK(link.attach(none, source));
    CHECK_FALSE(source.stop_requested());
}

TEST_CASE("tokens of one source are equal, of two are not, and swap", "[core][stop_token]") {
    inplace_stop_source a;
    const inplace_stop_source b;
    inplace_stop_token t = a.get_token();
    inplace_stop_token u = b.get_token();
    CHECK(t == a.get_token());
    CHECK(t != u);
    CHECK(t.stop_possible());
    t.swap(u);
    a.request_stop();
    CHECK(u.stop_requested());
    CHECK_FALSE(t.stop_requested());
}

TEST_CASE("a stop is kept with its reason", "[core][stop_token][C-032][X1]") {
    inplace_stop_source source;
    CHECK(source.reason().kind == stop_kind::none);
    CHECK(source.reason().where.line() == 0);
    CHECK_FALSE(source.stop_requested());

    CHECK(source.request_stop({stop_kind::deadline, 7, std::source_location::current()}));
    const auto line = std::source_location::current().line() - 1;
    CHECK(source.stop_requested());
    CHECK(source.get_token().stop_requested());
    for (const stop_reason reason : {source.reason(), source.get_token().reason()}) {
        CHECK(reason.kind == stop_kind::deadline);
        CHECK(reason.code == 7);
        CHECK(reason.where.line() == line);
    }
}

TEST_CASE("a plain request says from where it came", "[core][stop_token][X1]") {
    CHECK(constant_initialised.request_stop());
    const auto line = std::source_location::current().line() - 1;
    CHECK(constant_initialised.reason().kind == stop_kind::requested);
    CHECK(constant_initialised.reason().code == 0);
    CHECK(constant_initialised.reason().where.line() == line);
    CHECK(std::string(constant_initialised.reason().where.file_name()) == __FILE__);

    inplace_stop_source with_code;
    with_code.request_stop(42);
    CHECK(with_code.reason().code == 42);

    inplace_stop_source odd;
    odd.request_stop(stop_reason{});
    CHECK(odd.reason().kind == stop_kind::requested);
}

TEST_CASE("the first stop wins, later ones do nothing", "[core][stop_token][X2]") {
    inplace_stop_source source;
    counter c(source);
    CHECK(source.request_stop(because(1, stop_kind::failure)));
    CHECK_FALSE(source.request_stop(because(2)));
    CHECK_FALSE(source.request_stop());
    CHECK(source.reason().kind == stop_kind::failure);
    CHECK(source.reason().code == 1);
    CHECK(c.runs == 1);
}

TEST_CASE("a callback runs once, before the request returns", "[core][stop_token][X3][X11]") {
    inplace_stop_source source;
    counter a(source), b(source), c(source);
    CHECK(attached(source) == 3);
    b.callback.reset();
    CHECK(attached(source) == 2);
    source.request_stop();
    CHECK(a.runs == 1);
    CHECK(b.runs == 0);
    CHECK(c.runs == 1);
    CHECK(attached(source) == 0);
}

TEST_CASE("a callback on a stopped source runs at once, in its constructor", "[core][stop_token][C-062]") {
    inplace_stop_source source;
    source.request_stop(because(3));
    int code = 0;
    const inplace_stop_callback callback(source.get_token(), [&]() noexcept { code = source.reason().code; });
    CHECK(code == 3);
    CHECK(attached(source) == 0);
}

TEST_CASE("a callback that was removed before the stop never runs", "[core][stop_token][C-063]") {
    inplace_stop_source source;
    counter c(source);
    c.callback.reset();
    source.request_stop();
    CHECK(c.runs == 0);
}

TEST_CASE("a callback may hold a reference, be moved in, or be converted", "[core][stop_token]") {
    inplace_stop_source source;
    int runs = 0;
    auto by_name = [&] { ++runs; };
    const inplace_stop_callback<decltype(by_name)&> a(source.get_token(), by_name);
    const inplace_stop_callback b(source.get_token(), [&, p = std::make_unique<int>(5)]() noexcept { runs += *p; });
    const inplace_stop_callback<std::function<void()>> c(source.get_token(), [&] { runs += 10; });
    source.request_stop();
    CHECK(runs == 16);
}

TEST_CASE("a node is attached and detached by hand, as often as one likes", "[core][stop_token]") {
    struct flag : private stop_node {
        flag() : stop_node([](stop_node& self) noexcept { static_cast<flag&>(self).ran = true; }) {}
        using stop_node::attach;
        using stop_node::detach;
        bool ran = false;
    };
    inplace_stop_source first, second;
    flag node;
    node.detach();
    CHECK(node.attach(first));
    CHECK(attached(first) == 1);
    node.detach();
    node.detach();
    CHECK(attached(first) == 0);
    CHECK(node.attach(second.get_token()));
    first.request_stop();
    CHECK_FALSE(node.ran);
    second.request_stop();
    CHECK(node.ran);
    node.detach();

    node.ran = false;
    CHECK_FALSE(node.attach(first));
    CHECK_FALSE(node.ran);
    CHECK(attached(first) == 0);
    node.detach();
    CHECK(node.attach(inplace_stop_token{}));
    node.detach();
}

TEST_CASE("right after a request returns, the whole tree is stopped for its reason", "[core][stop_token][C-002][X3]") {
    inplace_stop_source root;
    child a(root), b(root);
    child aa(a.source), ab(a.source), aaa(aa.source);
    counter leaf(aaa.source), middle(a.source);
    for (const child* c : {&a, &b, &aa, &ab, &aaa}) CHECK_FALSE(c->source.stop_requested());
    CHECK(a.source.request_stop(because(9, stop_kind::closed)));
    CHECK_FALSE(root.stop_requested());
    CHECK_FALSE(b.source.stop_requested());
    for (const child* c : {&a, &aa, &ab, &aaa}) {
        CHECK(c->source.stop_requested());
        CHECK(c->source.reason().kind == stop_kind::closed);
        CHECK(c->source.reason().code == 9);
    }
    CHECK(leaf.runs == 1);
    CHECK(middle.runs == 1);
    root.request_stop();
    CHECK(b.source.stop_requested());
    CHECK(aaa.source.reason().code == 9);
    CHECK(leaf.runs == 1);
}

TEST_CASE("a child that has ended leaves no trace in its parent", "[core][stop_token][C-006][X12]") {
    inplace_stop_source root;
    {
        const child quiet(root);
        CHECK(attached(root) == 1);
    }
    CHECK(attached(root) == 0);
    {
        child stopped(root);
        CHECK(attached(root) == 1);
        stopped.source.request_stop();
        stopped.link.detach();
        CHECK(attached(root) == 0);
    }
    CHECK(attached(root) == 0);
    CHECK_FALSE(root.stop_requested());
}

TEST_CASE("a million scopes, one after the other, leave nothing behind", "[core][stop_token][C-068][X12]") {
    inplace_stop_source root;
    for (int i = 0; i < 1'000'000; ++i) {
        child scope(root);
        if (i % 16 == 0) scope.source.request_stop(because(i, stop_kind::deadline));
    }
    CHECK(attached(root) == 0);
}

TEST_CASE("the child of a stopped parent is born stopped, for the same reason", "[core][stop_token][C-030]") {
    inplace_stop_source root;
    root.request_stop(because(4, stop_kind::failure));
    inplace_stop_source source;
    child below(source);
    counter own(source), deep(below.source);
    stop_link link;
    CHECK_FALSE(link.attach(root.get_token(), source));
    for (const inplace_stop_source* s : {&source, &below.source}) {
        CHECK(s->reason().kind == stop_kind::failure);
        CHECK(s->reason().code == 4);
    }
    CHECK(own.runs == 1);
    CHECK(deep.runs == 1);
}

TEST_CASE("whoever comes first fixes the child's reason",
          "[core][stop_token][C-034][C-035][C-036][C-037][C-038][C-039][X2]") {
    // 0 is a request without a code of its own.
    struct row {
        const char* id;
        bool parent_first;
        int parent_code, child_code, expected;
    };
    for (const row& r : {row{"C-034", true, 1, 2, 1}, row{"C-035", false, 1, 2, 2}, row{"C-036", true, 1, 0, 1},
                         row{"C-037", false, 1, 0, 0}, row{"C-038", true, 0, 2, 0}, row{"C-039", false, 0, 2, 2}}) {
        INFO(r.id);
        inplace_stop_source parent;
        child c(parent);
        if (r.parent_first) parent.request_stop(r.parent_code);
        c.source.request_stop(r.child_code);
        if (!r.parent_first) parent.request_stop(r.parent_code);
        CHECK(c.source.reason().kind == stop_kind::requested);
        CHECK(c.source.reason().code == r.expected);
        CHECK(parent.reason().code == r.parent_code);
    }
}

TEST_CASE("a source with two parents stops with the first that stops", "[core][stop_token]") {
    inplace_stop_source ambient, token;
    {
        child c(ambient);
        child below(c.source);
        stop_link second;
        CHECK(second.attach(token.get_token(), c.source));
        counter leaf(below.source);
        token.request_stop(1);
        ambient.request_stop(2);
        CHECK(below.source.reason().code == 1);
        CHECK(leaf.runs == 1);
    }
    CHECK(attached(ambient) == 0);

    // Both ways down from one root: the child is reached once.
    inplace_stop_source root;
    child left(root), right(root), bottom(left.source);
    stop_link second;
    CHECK(second.attach(right.source.get_token(), bottom.source));
    counter leaf(bottom.source);
    root.request_stop(3);
    CHECK(leaf.runs == 1);
    CHECK(bottom.source.reason().code == 3);
}

TEST_CASE("a callback finds the whole tree stopped, and runs before those further down", "[core][stop_token][X3]") {
    inplace_stop_source root;
    child a(root), aa(a.source);
    std::string order;
    counter deep(aa.source, [&] { order += "3"; });
    counter middle(a.source, [&] { order += "2"; });
    counter top(root, [&] { order += aa.source.stop_requested() && a.source.stop_requested() ? "1" : "?"; });
    root.request_stop();
    CHECK(order == "123");
}

TEST_CASE("a callback may stop child, sibling, parent and itself", "[core][stop_token][C-028]") {
    SECTION("while the parent's stop is on its way") {
        inplace_stop_source parent;
        child c(parent);
        counter below(c.source);
        bool won = true;
        counter top(parent, [&] { won = c.source.request_stop(2) || parent.request_stop(3); });
        parent.request_stop(1);
        CHECK_FALSE(won);
        CHECK(c.source.reason().code == 1);
        CHECK(below.runs == 1);
    }
    SECTION("upwards, while the child's stop is on its way") {
        inplace_stop_source parent;
        child c(parent), sibling(parent), grandchild(c.source);
        counter other(sibling.source), top(parent), deep(grandchild.source);
        counter own(c.source, [&] {
            CHECK(parent.request_stop(2));
            CHECK(sibling.source.reason().code == 2);
            CHECK(other.runs == 1);
            CHECK(top.runs == 1);
            CHECK(grandchild.source.reason().code == 1);
        });
        c.source.request_stop(1);
        CHECK(c.source.reason().code == 1);
        for (const counter* x : {&other, &top, &deep, &own}) CHECK(x->runs == 1);
    }
    SECTION("sideways") {
        inplace_stop_source parent;
        child a(parent), b(parent);
        counter on_b(b.source), on_a(a.source, [&] { CHECK(b.source.request_stop(2)); });
        a.source.request_stop(1);
        CHECK(on_b.runs == 1);
        CHECK(b.source.reason().code == 2);
        CHECK_FALSE(parent.stop_requested());
    }
}

TEST_CASE("a callback may register others, which run at once", "[core][stop_token]") {
    inplace_stop_source source;
    child c(source);
    int runs = 0;
    counter first(source, [&] {
        const inplace_stop_callback second(source.get_token(), [&]() noexcept { ++runs; });
        const child born(c.source);
        runs += born.source.stop_requested();
    });
    source.request_stop();
    CHECK(runs == 2);
}

TEST_CASE("a callback may destroy itself and its siblings", "[core][stop_token][X11]") {
    // Whatever the order in which they run, the first to run destroys all three.
    inplace_stop_source source;
    std::vector<std::unique_ptr<counter>> all;
    int runs = 0;
    const auto destroy = [&] {
        ++runs;
        for (auto& c : all) c->callback.reset();
    };
    for (int i = 0; i < 3; ++i) all.push_back(std::make_unique<counter>(source, destroy));
    source.request_stop();
    CHECK(runs == 1);
    CHECK(attached(source) == 0);
}

TEST_CASE("each callback may destroy any other, earlier or later", "[core][stop_token][X11]") {
    for (std::size_t victim = 0; victim < 3; ++victim) {
        for (std::size_t killer = 0; killer < 3; ++killer) {
            inplace_stop_source source;
            std::vector<std::unique_ptr<counter>> all;
            std::vector<std::size_t> order;
            for (std::size_t i = 0; i < 3; ++i)
                all.push_back(std::make_unique<counter>(source, [&, i] {
                    order.push_back(i);
                    if (i == killer) all[victim]->callback.reset();
                }));
            source.request_stop();
            const auto at = [&](std::size_t i) { return std::find(order.begin(), order.end(), i) - order.begin(); };
            INFO("killer " << killer << ", victim " << victim);
            CHECK(order.size() == (at(victim) > at(killer) ? 2U : 3U));
        }
    }
}

TEST_CASE("a callback may destroy the source that runs it", "[core][stop_token][X11]") {
    auto root = std::make_unique<inplace_stop_source>();
    std::optional<counter> last;
    last.emplace(*root, [&] {
        last->callback.reset();
        root.reset();
    });
    CHECK(root->request_stop());
    CHECK(root == nullptr);
    CHECK(last->runs == 1);
}

TEST_CASE("a callback may destroy children that are still to be visited, or are being visited", "[core][stop_token]") {
    inplace_stop_source root;
    std::vector<std::unique_ptr<child>> children;
    std::vector<std::unique_ptr<counter>> counters;
    int runs = 0;
    SECTION("from above") {
        for (int i = 0; i < 4; ++i) children.push_back(std::make_unique<child>(root));
        counter top(root, [&] {
            ++runs;
            children[2].reset();
            children[0].reset();
            children[3].reset();
        });
        counter other(children[1]->source, [&] { ++runs; });
        root.request_stop();
        CHECK(runs == 2);
    }
    SECTION("from inside one of them") {
        for (std::size_t i = 0; i < 3; ++i) {
            children.push_back(std::make_unique<child>(root));
            counters.push_back(std::make_unique<counter>(children[i]->source, [&] {
                ++runs;
                for (auto& c : counters) c->callback.reset();
                children.clear();
            }));
        }
        root.request_stop();
        CHECK(runs == 1);
    }
    CHECK(attached(root) == 0);
}

TEST_CASE("a child that leaves a running stop gets its callbacks run as it leaves", "[core][stop_token]") {
    inplace_stop_source root;
    child a(root), aa(a.source);
    counter middle(a.source), deep(aa.source);
    int seen = 0;
    counter top(root, [&] {
        a.link.detach();
        seen = middle.runs * 10 + deep.runs;
    });
    root.request_stop();
    CHECK(seen == 10);
    CHECK(middle.runs == 1);
    CHECK(deep.runs == 1);
}

TEST_CASE("a chain of a million sources stops on a small stack", "[core][stop_token][X3]") {
    std::deque<child> chain;
    inplace_stop_source root;
    chain.emplace_back(root);
    for (int i = 1; i < 1'000'000; ++i) chain.emplace_back(chain.back().source);
    const auto frame = [](void* address) { return reinterpret_cast<std::intptr_t>(address); };
    const auto here = frame(__builtin_frame_address(0));  // no local's address: ASan moves those off the stack
    std::intptr_t depth = 0;
    counter deepest(chain.back().source, [&] { depth = std::abs(here - frame(__builtin_frame_address(0))); });
    CHECK(root.request_stop(because(11)));
    CHECK(deepest.runs == 1);
    CHECK(depth > 0);
    CHECK(depth < 16 * 1024);
    CHECK(std::all_of(chain.begin(), chain.end(), [](const child& c) { return c.source.reason().code == 11; }));
    deepest.callback.reset();
    while (!chain.empty()) chain.pop_back();
}

TEST_CASE("a hundred thousand children stop, and their callbacks run", "[core][stop_token]") {
    inplace_stop_source root;
    std::deque<child> children;
    std::deque<counter> counters;
    for (int i = 0; i < 100'000; ++i) counters.emplace_back(children.emplace_back(root).source);
    CHECK(attached(root) == 100'000);
    root.request_stop();
    CHECK(std::all_of(counters.begin(), counters.end(), [](const counter& c) { return c.runs == 1; }));
}

namespace {

/// Three sources in a row, a callback on each, and a script of steps, of which every callback that runs does the next
/// few itself. Beside them a model: what is stopped, for which reason, and what may and must have run.
class play {
public:
    enum step : std::uint8_t { stop_0, stop_1, stop_2, drop_1, unlink_1, destroy_2, destroy_1, destroy_0 };
    static constexpr std::size_t steps = 8;

    play(const std::array<step, steps>& script, std::size_t per_callback) : script_(script), share_(per_callback) {
        for (std::size_t i = 0; i < 3; ++i) {
            parts_[i].source = std::make_unique<inplace_stop_source>();
            if (i > 0) {
                parts_[i].link.attach(parts_[i - 1].source->get_token(), *parts_[i].source);
                parts_[i].linked = true;
            }
            parts_[i].callback.emplace(parts_[i].source->get_token(), call{this, i});
        }
    }

    bool holds() {
        while (next_ < steps) one_step();
        check();
        for (std::size_t i = 0; i < 3; ++i)
            if (parts_[i].callback) expect(parts_[i].runs == (parts_[i].code != 0 ? 1 : 0));
        for (std::size_t i = 3; i-- > 0;) destroy(i);
        return good_;
    }

private:
    struct call {
        play* self;
        std::size_t i;
        void operator()() const noexcept { self->ran(i); }
    };
    struct part {
        std::unique_ptr<inplace_stop_source> source;
        stop_link link;
        bool linked = false;
        int code = 0;  // the model: 0 as long as it is not stopped
        int runs = 0;
        std::optional<inplace_stop_callback<call>> callback;
    };

    void expect(bool fact) { good_ = good_ && fact; }

    void ran(std::size_t i) {
        expect(++parts_[i].runs == 1);
        expect(parts_[i].code != 0);
        check();
        for (std::size_t n = 0; n < share_ && next_ < steps; ++n) one_step();
    }

    void check() {
        for (const part& p : parts_)
            if (p.source) expect(p.source->stop_requested() == (p.code != 0) && p.source->reason().code == p.code);
    }

    void one_step() {
        const step s = script_[next_++];
        switch (s) {
            case stop_0:
            case stop_1:
            case stop_2: stop(s - stop_0, s + 1); break;
            case drop_1: parts_[1].callback.reset(); break;
            case unlink_1: unlink(1); break;
            case destroy_0: destroy(0); break;
            case destroy_1: destroy(1); break;
            case destroy_2: destroy(2); break;
        }
        check();
    }

    void stop(std::size_t i, int code) {
        if (!parts_[i].source) return;
        const bool first = parts_[i].code == 0;
        for (std::size_t n = i; first && n < 3; ++n) {
            if (n > i && (!parts_[n].linked || parts_[n].code != 0)) break;
            parts_[n].code = code;
        }
        expect(parts_[i].source->request_stop(code) == first);
    }

    void unlink(std::size_t i) {
        parts_[i].linked = false;
        parts_[i].link.detach();
        // The one callback has run, or is running further up this stack, when nobody else is left to run it.
        if (parts_[i].source && parts_[i].callback) expect(parts_[i].runs == (parts_[i].code != 0 ? 1 : 0));
    }

    void destroy(std::size_t i) {
        parts_[i].callback.reset();
        if (i < 2) unlink(i + 1);
        unlink(i);
        if (parts_[i].source) expect(attached(*parts_[i].source) == 0);
        parts_[i].source.reset();
    }

    std::array<step, steps> script_;
    std::size_t share_;
    std::size_t next_ = 0;
    bool good_ = true;
    std::array<part, 3> parts_;
};

}  // namespace

TEST_CASE("every order of stops, unlinks and destructions, each inside callbacks too, keeps the rules",
          "[core][stop_token][X2][X3][X11][X12]") {
    std::array<play::step, play::steps> script{};
    for (std::size_t i = 0; i < script.size(); ++i) script[i] = static_cast<play::step>(i);
    long bad = 0;
    long plays = 0;
    do {
        for (const std::size_t per_callback : {1U, 2U, 8U}) {
            ++plays;
            if (play(script, per_callback).holds() || bad++ != 0) continue;
            std::string first;
            for (const play::step s : script) first += std::to_string(s) + ' ';
            UNSCOPED_INFO("first bad script: " << first << "with " << per_callback << " steps in a callback");
        }
    } while (std::next_permutation(script.begin(), script.end()));
    CHECK(plays == 3 * 40'320);
    CHECK(bad == 0);
}

#if defined(__unix__)

namespace {

/// What `f` prints to stderr before it ends its process by a signal; empty if it does not.
template <class F>
std::string last_words(F f) {
    int fds[2];
    REQUIRE(pipe(fds) == 0);
    const pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        std::signal(SIGABRT, SIG_DFL);  // not the test runner's
        dup2(fds[1], STDERR_FILENO);
        f();
        _exit(0);
    }
    close(fds[1]);
    std::string text;
    char buffer[256];
    for (ssize_t n; (n = read(fds[0], buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<std::size_t>(n));
    close(fds[0]);
    int status = 0;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    return WIFSIGNALED(status) ? text : std::string();
}

}  // namespace

TEST_CASE("a source that dies too early says so", "[core][stop_token]") {
    const auto callbacks = last_words([] {
        auto source = std::make_unique<inplace_stop_source>();
        const counter c(*source);
        source.reset();
    });
    CHECK(callbacks.find("callbacks are registered") != std::string::npos);
    const auto children = last_words([] {
        auto source = std::make_unique<inplace_stop_source>();
        const child c(*source);
        source.reset();
    });
    CHECK(children.find("it has children") != std::string::npos);
    const auto linked = last_words([] {
        const inplace_stop_source root;
        auto source = std::make_unique<inplace_stop_source>();
        stop_link link;
        link.attach(root.get_token(), *source);
        source.reset();
    });
    CHECK(linked.find("before the link to its parent") != std::string::npos);
}

TEST_CASE("a callback that throws terminates", "[core][stop_token][X11]") {
    const auto words = last_words([] {
        inplace_stop_source source;
        const inplace_stop_callback callback(source.get_token(), [] { throw 1; });
        source.request_stop();
    });
    CHECK(words.find("terminate") != std::string::npos);
}

#endif
