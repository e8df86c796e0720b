// SPDX-License-Identifier: MIT
#include "config.hpp"

#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/src.hpp>  // all of Boost.JSON, in this file alone

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace gateway {
namespace {

namespace json = boost::json;
using boost::system::error_code;

struct value {
    enum class kind { number, text, other };

    std::size_t line = 0;
    kind is = kind::other;
    std::string said;  // of a text without its quotes
    bool known = false;
};
using values = std::map<std::string, value>;  // by path: "breaker.window"

[[noreturn]] void fail(const std::string& file, std::size_t line, const std::string& what) {
    throw std::invalid_argument(file + ':' + std::to_string(std::max<std::size_t>(line, 1)) + ": " + what);
}

/// Notes every value with its path and the line where it ends. Its parser is fed line by line.
class collector {
public:
    static constexpr std::size_t max_object_size = 1000, max_array_size = 1000, max_key_size = 100,
                                 max_string_size = 1000;

    values found;
    std::size_t line = 0;
    std::string problem;  // that is not one of syntax

    bool on_document_begin(error_code&) { return true; }
    bool on_document_end(error_code&) { return true; }
    bool on_object_begin(error_code& ec) {
        if (std::exchange(is_root_, false)) return true;
        if (in_.size() == 1) return note(value::kind::other, "an object", ec);
        in_.push_back(key_);
        return true;
    }
    bool on_object_end(std::size_t, error_code&) {
        if (!in_.empty()) in_.pop_back();
        return true;
    }
    bool on_array_begin(error_code& ec) { return note(value::kind::other, "a list", ec); }
    bool on_array_end(std::size_t, error_code&) { return true; }
    bool on_key_part(json::string_view s, std::size_t, error_code&) { return more(s); }
    bool on_key(json::string_view s, std::size_t, error_code&) {
        key_ = take(s);
        return true;
    }
    bool on_string_part(json::string_view s, std::size_t, error_code&) { return more(s); }
    bool on_string(json::string_view s, std::size_t, error_code& ec) { return note(value::kind::text, take(s), ec); }
    bool on_number_part(json::string_view s, error_code&) { return more(s); }
    bool on_int64(std::int64_t, json::string_view s, error_code& ec) { return number(s, ec); }
    bool on_uint64(std::uint64_t, json::string_view s, error_code& ec) { return number(s, ec); }
    bool on_double(double, json::string_view s, error_code& ec) { return number(s, ec); }
    bool on_bool(bool b, error_code& ec) { return note(value::kind::other, b ? "true" : "false", ec); }
    bool on_null(error_code& ec) { return note(value::kind::other, "null", ec); }
    bool on_comment_part(json::string_view, error_code&) { return true; }
    bool on_comment(json::string_view, error_code&) { return true; }

private:
    bool more(json::string_view part) {
        text_.append(part.data(), part.size());
        return true;
    }
    std::string take(json::string_view rest) {
        std::string all = std::exchange(text_, {});
        return all.append(rest.data(), rest.size());
    }
    bool number(json::string_view s, error_code& ec) { return note(value::kind::number, take(s), ec); }
    bool note(value::kind is, std::string said, error_code& ec) {
        const std::string path = in_.empty() ? key_ : in_.back() + '.' + key_;
        if (is_root_) problem = "the file holds " + said + ", allowed is an object";
        else if (is == value::kind::other) problem = path + " is " + said + ", allowed is a number or a text";
        else if (!found.emplace(path, value{line, is, std::move(said)}).second) problem = path + " is there twice";
        if (!problem.empty()) ec = json::error::syntax;
        return problem.empty();
    }

    std::string key_, text_;
    std::vector<std::string> in_;
    bool is_root_ = true;
};

values parse_json(std::istream& in, const std::string& file) {
    json::parse_options relaxed;
    relaxed.allow_comments = true;
    json::basic_parser<collector> parser(relaxed);
    collector& seen = parser.handler();
    std::string text;
    error_code error;
    while (!error && std::getline(in, text)) {
        ++seen.line;
        text += '\n';
        const std::size_t used = parser.write_some(true, text.data(), text.size(), error);
        if (!error && used < text.size() && text.find_first_not_of(" \t\r\n", used) != text.npos)
            error = json::error::extra_data;
    }
    if (!error && !parser.done()) parser.write_some(false, "", 0, error);
    if (error) fail(file, seen.line, seen.problem.empty() ? "no JSON: " + error.message() : seen.problem);
    return std::move(seen.found);
}

/// Hands the values to what they are for, and refuses what is out of range or left over.
class reader {
public:
    reader(values from, const std::string& file) : values_(std::move(from)), file_(file) {}

    template <class Number>
    Number number(const std::string& path, Number low, Number high, Number otherwise) {
        const value* const v = find(path);
        if (v == nullptr) return otherwise;
        Number parsed{};
        const char* const end = v->said.data() + v->said.size();
        const auto [stop, error] = std::from_chars(v->said.data(), end, parsed);
        const bool whole = v->is == value::kind::number && error == std::errc() && stop == end;
        if (whole && parsed >= low && parsed <= high) return parsed;
        std::ostringstream allowed;
        allowed << path << " is " << shown(*v) << ", allowed is a number from " << low << " to " << high;
        fail(file_, v->line, allowed.str());
    }
    std::chrono::milliseconds ms(const std::string& path, std::int64_t high, std::chrono::milliseconds otherwise) {
        return std::chrono::milliseconds(number<std::int64_t>(path, 1, high, otherwise.count()));
    }
    tcp::endpoint address(const std::string& path, std::size_t low_port, const tcp::endpoint& otherwise) {
        const value* const v = find(path);
        if (v == nullptr) return otherwise;
        try {
            return endpoint(path, v->said, low_port);
        } catch (const std::invalid_argument& e) {
            fail(file_, v->line, e.what());
        }
    }
    std::string header(const std::string& path, const std::string& otherwise) {
        const value* const v = find(path);
        if (v == nullptr) return otherwise;
        constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
        if (v->is != value::kind::text || v->said.empty() || v->said.find_first_not_of(letters) != v->said.npos)
            refuse_value(path, "the name of a header: letters, digits, - and _");
        return v->said;
    }
    [[nodiscard]] bool has(const std::string& path) const { return values_.count(path) != 0; }
    [[noreturn]] void refuse_value(const std::string& path, const std::string& allowed) const {
        const auto v = values_.find(path);
        fail(file_, v->second.line, path + " is " + shown(v->second) + ", allowed is " + allowed);
    }

    /// Errors:        if there is a value that nobody asked for
    void finish() const {
        for (const auto& [path, v] : values_)
            if (!v.known) refuse_value(path, "what config.hpp lists: there is no such field");
    }

private:
    static std::string shown(const value& v) { return v.is == value::kind::text ? '"' + v.said + '"' : v.said; }
    const value* find(const std::string& path) {
        const auto v = values_.find(path);
        if (v == values_.end()) return nullptr;
        v->second.known = true;
        return &v->second;
    }

    values values_;
    const std::string& file_;
};

}  // namespace

void read_config(std::istream& in, const std::string& file, options& into) {
    reader from(parse_json(in, file), file);
    guard_options g = into.guards;
    const tcp::endpoint listen = from.address("listen", 0, into.listen);
    g.upstream = from.address("upstream", 1, g.upstream);
    g.deadline = from.ms("deadline_ms", 600'000, g.deadline);
    g.attempt = from.ms("attempt_ms", 600'000, g.attempt);
    g.attempts = from.number("retry.attempts", 1, 10, g.attempts);
    g.backoff = from.ms("retry.backoff_ms", 60'000, g.backoff);
    g.budget_ratio = from.number("retry.budget_ratio", 0.0, 1.0, g.budget_ratio);
    g.breaker_window = from.number<std::uint32_t>("breaker.window", 1, 100'000, g.breaker_window);
    g.breaker_min_calls = from.number<std::uint32_t>("breaker.min_calls", 1, 100'000, g.breaker_min_calls);
    g.failure_rate = from.number("breaker.failure_rate", 0.001, 1.0, g.failure_rate);
    g.open_for = from.ms("breaker.open_for_ms", 3'600'000, g.open_for);
    g.concurrent = from.number<std::size_t>("bulkhead.concurrent", 1, 1'000'000, g.concurrent);
    g.waiting = from.number<std::size_t>("bulkhead.waiting", 0, 1'000'000, g.waiting);
    g.client_burst = from.number<std::uint64_t>("client.burst", 1, 1'000'000, g.client_burst);
    g.client_header = from.header("client.header", g.client_header);
    if (from.has("client.per_second"))
        g.client_rate = cordon::per_second(from.number<std::uint64_t>("client.per_second", 1, 1'000'000, 1));
    from.finish();
    if (g.breaker_min_calls > g.breaker_window) {
        const std::string most = std::to_string(g.breaker_window), least = std::to_string(g.breaker_min_calls);
        if (!from.has("breaker.min_calls"))
            from.refuse_value("breaker.window", "a number from breaker.min_calls on, which is " + least);
        from.refuse_value("breaker.min_calls", "a number up to breaker.window, which is " + most);
    }
    into.listen = listen;
    into.guards = g;
}

options configured(int argc, char** argv) {
    options from_file;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (argv[i] != std::string_view("--config")) continue;
        std::ifstream in(argv[i + 1]);
        if (!in) refuse("--config", argv[i + 1], "a file that can be read");
        read_config(in, argv[i + 1], from_file);
    }
    return parse(argc, argv, std::move(from_file));
}

}  // namespace gateway
