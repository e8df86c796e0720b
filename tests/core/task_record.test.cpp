// SPDX-License-Identifier: MIT
#include <cordon/core/task_record.hpp>

#include "catch.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <set>
#include <source_location>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <unistd.h>
#endif

using cordon::task_info;
using cordon::detail::named_wait_label;
using cordon::detail::task_record;
using cordon::detail::unqualified_name;
using cordon::detail::wait_label;

namespace {

inline constinit const wait_label sleep_label{"sleep_for"};

#if CORDON_TASK_RECORDS

task_record* open(std::string_view name, task_record* parent = nullptr, std::uint32_t now_ms = 0,
                  std::source_location at = std::source_location::current()) {
    return task_record::open(false, name, at, parent, now_ms);
}

std::optional<task_info> find(std::uint64_t id, std::uint32_t now_ms = 0) {
    for (task_info& info : cordon::detail::live_tasks(now_ms)) {
        if (info.id == id) return std::move(info);
    }
    return std::nullopt;
}

// How many records there ever were at once.
std::size_t cells() {
    std::size_t count = 0;
    const auto* chunk = cordon::detail::record_slab<task_record>::newest();
    for (; chunk != nullptr; chunk = chunk->older) count += static_cast<std::size_t>(chunk->end() - chunk->begin());
    return count;
}

// A sanitizer's shadow memory grows on its own.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#elif defined(__has_feature)
constexpr bool sanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool sanitized = false;
#endif

std::size_t resident_bytes() {
#if defined(__linux__)
    unsigned long total = 0, resident = 0;
    if (std::FILE* file = std::fopen("/proc/self/statm", "r")) {
        if (std::fscanf(file, "%lu %lu", &total, &resident) != 2) resident = 0;
        std::fclose(file);
    }
    return resident * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
#else
    return 0;
#endif
}

#endif

std::string line_of(const std::source_location& at) { return std::to_string(at.line()); }

std::source_location here(std::source_location at = std::source_location::current()) { return at; }

namespace app {
template <class T>
struct box {
    std::source_location get(T) const { return here(); }
    std::source_location operator()(int) const { return here(); }
    std::source_location operator<(int) const { return here(); }
};
std::source_location read_row(std::vector<std::string> = {}) { return here(); }
template <class T, class U>
std::source_location pair_of(T, U) {
    return here();
}
}  // namespace app

}  // namespace

#if CORDON_TASK_RECORDS

TEST_CASE("a record that is opened and closed again counts its lives", "[core][task_record]") {
    task_record* first = open("first");
    REQUIRE(first != nullptr);
    const std::uint64_t id = first->id();
    CHECK(find(id));
    first->close();
    CHECK_FALSE(find(id));

    task_record* second = open("second");
    CHECK(second == first);   // the same thread reuses what it freed last
    CHECK(second->id() == id + (std::uint64_t{1} << 32));
    CHECK_FALSE(find(id));
    CHECK(find(second->id())->name == "second");
    second->close();
}

TEST_CASE("a dump sees the name, the place of the spawn, the parent, the age and the kind", "[core][task_record]") {
    task_record* group = task_record::open(true, "connections", std::source_location::current(), nullptr, 1000);
    task_record* task = open("session 10.0.0.7:51234", group, 1500);
    const auto line = std::source_location::current().line() - 1;

    const auto seen = find(task->id(), 1520);
    REQUIRE(seen);
    CHECK(seen->name == "session 10.0.0.7:51234");
    CHECK(seen->parent_id == group->id());
    CHECK(seen->spawned_at.line() == line);
    CHECK(seen->age == std::chrono::milliseconds(20));
    CHECK(seen->state == task_info::activity::starting);
    CHECK_FALSE(seen->is_group);
    CHECK(seen->waits.empty());

    const auto parent = find(group->id(), 1520);
    REQUIRE(parent);
    CHECK(parent->is_group);
    CHECK(parent->parent_id == 0);
    CHECK(parent->age == std::chrono::milliseconds(520));
    task->close();
    group->close();
}

TEST_CASE("an age counts on when the milliseconds wrap, and is never negative", "[core][task_record]") {
    task_record* old = open("old", nullptr, 0xFFFF'FFF0U);
    CHECK(find(old->id(), 0x10)->age == std::chrono::milliseconds(0x20));
    CHECK(find(old->id(), 0xFFFF'FFE0U)->age == std::chrono::milliseconds(0));   // the dump read its clock earlier
    old->close();

    task_record* now = open("now", nullptr, cordon::detail::to_record_ms(cordon::clock::now()));
    const auto all = cordon::live_tasks();
    const auto seen = std::find_if(all.begin(), all.end(), [&](const task_info& i) { return i.id == now->id(); });
    REQUIRE(seen != all.end());
    CHECK(seen->age < std::chrono::minutes(1));
    now->close();
}

TEST_CASE("a name is copied and cut to 63 bytes between characters", "[core][task_record]") {
    const auto kept = [](const std::string& name) {
        task_record* task = open(name);
        std::string seen = find(task->id())->name;
        task->close();
        return seen;
    };
    CHECK(kept("").empty());
    for (const std::size_t length : {1U, 7U, 8U, 9U, 62U, 63U}) {
        CHECK(kept(std::string(length, 'x')) == std::string(length, 'x'));
    }
    CHECK(kept(std::string(64, 'x')) == std::string(63, 'x'));
    CHECK(kept(std::string(1000, 'x')) == std::string(63, 'x'));
    CHECK(kept(std::string(62, 'x') + "\xC3\xA4") == std::string(62, 'x'));
    CHECK(kept(std::string(61, 'x') + "\xC3\xA4") == std::string(61, 'x') + "\xC3\xA4");
}

TEST_CASE("a task can be renamed, and loses its name when the new one is empty", "[core][task_record]") {
    task_record* task = open("before");
    const std::uint64_t id = task->id();
    task->rename("after");
    CHECK(find(id)->name == "after");
    task->rename("");
    CHECK(find(id)->name.empty());
    task->rename("again");
    CHECK(find(id)->name == "again");
    CHECK(find(id)->state == task_info::activity::starting);
    task->close();
}

TEST_CASE("a suspended task shows where and for what it waits, a running one does not", "[core][task_record]") {
    task_record* task = open("worker");
    const std::uint64_t id = task->id();
    const auto outer = here(), inner = here();

    task->suspended(outer, {}, inner, false, sleep_label);
    auto seen = find(id);
    CHECK(seen->state == task_info::activity::suspended);
    REQUIRE(seen->waits.size() == 2);
    CHECK(seen->waits[0].function_name() == outer.function_name());
    CHECK(seen->waits[1].line() == inner.line());
    CHECK(seen->waits_for == "sleep_for");
    CHECK_FALSE(seen->frames_elided);

    task->running();
    seen = find(id);
    CHECK(seen->state == task_info::activity::running);
    CHECK(seen->waits.empty());
    CHECK(seen->waits_for.empty());

    task->suspended(outer, inner, inner, true, sleep_label);
    seen = find(id);
    CHECK(seen->waits.size() == 3);
    CHECK(seen->frames_elided);
    task->close();
}

TEST_CASE("a named label shows kind and name, and one without a name its kind", "[core][task_record]") {
    constexpr wait_label kind{"semaphore"};
    task_record* task = open("worker");
    const auto waits_for = [&](const wait_label& label) {
        task->suspended({}, {}, here(), false, label);
        std::string seen = find(task->id())->waits_for;
        task->running();
        return seen;
    };
    CHECK(waits_for(named_wait_label(kind, "db")) == "semaphore db");
    CHECK(waits_for(named_wait_label(kind, "")) == "semaphore");
    CHECK(waits_for(named_wait_label(kind, std::string(80, 'x'))) == "semaphore " + std::string(45, 'x'));
    named_wait_label held(kind, "db");
    held.held_by(12);
    CHECK(waits_for(held) == "semaphore db, held by 12");
    held.held_by(0);
    CHECK(waits_for(held) == "semaphore db");
    CHECK(find(task->id())->waits_for.empty());
    task->close();
}

TEST_CASE("a record may be closed on another thread, and after that thread's caches are gone", "[core][task_record]") {
    task_record* task = open("wanderer");
    const std::uint64_t id = task->id();
    std::thread([&] { task->close(); }).join();
    CHECK_FALSE(find(id));

    struct closer {
        task_record* task = nullptr;
        ~closer() {
            if (task == nullptr) return;
            task->close();   // the thread's caches were destroyed before: made later
            task_record* late = open("late");
            late->close();
        }
    };
    const std::size_t cells_before = cells();
    for (int round = 0; round < 5000; ++round) {
        std::thread([] {
            thread_local closer last;
            last.task = open("last");
        }).join();
    }
    CHECK(cells() <= cells_before + 1024);
    for (const task_info& info : cordon::live_tasks()) CHECK(info.name != "last");
}

TEST_CASE("threads that end give their free records back", "[core][task_record]") {
    const std::size_t cells_before = cells();
    for (int round = 0; round < 1000; ++round) {
        std::thread([] {
            std::vector<task_record*> some;
            for (int i = 0; i < 150; ++i) some.push_back(open("short"));
            for (task_record* record : some) record->close();
        }).join();
    }
    CHECK(cells() <= cells_before + 1024);
}

TEST_CASE("memory stays flat when one thread opens a million records and another closes them", "[core][task_record]") {
    constexpr std::size_t pairs = 1'000'000, window = 256;
    std::vector<std::atomic<task_record*>> ring(window);
    const auto run = [&](std::size_t count) {
        std::thread closer([&] {
            for (std::size_t i = 0; i < count; ++i) {
                task_record* record;
                while ((record = ring[i % window].exchange(nullptr)) == nullptr) std::this_thread::yield();
                record->close();
            }
        });
        for (std::size_t i = 0; i < count; ++i) {
            while (ring[i % window].load() != nullptr) std::this_thread::yield();
            ring[i % window].store(open("a task"));
        }
        closer.join();
    };
    run(10'000);
    const std::size_t cells_before = cells();
    const std::size_t resident_before = resident_bytes();
    run(pairs);
    CHECK(cells() <= cells_before + 1024);
    if (!sanitized) CHECK(resident_bytes() <= resident_before + 512 * 1024);
}

TEST_CASE("a hundred thousand live records are all in the dump, and their memory serves the next ones",
          "[core][task_record]") {
    constexpr std::size_t many = 100'000;
    const std::size_t before = cordon::live_tasks().size();
    std::vector<task_record*> records;
    std::set<std::uint64_t> ids;
    for (std::size_t i = 0; i < many; ++i) {
        records.push_back(open(std::to_string(i), i == 0 ? nullptr : records[0]));
        ids.insert(records.back()->id());
    }
    CHECK(ids.size() == many);

    const auto all = cordon::live_tasks();
    CHECK(all.size() == before + many);
    CHECK(std::is_sorted(all.begin(), all.end(), [](const task_info& a, const task_info& b) {
        return (a.id & 0xFFFF'FFFFU) < (b.id & 0xFFFF'FFFFU);
    }));
    CHECK(std::count_if(all.begin(), all.end(), [&](const task_info& i) { return ids.count(i.id) != 0; }) == many);
    CHECK(std::count_if(all.begin(), all.end(), [&](const task_info& i) { return i.parent_id == records[0]->id(); }) ==
          many - 1);

    for (std::size_t i = many; i-- > 0;) records[i]->close();
    CHECK(cordon::live_tasks().size() == before);

    const std::size_t cells_before = cells();
    for (auto& record : records) record = open("");
    for (auto& record : records) record->close();
    CHECK(cells() == cells_before);
}

#else

TEST_CASE("without records everything is there, costs nothing and knows nobody", "[core][task_record]") {
    const named_wait_label label{sleep_label, "x"};
    CHECK(task_record::open(false, "a task", here(), nullptr, 0) == nullptr);
    task_record record;
    record.suspended({}, here(), here(), false, label);
    record.running();
    record.rename("another");
    CHECK(record.id() == 0);
    CHECK(cordon::live_tasks().empty());
    record.close();
}

#endif

TEST_CASE("a description has a line for the task and one for each place where it waits", "[core][task_record]") {
    const auto spawned = here(), outer = app::read_row(), inner = [] { return here(); }();
    task_info task;
    task.id = 1;
    task.name = "session 10.0.0.7:51234";
    task.spawned_at = app::pair_of(1, 2.0);
    task.age = std::chrono::milliseconds(20);
    const std::string head = "#1 \"session 10.0.0.7:51234\"  alive 20 ms  spawned at task_record.test.cpp:" +
                             line_of(task.spawned_at) + " in pair_of\n";
    CHECK(describe(task) == head);

    task.state = task_info::activity::running;
    CHECK(describe(task) == head + "    running\n");

    task.state = task_info::activity::suspended;
    task.waits_for = "sleep_for";
    CHECK(describe(task) == head + "    waits for sleep_for\n");
    task.waits = {outer, inner};
    CHECK(describe(task) == head + "    waits at task_record.test.cpp:" + line_of(outer) + " in read_row\n" +
                                "    waits at task_record.test.cpp:" + line_of(inner) + " in lambda in " +
                                unqualified_name(spawned.function_name()) + "   sleep_for\n");

    task.waits = {outer, outer, outer};
    task.frames_elided = true;
    const std::string row = "    waits at task_record.test.cpp:" + line_of(outer) + " in read_row";
    CHECK(describe(task) == head + row + "\n    ...\n" + row + "\n" + row + "   sleep_for\n");

    task = {};
    task.id = (std::uint64_t{2} << 32) | 7;
    task.is_group = true;
    task.name = "two\nlines";
    task.spawned_at = spawned;
    CHECK(describe(task).starts_with("#7.2 group \"two?lines\"  alive 0 ms  spawned at task_record.test.cpp:"));
    task.name.clear();
    task.is_group = false;
    CHECK(describe(task).starts_with("#7.2  alive 0 ms  spawned at "));
}

TEST_CASE("real source locations are shown with the function's bare name", "[core][task_record]") {
    const app::box<std::vector<int>> box;
    CHECK(unqualified_name(app::read_row().function_name()) == "read_row");
    CHECK(unqualified_name(app::pair_of(1, "x").function_name()) == "pair_of");
    CHECK(unqualified_name(box.get({}).function_name()) == "get");
    CHECK(unqualified_name(box(1).function_name()) == "operator()");
    CHECK(unqualified_name((box < 1).function_name()) == "operator<");
    struct local {
        static std::source_location at() { return here(); }
        static std::source_location deep() { return [](auto) { return [] { return here(); }(); }(1); }
    };
    CHECK(unqualified_name(local::at().function_name()) == "at");
    CHECK(unqualified_name(local::deep().function_name()) == "lambda in deep");
    CHECK(unqualified_name(std::source_location{}.function_name()).empty());
}

TEST_CASE("a function's bare name is found in each compiler's spelling", "[core][task_record]") {
    const auto& name = unqualified_name;
    // as GCC writes it
    CHECK(name("void read_row(read_row()::_Z8read_rowv.Frame*)") == "read_row");
    CHECK(name("void {anonymous}::anon(anon(std::function<void(int)>)::_ZN12_GLOBAL__N_14anonE.Frame*)") == "anon");
    CHECK(name("main()::<lambda(auto:4)> [with auto:4 = int]") == "lambda in main");
    CHECK(name("void main()::<lambda(int)>::operator()(main()::<lambda(int)>::_ZZ4mainENKUliE2_clEi.Frame*)") ==
          "lambda in main");
    CHECK(name("void main()::<lambda(int)> mutable::<lambda()>::operator()(x*)") == "lambda in main");
    CHECK(name("void<lambda(int)>::operator()(<lambda(int)>::_ZNK11global_coroMUliE_clEi.Frame*)") == "lambda");
    CHECK(name("void (* fp(int))(char)") == "fp");
    CHECK(name("void app::gbox<T>::in<U>::f(U) [with U = char; T = int]") == "f");
    CHECK(name("app::box app::box::operator->()") == "operator->");
    CHECK(name("bool app::box::operator<=>(int)") == "operator<=>");
    CHECK(name("app::box::operator std::vector<int>()") == "operator std::vector<int>");
    CHECK(name("int operator\"\"_x(long long unsigned int)") == "operator\"\"_x");
    CHECK(name("app::box::~box()") == "~box");
    CHECK(name("std::string f[abi:cxx11](int)") == "f[abi:cxx11]");
    CHECK(name("void app::operator_count(int)") == "operator_count");
    // as Clang writes it
    CHECK(name("cordon::task<> read_row()") == "read_row");
    CHECK(name("cordon::task<> (anonymous namespace)::anon(std::function<void (int)>)") == "anon");
    CHECK(name("auto main()::(anonymous class)::operator()(auto) const [x:auto = int]") == "lambda in main");
    CHECK(name("auto f()::(lambda)::operator()(int)::(lambda)::operator()() const [T = int]") == "lambda in f");
    CHECK(name("auto (anonymous class)::operator()(int) const") == "lambda");
    CHECK(name("void (*fp(int))(char)") == "fp");
    CHECK(name("const std::vector<int> &cref()") == "cref");
    CHECK(name("void nttp() [V = (lambda at names.cpp:48:114){}]") == "nttp");
    CHECK(name("cordon::task<> app::box::operator()(T) [T = int]") == "operator()");
    CHECK(name("void app::box::amp() &&") == "amp");
    // as others do, and what nobody writes
    CHECK(name("main") == "main");
    for (const char* odd : {"", "(", "<", "operator", "a::", "f(", "f(a<b", "x:", ")", "f():"}) {
        CHECK_NOTHROW(name(odd));
    }
}
