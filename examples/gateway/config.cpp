// SPDX-License-Identifier: MIT
#include "config.hpp"

#include "json_values.hpp"

#include <cordon/breaker/window.hpp>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace gateway {
namespace {

/// Hands the values to what they are for, and refuses what is out of range or left over.
class reader {
public:
    reader(json_values from, const std::string& file) : values_(std::move(from)), file_(file) {}

    template <class Number>
    Number number(const std::string& path, Number low, Number high, Number otherwise) {
        const json_value* const v = find(path);
        if (v == nullptr) return otherwise;
        Number parsed{};
        const char* const end = v->said.data() + v->said.size();
        const auto [stop, error] = std::from_chars(v->said.data(), end, parsed);
        const bool whole = v->is == json_value::kind::number && error == std::errc() && stop == end;
        if (whole && parsed >= low && parsed <= high) return parsed;
        std::ostringstream allowed;
        allowed << path << " is " << shown(*v) << ", allowed is a number from " << low << " to " << high;
        fail_in(file_, v->line, allowed.str());
    }
    std::chrono::milliseconds ms(const std::string& path, std::int64_t high, std::chrono::milliseconds otherwise) {
        return std::chrono::milliseconds(number<std::int64_t>(path, 1, high, otherwise.count()));
    }
    /// The time, or none if the file says `false`.
    std::optional<std::chrono::milliseconds> ms_or_none(const std::string& path, std::int64_t high,
                                                        std::optional<std::chrono::milliseconds> otherwise) {
        if (is_off(path)) return std::nullopt;
        return has(path) ? ms(path, high, {}) : otherwise;
    }
    /// Whether there is such a section, whose fields change `numbers`. If the file says `false` there are no numbers.
    template <class Numbers>
    bool section(const std::string& path, std::optional<Numbers>& numbers) {
        if (is_off(path)) numbers.reset();
        if (is_off(path) || !is_object(path, "an object, or false")) return false;
        if (!numbers) numbers.emplace();
        return true;
    }
    /// Whether there is such an object. Errors: if it is something else
    bool is_object(const std::string& path, const std::string& allowed) {
        const json_value* const v = find(path);
        if (v != nullptr && v->is != json_value::kind::object) refuse_value(path, allowed);
        return v != nullptr;
    }
    /// Returns:       the keys of an object `path["key"]`, in no particular order
    [[nodiscard]] std::vector<std::string> keys_of(const std::string& path) const {
        const std::string before = path + "[\"", behind = "\"]";
        std::vector<std::string> keys;
        for (auto v = values_.lower_bound(before); v != values_.end() && v->first.starts_with(before); ++v)
            if (v->first.ends_with(behind))
                keys.push_back(v->first.substr(before.size(), v->first.size() - before.size() - behind.size()));
        return keys;
    }
    tcp::endpoint address(const std::string& path, std::size_t low_port, const tcp::endpoint& otherwise) {
        const json_value* const v = find(path);
        if (v == nullptr) return otherwise;
        try {
            return endpoint(path, v->said, low_port);
        } catch (const std::invalid_argument& e) {
            fail_in(file_, v->line, e.what());
        }
    }
    /// One address, or a list of some that differ.
    std::vector<tcp::endpoint> addresses(const std::string& path, const std::vector<tcp::endpoint>& otherwise) {
        const json_value* const v = find(path);
        if (v == nullptr) return otherwise;
        if (v->is != json_value::kind::list) return {address(path, 1, {})};
        const auto nth = [&](std::size_t n) { return path + '[' + std::to_string(n) + ']'; };
        std::vector<tcp::endpoint> all;
        for (; has(nth(all.size())) && all.size() < most_upstreams; all.push_back(address(nth(all.size()), 1, {}))) {}
        if (all.empty() || has(nth(all.size())))
            refuse_value(path, "an address, or a list of 1 to " + std::to_string(most_upstreams));
        for (std::size_t i = 0; i < all.size(); ++i)
            if (std::count(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(i), all[i]) != 0)
                refuse_value(nth(i), "one that is not in the list before it");
        return all;
    }
    std::string header(const std::string& path, const std::string& otherwise) {
        const json_value* const v = find(path);
        if (v == nullptr) return otherwise;
        constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
        if (v->is != json_value::kind::text || v->said.empty() || v->said.find_first_not_of(letters) != v->said.npos)
            refuse_value(path, "the name of a header: letters, digits, - and _");
        return v->said;
    }
    [[nodiscard]] bool has(const std::string& path) const { return values_.count(path) != 0; }
    [[noreturn]] void refuse_value(const std::string& path, const std::string& allowed) const {
        const auto v = values_.find(path);
        fail_in(file_, v->second.line, path + " is " + shown(v->second) + ", allowed is " + allowed);
    }

    /// Errors:        if there is a value that nobody asked for
    void finish() const {
        for (const auto& [path, v] : values_)
            if (known_.count(path) == 0) refuse_value(path, "what config.hpp lists: there is no such field");
    }

private:
    [[nodiscard]] bool is_off(const std::string& path) {
        const json_value* const v = find(path);
        return v != nullptr && v->is == json_value::kind::no;
    }
    static std::string shown(const json_value& v) {
        return v.is == json_value::kind::text ? '"' + v.said + '"' : v.said;
    }
    const json_value* find(const std::string& path) {
        const auto v = values_.find(path);
        if (v == values_.end()) return nullptr;
        known_.insert(path);
        return &v->second;
    }

    const json_values values_;
    std::set<std::string> known_;
    const std::string& file_;
};

void read_bulkhead(reader& from, const std::string& path, std::optional<bulkhead_numbers>& numbers) {
    if (!from.section(path, numbers)) return;
    numbers->concurrent = from.number<std::size_t>(path + ".concurrent", 1, 1'000'000, numbers->concurrent);
    numbers->waiting = from.number<std::size_t>(path + ".waiting", 0, 1'000'000, numbers->waiting);
}

void read_hedge(reader& from, const std::string& path, std::optional<hedge_numbers>& numbers) {
    if (!from.section(path, numbers)) return;
    const std::string share = path + ".percentile", delay = path + ".delay_ms";
    numbers->percentile = from.number(share, 0.5, 0.999, numbers->percentile);
    if (from.has(share)) numbers->delay.reset();
    if (from.has(delay)) numbers->delay = from.ms(delay, 600'000, {});
    if (from.has(delay) && from.has(share)) from.refuse_value(delay, "one of the two, this or percentile");
}

/// Errors:        if there is no bound on the requests: nobody waits then
void read_shedder(reader& from, guard_options& g) {
    constexpr std::int64_t most = 60'000;
    if (!from.section("shedder", g.shedder)) return;
    shedder_numbers& s = *g.shedder;
    s.target = from.ms("shedder.target_ms", most, s.target);
    s.interval = from.ms("shedder.interval_ms", most, s.interval);
    if (!g.requests) from.refuse_value("shedder", "one beside \"requests\", whose queue it looks at");
    const std::string above = "a number above shedder.target_ms, which is " + std::to_string(s.target.count());
    const std::string below = "a number below shedder.interval_ms, which is " + std::to_string(s.interval.count());
    if (s.interval > s.target) return;
    if (from.has("shedder.interval_ms")) from.refuse_value("shedder.interval_ms", above);
    from.refuse_value("shedder.target_ms", below);
}

/// Whether a text is the beginning of a path (RFC 3986, 3.3).
bool is_prefix(std::string_view text) {
    constexpr std::string_view letters =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/%:@!$&'()*+,;=";
    return text.starts_with('/') && text.find_first_not_of(letters) == text.npos;
}

/// Reads what the file says of one route: of the rest if `at` is empty, else of the one whose path that is, with a dot.
void read_route(reader& from, const std::string& at, route_options& r) {
    r.upstreams = from.addresses(at + "upstream", r.upstreams);
    r.attempt = from.ms_or_none(at + "attempt_ms", 600'000, r.attempt);
    if (from.section(at + "retry", r.retry)) {
        r.retry->attempts = from.number(at + "retry.attempts", 1, 10, r.retry->attempts);
        r.retry->backoff = from.ms(at + "retry.backoff_ms", 60'000, r.retry->backoff);
        r.retry->budget_ratio = from.number(at + "retry.budget_ratio", 0.0, 1.0, r.retry->budget_ratio);
    }
    if (from.section(at + "breaker", r.breaker)) {
        breaker_numbers& b = *r.breaker;
        const std::string window = at + "breaker.window", min_calls = at + "breaker.min_calls";
        constexpr std::uint32_t most = cordon::call_window::max_calls;
        b.window = from.number<std::uint32_t>(window, 1, most, b.window);
        b.min_calls = from.number<std::uint32_t>(min_calls, 1, most, b.min_calls);
        b.failure_rate = from.number(at + "breaker.failure_rate", 0.001, 1.0, b.failure_rate);
        b.open_for = from.ms(at + "breaker.open_for_ms", 3'600'000, b.open_for);
        if (b.min_calls > b.window && from.has(min_calls))
            from.refuse_value(min_calls, "a number up to breaker.window, which is " + std::to_string(b.window));
        if (b.min_calls > b.window)
            from.refuse_value(window, "a number from breaker.min_calls on, which is " + std::to_string(b.min_calls));
    }
    read_bulkhead(from, at + "bulkhead", r.bulkhead);
    read_hedge(from, at + "hedge", r.hedge);
}

void read_redis(reader& from, const std::string& path, std::optional<redis_numbers>& numbers) {
    if (!from.section(path, numbers)) return;
    numbers->connections = from.number<std::size_t>(path + ".connections", 1, 10'000, numbers->connections);
    numbers->keep = from.ms(path + ".keep_ms", 3'600'000, numbers->keep);
    numbers->stale = std::chrono::milliseconds(
        from.number<std::int64_t>(path + ".stale_ms", 0, 3'600'000, numbers->stale.count()));
}

/// Returns:       the routes of the file, the longest prefixes first; what they do not say is as in `rest`
std::vector<route_options> read_routes(reader& from, const route_options& rest) {
    std::vector<route_options> routes;
    for (const std::string& prefix : from.keys_of("routes")) {
        const std::string path = "routes[\"" + prefix + "\"]";
        if (!is_prefix(prefix))
            from.refuse_value(path, "what begins with / and has letters, digits and -._~/%:@!$&'()*+,;=");
        from.is_object(path, "an object");
        if (!from.has(path + ".upstream")) from.refuse_value(path, "one that names its upstream");
        route_options& r = routes.emplace_back(rest);
        r.prefix = prefix;
        read_route(from, path + '.', r);
        read_redis(from, path + ".redis", r.redis);
        if (r.redis && r.upstreams.size() > 1) from.refuse_value(path + ".upstream", "one address beside redis");
        if (r.redis && r.hedge && from.has(path + ".hedge")) from.refuse_value(path + ".hedge", "false beside redis");
        if (r.redis) r.hedge.reset();
        if (from.has(path + ".deadline_ms")) r.deadline = from.ms(path + ".deadline_ms", 600'000, {});
    }
    std::sort(routes.begin(), routes.end(),
              [](const route_options& a, const route_options& b) { return a.prefix.size() > b.prefix.size(); });
    return routes;
}

}  // namespace

void read_config(std::istream& in, const std::string& file, options& into) {
    reader from(read_json(in, file), file);
    guard_options g = into.guards;
    const tcp::endpoint listen = from.address("listen", 0, into.listen);
    g.deadline = from.ms("deadline_ms", 600'000, g.deadline);
    read_route(from, "", g.rest);
    if (from.is_object("routes", "an object")) g.routes = read_routes(from, g.rest);
    read_bulkhead(from, "requests", g.requests);
    read_shedder(from, g);
    if (from.is_object("client", "an object")) {
        g.client_burst = from.number<std::uint64_t>("client.burst", 1, 1'000'000, g.client_burst);
        g.client_header = from.header("client.header", g.client_header);
        if (from.has("client.per_second"))
            g.client_rate = cordon::per_second(from.number<std::uint64_t>("client.per_second", 1, 1'000'000, 1));
    }
    from.finish();
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
