// SPDX-License-Identifier: MIT
#include <cordon/observe/task_dump.hpp>

#include <cordon/core/task.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <ostream>
#include <source_location>
#include <sstream>
#include <stdexcept>
#include <streambuf>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;
using co::detail::task_record;
using co::testing::simulation;

std::string dump(co::dump_options options = {}) {
    std::ostringstream out;
    co::write_task_dump(out, options);
    return out.str();
}

[[maybe_unused]] std::size_t count(std::string_view text, std::string_view part) {
    std::size_t n = 0;
    for (std::size_t at = 0; (at = text.find(part, at)) != std::string_view::npos; at += part.size()) ++n;
    return n;
}

/// The lines of a text that hold `part`, each without the number behind "#".
[[maybe_unused]] std::string lines_with(const std::string& text, std::string_view part) {
    std::istringstream in(text);
    std::string found;
    for (std::string line; std::getline(in, line);)
        if (line.find(part) != std::string::npos) {
            if (const std::size_t hash = line.find('#'); hash != std::string::npos)
                line.erase(hash + 1, line.find(' ', hash) - hash - 1);
            found += line + '\n';
        }
    return found;
}

/// A parsed JSON value. Accepts what RFC 8259 does, of numbers only whole ones, and refuses anything else by throwing.
struct json {
    using object = std::map<std::string, json>;
    std::variant<std::monostate, bool, std::int64_t, std::string, std::vector<json>, object> value;

    const json& operator[](const std::string& key) const { return std::get<object>(value).at(key); }
    const std::vector<json>& list() const { return std::get<std::vector<json>>(value); }
    const std::string& text() const { return std::get<std::string>(value); }
    std::int64_t number() const { return std::get<std::int64_t>(value); }
    bool boolean() const { return std::get<bool>(value); }
    bool null() const { return value.index() == 0; }

    static json parse(std::string_view text) {
        json whole = read(text);
        skip(text);
        expect(text.empty());
        return whole;
    }

private:
    static void expect(bool right) {
        if (!right) throw std::runtime_error("not JSON");
    }
    static void skip(std::string_view& in) {
        while (!in.empty() && std::string_view(" \n\t\r").find(in[0]) != std::string_view::npos) in.remove_prefix(1);
    }
    static bool take(std::string_view& in, std::string_view token) {
        skip(in);
        if (!in.starts_with(token)) return false;
        in.remove_prefix(token.size());
        return true;
    }
    static std::string read_string(std::string_view& in) {
        expect(take(in, "\""));
        std::string text;
        while (!in.starts_with('"')) {
            const std::size_t length = co::detail::utf8_length(in);
            expect(!in.empty() && length != 0 && static_cast<unsigned char>(in[0]) >= ' ');
            if (in[0] != '\\') {
                text += in.substr(0, length);
                in.remove_prefix(length);
                continue;
            }
            const char escaped = in.at(1);
            std::size_t used = 2;
            if (escaped == 'u') {
                text += static_cast<char>(std::stoi(std::string(in.substr(2, 4)), nullptr, 16));
                used = 6;
            } else {
                const std::size_t which = std::string_view("\"\\/bfnrt").find(escaped);
                expect(which != std::string_view::npos);
                text += "\"\\/\b\f\n\r\t"[which];
            }
            in.remove_prefix(used);
        }
        in.remove_prefix(1);
        return text;
    }
    static json read(std::string_view& in) {
        skip(in);
        expect(!in.empty());
        if (in[0] == '"') return {read_string(in)};
        if (take(in, "null")) return {};
        if (take(in, "true")) return {true};
        if (take(in, "false")) return {false};
        if (take(in, "[")) {
            std::vector<json> all;
            if (take(in, "]")) return {all};
            do all.push_back(read(in));
            while (take(in, ","));
            expect(take(in, "]"));
            return {all};
        }
        if (take(in, "{")) {
            object all;
            if (take(in, "}")) return {all};
            do {
                std::string key = read_string(in);
                expect(take(in, ":"));
                expect(all.emplace(key, read(in)).second);
            } while (take(in, ","));
            expect(take(in, "}"));
            return {all};
        }
        std::size_t used = 0;
        const std::int64_t n = std::stoll(std::string(in.substr(0, 20)), &used);
        in.remove_prefix(used);
        return {n};
    }
};

[[maybe_unused]] const json& named(const json& dumped, const std::string& name) {
    for (const json& t : dumped["tasks"].list())
        if (t["name"].text() == name) return t;
    throw std::runtime_error("nobody is called " + name);
}

constexpr std::uint_least32_t first_line = std::source_location::current().line();
[[maybe_unused]] task<> read_row(co::async_semaphore& db) { co_await db.acquire(); }
[[maybe_unused]] task<> query(co::async_semaphore& db) { co_await read_row(db); }
[[maybe_unused]] task<> session(co::async_semaphore& db) { co_await query(db); }

/// A group whose tasks run when `run` is called, and are stopped in the end.
struct polled_group {
    explicit polled_group(std::string_view name) : group(loop, {.name = name}) {}
    ~polled_group() {
        group.request_stop();
        run();
        co::sync_wait(group.join());
    }
    void run() {
        while (loop.poll()) {}
    }
    co::run_loop loop;
    co::task_group group;
};

}  // namespace

#if CORDON_TASK_RECORDS

TEST_CASE("a dump shows each task below its group, and where all of its frames wait and for what",
          "[observe][task_dump]") {
    std::string seen;
    const auto look = [&]() -> task<> {
        co::async_semaphore db{3, {.name = "db"}};
        co_await db.acquire(3);
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(session(db), {.name = "ada"});
            co_await simulation::advance(1500ms);
            group.spawn(session(db), {.name = "bob"});
            co_await simulation::advance(20ms);
            seen = dump();
            group.request_stop();
        };
        co_await co::with_group({.name = "connections"}, body);
    };
    const auto end_of_look = std::source_location::current().line() - 1;
    simulation().run(look());

    const auto at = [](std::uint_least32_t line) { return "task_dump.test.cpp:" + std::to_string(line) + " in "; };
    INFO(seen);
    CHECK(lines_with(seen, "group").starts_with("  # group \"connections\"  alive 1520 ms  spawned at " +
                                                at(end_of_look - 1) + "lambda in "));
    CHECK(lines_with(seen, "\"ada\"").starts_with("    # \"ada\"  alive 1520 ms  spawned at " + at(end_of_look - 8)));
    CHECK(lines_with(seen, "\"bob\"").starts_with("    # \"bob\"  alive 20 ms  spawned at " + at(end_of_look - 6)));
    CHECK(count(seen, "        waits at " + at(first_line + 3) + "session\n        waits at " + at(first_line + 2) +
                          "query\n        waits at " + at(first_line + 1) + "read_row   semaphore db, held by 3\n") == 2);
    CHECK(seen.find("\"connections\"") < seen.find("\"ada\""));
    CHECK(dump().empty());
}

TEST_CASE("a text dump is what describe says of each, further in below each parent", "[observe][task_dump]") {
    task_record* const group = task_record::open(true, "outer", {}, nullptr, 0);
    task_record* const other = task_record::open(true, "other", {}, nullptr, 0);
    task_record* const child = task_record::open(false, "child", {}, group, 0);
    task_record* const inner = task_record::open(true, "inner", {}, child, 0);
    task_record* const leaf = task_record::open(false, "leaf", {}, inner, 0);
    task_record* const second = task_record::open(false, "second", {}, group, 0);
    child->running();

    std::map<std::string, std::string> lines;
    for (const co::task_info& info : co::detail::live_tasks(0)) lines[info.name] = co::describe(info);
    std::ostringstream out;
    co::detail::record_reader reader(0);
    co::detail::dump_text(out, reader);
    const auto indented = [&](const std::string& name, std::size_t columns) {
        std::string text;
        co::detail::append_indented(text, lines[name], columns);
        return text;
    };
    const std::string child_lines = indented("child", 2) + indented("inner", 4) + indented("leaf", 6);
    const std::string in_order = child->id() % 0x1'0000'0000 < second->id() % 0x1'0000'0000
                                     ? child_lines + indented("second", 2)
                                     : indented("second", 2) + child_lines;
    CHECK(out.str().find(lines["outer"] + in_order) != std::string::npos);
    CHECK(("\n" + out.str()).find("\n" + lines["other"]) != std::string::npos);
    CHECK(count(out.str(), "#") == 6);
    for (task_record* r : {second, leaf, inner, child, other, group}) r->close();
}

TEST_CASE("who ends after the first look at all is left out, and so is who begins in its record",
          "[observe][task_dump]") {
    task_record* const group = task_record::open(true, "group", {}, nullptr, 0);
    task_record* const child = task_record::open(false, "ended", {}, group, 0);
    co::detail::record_reader reader(0);
    co::detail::task_tree tree(reader);
    child->close();
    task_record* const later = task_record::open(false, "later", {}, group, 0);
    REQUIRE(later == child);
    std::vector<std::string> names;
    tree.visit([&](const co::task_info& info, std::size_t) { names.push_back(info.name); });
    CHECK(names == std::vector<std::string>{"group"});

    co::task_info info;
    CHECK(reader.find(later->id(), info));
    CHECK(info.name == "later");
    CHECK_FALSE(reader.find(0, info));
    CHECK_FALSE(reader.find(0xFFFF'FFFF, info));
    later->close();
    group->close();
}

TEST_CASE("a chain of fifty thousand parents is dumped without recursion", "[observe][task_dump]") {
    std::vector<task_record*> chain{nullptr};
    for (int i = 0; i < 50'000; ++i) chain.push_back(task_record::open(i % 2 == 0, "link", {}, chain.back(), 0));
    const std::string seen = dump();
    CHECK(count(seen, "\"link\"") == 50'000);
    CHECK(lines_with(seen.substr(seen.size() - 200), "link").starts_with(std::string(40, ' ') + "# "));
    for (; chain.back() != nullptr; chain.pop_back()) chain.back()->close();
}

TEST_CASE("by site, tasks that wait at the same places are one entry, and the largest comes first",
          "[observe][task_dump]") {
    std::string seen;
    json parsed;
    const auto look = [&]() -> task<> {
        co::async_semaphore db{0, {.name = "db"}}, disk{0, {.name = "disk"}};
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(read_row(disk), {.name = "another"});
            for (int i = 0; i < 100; ++i) {
                group.spawn(session(db), {.name = "session " + std::to_string(i)});
                co_await simulation::advance(1ms);
            }
            seen = dump({.by_site = true});
            parsed = json::parse(dump({.format = co::dump_format::json, .by_site = true}));
            group.request_stop();
        };
        co_await co::with_group(body);
    };
    simulation().run(look());

    INFO(seen);
    CHECK(seen.starts_with("100 tasks  alive 1 to 100 ms  spawned at task_dump.test.cpp:"));
    CHECK(count(seen, "in read_row   semaphore db\n") == 1);
    CHECK(count(seen, "\n1 task  alive 100 ms  spawned at ") == 3);  // with the group's body and the simulation's root
    CHECK(seen.find("group") == std::string::npos);
    const json& most = parsed["sites"].list().at(0);
    CHECK(most["count"].number() == 100);
    CHECK(most["youngest_ms"].number() == 1);
    CHECK(most["oldest_ms"].number() == 100);
    CHECK(most["waits"].list().size() == 3);
    CHECK(most["waits_for"].text() == "semaphore db");
    CHECK(parsed["sites"].list().size() == 4);
}

TEST_CASE("the JSON dump holds all that is known of each task", "[observe][task_dump]") {
    co::async_semaphore db{0, {.name = "db"}};
    polled_group host("host");
    host.group.spawn(session(db), {.name = "ada"});
    host.run();
    host.group.spawn(session(db), {.name = "new"});

    const json all = json::parse(dump({.format = co::dump_format::json}));
    const json& group = named(all, "host");
    const json& ada = named(all, "ada");
    CHECK(group["group"].boolean());
    CHECK(group["parent"].null());
    CHECK(group["state"].text() == "starting");
    CHECK_FALSE(ada["group"].boolean());
    CHECK(ada["parent"].text() == group["id"].text());
    CHECK(dump().find('#' + ada["id"].text() + " \"ada\"") != std::string::npos);
    CHECK(ada["state"].text() == "suspended");
    CHECK(ada["waits_for"].text() == "semaphore db");
    CHECK_FALSE(ada["frames_elided"].boolean());
    CHECK(ada["age_ms"].number() >= 0);
    CHECK(ada["age_ms"].number() < 60'000);
    CHECK(ada["spawned_at"]["file"].text().ends_with("task_dump.test.cpp"));
    REQUIRE(ada["waits"].list().size() == 3);
    CHECK(ada["waits"].list()[0]["function"].text() == "session");
    CHECK(ada["waits"].list()[2]["function"].text() == "read_row");
    CHECK(ada["waits"].list()[2]["line"].number() == first_line + 1);
    CHECK(named(all, "new")["state"].text() == "starting");
    CHECK(named(all, "new")["waits"].list().empty());
}

TEST_CASE("the JSON dump of nobody is an object with an empty list", "[observe][task_dump]") {
    CHECK(json::parse(dump({.format = co::dump_format::json}))["tasks"].list().empty());
    CHECK(json::parse(dump({.format = co::dump_format::json, .by_site = true}))["sites"].list().empty());
    CHECK(dump().empty());
    CHECK(dump({.by_site = true}).empty());
}

TEST_CASE("no name can break the JSON, nor a line of the text", "[observe][task_dump]") {
    const auto kept = [](const std::string& name) {
        task_record* const r = task_record::open(false, name, {}, nullptr, 0);
        const std::string text = dump();
        CHECK(count(text, "\n") == 1);
        const json all = json::parse(dump({.format = co::dump_format::json}));
        r->close();
        return all["tasks"].list().at(0)["name"].text();
    };
    const std::string bad = "\xEF\xBF\xBD";
    std::string controls;
    for (char c = 1; c < 0x20; ++c) controls += c;
    for (const std::string& name : {std::string("plain"), std::string("\"quoted\" \\ /"), controls,
                                    std::string("\x7F"), std::string("\xC3\xA4 \xE2\x82\xAC \xF0\x9F\x98\x80")})
        CHECK(kept(name) == name);
    CHECK(kept("a\xFF" "b") == "a" + bad + "b");
    CHECK(kept("\xC0\xAF") == bad + bad);                     // overlong
    CHECK(kept("\xED\xA0\x80") == bad + bad + bad);           // half of a surrogate pair
    CHECK(kept("\xF4\x90\x80\x80") == bad + bad + bad + bad);  // beyond the last
    CHECK(kept("\xE2\x82") == bad + bad);                     // cut
    CHECK(kept("\xE2\x82" "a") == bad + bad + "a");
}

TEST_CASE("a name of a primitive cannot forge a line", "[observe][task_dump]") {
    co::async_semaphore db{0, {.name = "db\n#7 \"forged\""}};
    polled_group host("host");
    host.group.spawn(session(db));
    host.run();
    CHECK(dump().find("semaphore db?#7 \"forged\"\n") != std::string::npos);
}

TEST_CASE("an error of the stream goes to the caller", "[observe][task_dump]") {
    task_record* const r = task_record::open(false, "x", {}, nullptr, 0);
    struct full : std::streambuf {
        int_type overflow(int_type) override { throw std::length_error("full"); }
    };
    for (const co::dump_format format : {co::dump_format::text, co::dump_format::json}) {
        full nothing;
        std::ostream out(&nothing);
        out.exceptions(std::ios::badbit);
        CHECK_THROWS_AS(co::write_task_dump(out, {.format = format}), std::length_error);
    }
    r->close();
}

TEST_CASE("a branch of when_all is shown below the task that waits for it", "[observe][task_dump]") {
    std::string seen;
    const auto look = [&]() -> task<> {
        co::async_semaphore db{0, {.name = "db"}};
        const auto late = [&]() -> task<> {
            co_await simulation::settle();
            seen = dump();
            db.release(1);
        };
        co_await co::when_all(session(db), late());
    };
    simulation().run(look());
    INFO(seen);
    CHECK(count(seen, "\n  #") == 2);
    CHECK(count(seen, "semaphore db") == 1);
}

#else

TEST_CASE("without records a dump is empty, and JSON all the same", "[observe][task_dump]") {
    CHECK(dump().empty());
    CHECK(json::parse(dump({.format = co::dump_format::json}))["tasks"].list().empty());
}

#endif
