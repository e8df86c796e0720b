// SPDX-License-Identifier: MIT
#include <cordon/core/stop_token.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <source_location>
#include <thread>
#include <vector>

#if defined(__unix__)
#include <pthread.h>
#endif

namespace {

using cordon::inplace_stop_callback;
using cordon::inplace_stop_source;
using cordon::stop_kind;
using cordon::stop_reason;
using cordon::detail::attached;
using cordon::detail::stop_link;

struct dice {
    dice() : dice(static_cast<std::uint32_t>(stress::fresh_seed())) {}
    explicit dice(std::uint32_t s) : seed(s), engine(s) {}
    std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>(engine() % n); }

    std::uint32_t seed;
    std::minstd_rand engine;
};

struct child {
    child() = default;
    explicit child(const inplace_stop_source& parent) { link.attach(parent.get_token(), source); }
    inplace_stop_source source;
    stop_link link;
};

/// Waits for a condition, for a while without giving up the processor: who waits at a start should start at once.
template <class F>
void until(F condition) {
    for (int i = 0; !condition(); ++i)
        if (i > 2'000) std::this_thread::yield();
}

/// Threads that run one function after the other, each of them together.
class crew {
public:
    explicit crew(int threads) : threads_(threads) {
        for (int i = 1; i < threads; ++i)
            others_.emplace_back([this, i] {
                for (int round = 1;; ++round) {
                    until([&] { return round_ >= round; });
                    if (!work_) return;
                    meet_and_work(i);
                    --busy_;
                }
            });
    }
    ~crew() {
        work_ = nullptr;
        ++round_;
        for (std::thread& t : others_) t.join();
    }

    /// Runs `work(0)` here and `work(1)`... on the others; returns when all have ended.
    void run(std::function<void(int)> work) {
        work_ = std::move(work);
        missing_ = threads_;
        busy_ = threads_ - 1;
        ++round_;
        meet_and_work(0);
        until([&] { return busy_ == 0; });
    }

private:
    void meet_and_work(int i) {
        --missing_;
        until([&] { return missing_ <= 0; });
        work_(i);
    }

    int threads_;
    std::function<void(int)> work_;
    std::atomic<int> round_{0}, missing_{0}, busy_{0};
    std::vector<std::thread> others_;
};

void spin(std::uint32_t rounds) {
    for (std::atomic<std::uint32_t> i = 0; i.load(std::memory_order_relaxed) < rounds;)
        i.fetch_add(1, std::memory_order_relaxed);
}

/// A callback on a plain counter: only the source orders its runs with what the test reads afterwards.
struct count_up {
    int* runs;
    void operator()() const noexcept { ++*runs; }
};
using counting = inplace_stop_callback<count_up>;

}  // namespace

TEST_CASE("a tree of 100 stopped node by node, in random order, from four threads",
          "[stress][core][stop_token][C-027][X3]") {
    crew threads(4);
    dice random;
    int wrong = 0;
    for (int round = 0; round < 200; ++round) {
        std::deque<child> tree(100);
        std::deque<std::optional<counting>> callbacks(tree.size());
        std::vector<int> runs(tree.size());
        for (std::size_t i = 0; i < tree.size(); ++i) {
            if (i > 0) tree[i].link.attach(tree[(i - 1) / 4].source.get_token(), tree[i].source);
            callbacks[i].emplace(tree[i].source.get_token(), count_up{&runs[i]});
        }
        std::vector<std::size_t> order(tree.size());
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::shuffle(order.begin(), order.end(), random.engine);
        std::atomic<int> late{0};
        threads.run([&](int thread) {
            for (std::size_t i = static_cast<std::size_t>(thread); i < order.size(); i += 4) {
                const std::size_t top = order[i];
                tree[top].source.request_stop(static_cast<int>(top) + 1);
                // Its descendants are 4 * top + 1 and so on.
                for (std::size_t low = top, high = top; low < tree.size(); low = 4 * low + 1, high = 4 * high + 4)
                    for (std::size_t n = low; n <= high && n < tree.size(); ++n)
                        late += !tree[n].source.stop_requested();
            }
        });
        wrong += late.load();
        for (std::size_t i = 0; i < tree.size(); ++i) {
            wrong += runs[i] != 1;
            // The reason is an ancestor's or its own.
            std::size_t from = i;
            while (from > 0 && static_cast<int>(from) + 1 != tree[i].source.reason().code) from = (from - 1) / 4;
            wrong += static_cast<int>(from) + 1 != tree[i].source.reason().code;
        }
        callbacks.clear();
        while (!tree.empty()) tree.pop_back();
    }
    CHECK(wrong == 0);
}

TEST_CASE("a child made while its parent stops gets exactly the parent's reason",
          "[stress][core][stop_token][C-031][X2]") {
    crew threads(2);
    dice random;
    int wrong = 0;
    for (int round = 0; round < stress::rounds(10'000); ++round) {
        inplace_stop_source parent;
        const std::array<std::uint32_t, 2> delay{random.below(300), random.below(300)};
        int runs = 0;
        child c;
        {
            const counting callback(c.source.get_token(), count_up{&runs});
            threads.run([&](int thread) {
                spin(delay[static_cast<std::size_t>(thread)]);
                if (thread == 1) parent.request_stop({stop_kind::failure, round + 1, {}});
                else c.link.attach(parent.get_token(), c.source);
            });
        }
        wrong += runs != 1 || c.source.reason().kind != stop_kind::failure || c.source.reason().code != round + 1;
    }
    CHECK(wrong == 0);
}

TEST_CASE("who sees the stop sees the reason and what was written before it", "[stress][core][stop_token][X4]") {
    crew threads(2);
    int wrong = 0;
    for (int round = 0; round < stress::rounds(10'000); ++round) {
        inplace_stop_source parent;
        child c(parent);
        int written = 0;
        threads.run([&](int thread) {
            if (thread == 1) {
                written = round;
                parent.request_stop({stop_kind::deadline, round, std::source_location::current()});
                return;
            }
            stop_reason reason;
            while ((reason = c.source.reason()).kind == stop_kind::none) std::this_thread::yield();
            wrong += reason.kind != stop_kind::deadline || reason.code != round || reason.where.line() == 0;
            wrong += written != round;
        });
    }
    CHECK(wrong == 0);
}

TEST_CASE("a callback registered while the stop comes runs exactly once", "[stress][core][stop_token][X11]") {
    crew threads(2);
    dice random;
    int wrong = 0;
    for (int round = 0; round < stress::rounds(10'000); ++round) {
        inplace_stop_source source;
        const std::array<std::uint32_t, 2> delay{random.below(300), random.below(300)};
        std::array<int, 8> runs{};
        std::array<std::optional<counting>, 8> callbacks;
        threads.run([&](int thread) {
            spin(delay[static_cast<std::size_t>(thread)]);
            if (thread == 1) {
                source.request_stop();
            } else {
                for (std::size_t i = 0; i < runs.size(); ++i)
                    callbacks[i].emplace(source.get_token(), count_up{&runs[i]});
            }
        });
        wrong += std::any_of(runs.begin(), runs.end(), [](int n) { return n != 1; });
    }
    CHECK(wrong == 0);
}

TEST_CASE("a callback that is destroyed while it runs elsewhere is waited for", "[stress][core][stop_token][X11]") {
    crew threads(2);
    dice random;
    int ran = 0;
    int wrong = 0;
    for (int round = 0; round < stress::rounds(10'000); ++round) {
        inplace_stop_source source;
        const std::array<std::uint32_t, 3> delay{random.below(300), random.below(300), random.below(300)};
        // Plain: after the destructor nobody touches them any more, or TSan tells.
        int begun = 0;
        int ended = 0;
        auto work = [&]() noexcept {
            ++begun;
            spin(delay[2]);
            ++ended;
        };
        std::optional<inplace_stop_callback<decltype(work)>> callback;
        callback.emplace(source.get_token(), work);
        threads.run([&](int thread) {
            spin(delay[static_cast<std::size_t>(thread)]);
            if (thread == 1) {
                source.request_stop();
            } else {
                callback.reset();
                wrong += begun != ended;
                ran += ended;
                begun = ended = -1;
            }
        });
        wrong += begun != -1;
    }
    std::printf("the callback had started in %d of %d rounds\n", ran, stress::rounds(10'000));
    CHECK(wrong == 0);
}

TEST_CASE("a callback that has started is waited for, and no other", "[stress][core][stop_token][X11]") {
    inplace_stop_source source;
    std::atomic<bool> inside{false}, leave{false}, gone{false};
    int others = 0;
    auto wait = [&]() noexcept {
        inside = true;
        while (!leave) std::this_thread::yield();
    };
    std::optional<counting> later(std::in_place, source.get_token(), count_up{&others});
    std::optional<inplace_stop_callback<decltype(wait)>> callback;
    callback.emplace(source.get_token(), wait);  // runs first: the youngest does
    std::thread requester([&] { source.request_stop(); });
    while (!inside) std::this_thread::yield();

    later.reset();  // returns: it is not running
    CHECK_FALSE(source.request_stop());
    std::thread destroyer([&] {
        callback.reset();
        gone = true;
    });
    for (int i = 0; i < 1'000; ++i) std::this_thread::yield();
    CHECK_FALSE(gone);
    leave = true;
    destroyer.join();
    requester.join();
    CHECK(gone);
    CHECK(others == 0);
}

TEST_CASE("a source destroyed as soon as it is seen stopped outlives its request", "[stress][core][stop_token][X11]") {
    crew threads(2);
    dice random;
    for (int round = 0; round < stress::rounds(10'000); ++round) {
        auto source = std::make_unique<inplace_stop_source>();
        std::deque<child> children;
        for (std::uint32_t i = random.below(4); i > 0; --i) children.emplace_back(*source);
        threads.run([&](int thread) {
            if (thread == 1) {
                source->request_stop();
            } else {
                while (!source->stop_requested()) std::this_thread::yield();
                children.clear();
                // The other thread has read the pointer before it stopped the source; only its object is still in use.
                source.reset();
            }
        });
    }
    SUCCEED("TSan and ASan judge");
}

TEST_CASE("children come and go, with callbacks and children of their own, while the parent stops",
          "[stress][core][stop_token][X3][X12]") {
    crew threads(3);
    dice random;
    std::atomic<int> wrong{0};
    for (int round = 0; round < 1'000; ++round) {
        inplace_stop_source root;
        const std::uint32_t seed = random.below(1'000'000);
        const std::uint32_t delay = random.below(512);
        threads.run([&](int thread) {
            if (thread == 0) {
                spin(delay);
                root.request_stop(round);
                return;
            }
            dice mine(seed + static_cast<std::uint32_t>(thread));
            for (int i = 0; i < 16; ++i) {
                child a(root);
                child b(a.source), c(a.source);
                std::array<int, 3> runs{};
                {
                    std::optional<counting> on_a(std::in_place, a.source.get_token(), count_up{&runs[0]});
                    const counting on_b(b.source.get_token(), count_up{&runs[1]}),
                        on_c(c.source.get_token(), count_up{&runs[2]});
                    switch (mine.below(4)) {
                        case 0: spin(mine.below(128)); break;
                        case 1: a.source.request_stop(round); break;
                        case 2: on_a.reset(); break;
                        case 3: a.link.detach(); break;
                        default: break;
                    }
                    if (a.source.stop_requested()) wrong += a.source.reason().code != round;
                }
                wrong += *std::max_element(runs.begin(), runs.end()) > 1;
            }
        });
        wrong += attached(root) != 0;
    }
    CHECK(wrong == 0);
}

TEST_CASE("a child that leaves a stop on another thread gets each callback run exactly once",
          "[stress][core][stop_token][X3]") {
    crew threads(2);
    dice random;
    int wrong = 0;
    for (int round = 0; round < stress::rounds(10'000); ++round) {
        inplace_stop_source root;
        std::deque<child> children;
        std::array<int, 6> runs{};
        std::deque<counting> callbacks;
        for (std::size_t i = 0; i < 3; ++i) {
            children.emplace_back(root);
            for (std::size_t k = 0; k < 2; ++k)
                callbacks.emplace_back(children.back().source.get_token(), count_up{&runs[2 * i + k]});
        }
        const std::array<std::uint32_t, 2> delay{random.below(300), random.below(300)};
        threads.run([&](int thread) {
            spin(delay[static_cast<std::size_t>(thread)]);
            if (thread == 1) root.request_stop();
            else
                for (child& c : children) c.link.detach();
        });
        callbacks.clear();
        for (std::size_t i = 0; i < 3; ++i)
            for (std::size_t k = 0; k < 2; ++k)
                wrong += runs[2 * i + k] != (children[i].source.stop_requested() ? 1 : 0);
    }
    CHECK(wrong == 0);
}

TEST_CASE("a request finds all descendants stopped, those that others are stopping too",
          "[stress][core][stop_token][X3]") {
    // Three requests begin one above the other: each but the lowest finds the next one on its way down a long chain,
    // and must not return before that has come to the end.
    crew threads(3);
    dice random;
    int wrong = 0;
    for (int round = 0; round < stress::rounds(2'000); ++round) {
        std::deque<child> chain;
        chain.emplace_back();
        for (int i = 1; i < 200; ++i) chain.emplace_back(chain.back().source);
        const std::array<std::uint32_t, 3> delay{random.below(100), random.below(100), random.below(100)};
        std::atomic<int> late{0};
        threads.run([&](int thread) {
            spin(delay[static_cast<std::size_t>(thread)]);
            chain[static_cast<std::size_t>(thread)].source.request_stop(thread + 1);
            late += !chain.back().source.stop_requested();
        });
        wrong += late.load();
        while (!chain.empty()) chain.pop_back();
    }
    CHECK(wrong == 0);
}

TEST_CASE("children of two parents that stop at once end stopped, each callback run once",
          "[stress][core][stop_token]") {
    crew threads(2);
    dice random;
    int wrong = 0;
    for (int round = 0; round < stress::rounds(10'000); ++round) {
        inplace_stop_source left, right;
        std::array<int, 4> runs{};
        std::deque<child> children;
        std::deque<child> grandchildren;
        std::deque<stop_link> second(4);
        std::deque<counting> callbacks;
        for (std::size_t i = 0; i < 4; ++i) {
            children.emplace_back(left);
            second[i].attach(right.get_token(), children.back().source);
            callbacks.emplace_back(grandchildren.emplace_back(children.back().source).source.get_token(),
                                   count_up{&runs[i]});
        }
        const std::array<std::uint32_t, 2> delay{random.below(300), random.below(300)};
        threads.run([&](int thread) {
            spin(delay[static_cast<std::size_t>(thread)]);
            (thread == 0 ? left : right).request_stop(thread + 1);
        });
        for (std::size_t i = 0; i < 4; ++i) {
            const int code = children[i].source.reason().code;
            wrong += runs[i] != 1 || code < 1 || code > 2 || grandchildren[i].source.reason().code != code;
        }
        callbacks.clear();
        grandchildren.clear();
        second.clear();
        children.clear();
        wrong += attached(left) != 0 || attached(right) != 0;
    }
    CHECK(wrong == 0);
}

#if defined(__unix__)

TEST_CASE("a chain of a million sources stops on a thread with a stack of 256 KiB", "[stress][core][stop_token][X3]") {
    inplace_stop_source root;
    std::deque<child> chain;
    chain.emplace_back(root);
    for (int i = 1; i < stress::rounds(1'000'000); ++i) chain.emplace_back(chain.back().source);
    pthread_attr_t small;
    REQUIRE(pthread_attr_init(&small) == 0);
    REQUIRE(pthread_attr_setstacksize(&small, 256 * 1024) == 0);
    pthread_t thread;
    const auto body = [](void* source) -> void* {
        static_cast<inplace_stop_source*>(source)->request_stop(5);
        return nullptr;
    };
    REQUIRE(pthread_create(&thread, &small, body, &root) == 0);
    REQUIRE(pthread_join(thread, nullptr) == 0);
    pthread_attr_destroy(&small);
    CHECK(chain.back().source.reason().code == 5);
    while (!chain.empty()) chain.pop_back();
}

#endif
