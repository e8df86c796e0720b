// SPDX-License-Identifier: MIT
#include <cordon/observe/prometheus.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/core/task.hpp>
#include <cordon/observe/registry.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/run/thread_pool.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/sync/async_mutex.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/sync/channel.hpp>

#include "catch.hpp"

#include <cctype>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <ostream>
#include <set>
#include <span>
#include <sstream>
#include <stdexcept>
#include <streambuf>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

namespace {

namespace co = cordon;
using co::prometheus_format;
using co::registry;

std::string write(const registry& metrics, co::prometheus_options options = {}) {
    std::ostringstream out;
    co::write_prometheus(out, metrics, options);
    return out.str();
}

/// The text format, read as strictly as its description allows. What is wrong throws, with the line.
class exposition {
public:
    struct family {
        std::string type, help;
        std::vector<std::string> samples;  ///< "name{labels}", in order, with the labels' values unescaped
    };
    std::map<std::string, double> values;  ///< by the same
    std::map<std::string, family> families;
    std::vector<std::string> order;

    exposition(const std::string& text, prometheus_format format)
        : openmetrics_(format == prometheus_format::openmetrics) {
        std::string_view rest = text;
        while (!rest.empty()) {
            const std::size_t end = rest.find('\n');
            check(end != std::string_view::npos, "no newline at the end");
            line_ = rest.substr(0, end);
            rest.remove_prefix(end + 1);
            if (line_ == "# EOF") {
                check(openmetrics_ && rest.empty(), "an end that is none");
                ended_ = true;
            } else if (line_.starts_with("# HELP ") || line_.starts_with("# TYPE ")) {
                head();
            } else {
                sample();
            }
        }
        check(ended_ == openmetrics_, "no # EOF");
    }

private:
    void check(bool right, const char* why) const {
        if (!right) throw std::runtime_error(why + (": " + std::string(line_)));
    }
    static bool is_name(std::string_view s) {
        if (s.empty() || std::isdigit(static_cast<unsigned char>(s[0]))) return false;
        for (const char c : s)
            if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_') return false;
        return true;
    }
    void head() {
        const bool is_help = line_.starts_with("# HELP ");
        const std::string_view rest = line_.substr(7);
        const std::size_t space = rest.find(' ');
        check(space != std::string_view::npos, "half a line");
        const std::string name(rest.substr(0, space)), said(rest.substr(space + 1));
        check(is_name(name), "not a name");
        if (order.empty() || order.back() != name) {
            check(families.count(name) == 0, "a family in two parts");
            order.push_back(name);
        }
        family& f = families[name];
        check(f.samples.empty(), "a head after its samples");
        std::string& field = is_help ? f.help : f.type;
        check(field.empty(), "said twice");
        check(is_help || said == "counter" || said == "gauge", "not a type");
        field = is_help ? unescape(said, openmetrics_) : said;
    }
    void sample() {
        check(!order.empty(), "a sample without a head");
        const std::size_t name_end = line_.find_first_of("{ ");
        check(name_end != std::string_view::npos, "half a line");
        const std::string name(line_.substr(0, name_end));
        family& f = families[order.back()];
        check(!f.type.empty(), "no type");
        check(name == (openmetrics_ && f.type == "counter" ? order.back() + "_total" : order.back()),
              "a sample of another family");
        check(f.type != "counter" || name.ends_with("_total"), "a counter that is no total");
        std::set<std::string> labels;
        std::string series = name;
        std::size_t at = name_end;
        if (line_[at] == '{') {
            series += '{';
            do {
                const std::size_t equal = line_.find("=\"", ++at);
                check(equal != std::string_view::npos, "a label without a value");
                const std::string label(line_.substr(at, equal - at));
                check(is_name(label) && labels.insert(label).second, "a bad label");
                std::size_t end = equal + 2;
                while (end < line_.size() && line_[end] != '"') end += line_[end] == '\\' ? 2 : 1;
                check(end < line_.size(), "a value without an end");
                if (labels.size() > 1) series += ',';
                series += label + '=' + unescape(std::string(line_.substr(equal + 2, end - equal - 2)), true);
                at = end + 1;
            } while (at < line_.size() && line_[at] == ',');
            check(at + 1 < line_.size() && line_[at] == '}', "labels without an end");
            series += '}';
            ++at;
        }
        check(at + 1 < line_.size() && line_[at] == ' ', "no value");
        check(values.emplace(series, number(std::string(line_.substr(at + 1)))).second, "a series twice");
        f.samples.push_back(series);
    }
    double number(const std::string& text) const {
        if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
        if (text == "+Inf") return std::numeric_limits<double>::infinity();
        if (text == "-Inf") return -std::numeric_limits<double>::infinity();
        check(text.find_first_not_of("0123456789+-.e") == std::string::npos, "not a number");
        std::size_t used = 0;
        const double value = std::stod(text, &used);
        check(used == text.size(), "more than a number");
        return value;
    }
    std::string unescape(const std::string& text, bool quotes) const {
        std::string plain;
        for (std::size_t i = 0; i < text.size(); ++i) {
            if (text[i] == '\\') {
                check(++i < text.size(), "half an escape");
                check(text[i] == 'n' || text[i] == '\\' || (quotes && text[i] == '"'), "not an escape");
                plain += text[i] == 'n' ? '\n' : text[i];
            } else {
                plain += text[i];
            }
        }
        return plain;
    }

    bool openmetrics_, ended_ = false;
    std::string_view line_;
};

exposition read(const registry& metrics, co::prometheus_options options = {}) {
    const std::string text = write(metrics, options);
    INFO(text);
    return exposition(text, options.format);
}

/// What a limiter and a breaker will report.
class fake_limiter {
public:
    static constexpr std::string_view kind = "rate_limiter";
    struct snapshot {
        std::uint64_t accepted = 0, rejected = 0;
        double available = 0;
    };
    fake_limiter(int tokens, std::string name) : tokens_(tokens), name_(std::move(name)) {}
    bool try_acquire() { return ++(tokens_ > 0 ? accepted_ : rejected_), tokens_-- > 0; }
    std::string_view name() const noexcept { return name_; }
    snapshot stats() const noexcept { return {accepted_, rejected_, tokens_ > 0 ? tokens_ + 0.5 : 0.0}; }
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.counter("accepted", now.accepted, "Calls that were let through.");
        sink.counter("rejected", now.rejected, "Calls that were refused.");
        sink.gauge("available", now.available, "Tokens that are there.");
    }

private:
    int tokens_;
    std::uint64_t accepted_ = 0, rejected_ = 0;
    std::string name_;
};

class fake_breaker {
public:
    static constexpr std::string_view kind = "circuit_breaker";
    struct snapshot {
        std::size_t state = 0;
    };
    std::string_view name() const noexcept { return "stock"; }
    snapshot stats() const noexcept { return {state}; }
    template <class Sink>
    void report(Sink& sink) const {
        const std::string_view names[] = {"closed", "open", "half_open"};  // lives as long as this call
        sink.state("state", stats().state, names, "What the breaker does.");
    }
    std::size_t state = 1;
};

struct nothing {};

/// Reports whatever a test says.
template <class Report>
struct odd {
    static constexpr std::string_view kind = "odd";
    std::string_view name() const noexcept { return "o"; }
    nothing stats() const noexcept { return {}; }
    void report(co::metric_sink& sink) const { said(sink); }
    Report said;
};
template <class Report>
odd(Report) -> odd<Report>;

struct later_limiter {
    static constexpr std::string_view kind = "rate_limiter";
    std::string_view name() const noexcept { return "later"; }
    nothing stats() const noexcept { return {}; }
    void report(co::metric_sink& sink) const {
        sink.gauge("rejected", 9, "");
        sink.gauge("extra", 9, "");
    }
};

struct odd_long {
    static constexpr std::string_view kind = "odd_long";
    std::string_view name() const noexcept { return "o"; }
    nothing stats() const noexcept { return {}; }
    void report(co::metric_sink& sink) const { sink.gauge("x", 1, ""); }
};

struct named_like_tasks {
    static constexpr std::string_view kind = "cordon";
    std::string_view name() const noexcept { return "rival"; }
    nothing stats() const noexcept { return {}; }
    void report(co::metric_sink& sink) const { sink.gauge("tasks", 7, ""); }
};

template <class Report>
std::string text_of(Report report, co::prometheus_options options = {}) {
    registry metrics;
    odd source{report};
    const auto here = metrics.add(source);
    return write(metrics, options);
}

/// One of everything, its texts as bad as can be.
template <class F>
void with_many(F f) {
    registry metrics;
    co::run_loop loop;
    co::async_semaphore semaphore{3, {.name = "quote \" backslash \\ newline \n tab \t zero \x01 latin \xE9 \xC3\xA9"}};
    co::async_mutex mutex{{.name = "m"}};
    co::channel<int> one{4, {.name = "a"}};
    co::channel<std::string> two{4, {.name = "b"}};
    co::thread_pool pool{2, {.name = "p"}};
    co::task_group group{loop, {.name = "g"}};
    fake_limiter limiter{7, "api"}, far{2, "far"};
    fake_breaker breaker;
    const auto report = [](co::metric_sink& sink) {
        sink.gauge("not a number", std::numeric_limits<double>::quiet_NaN(), "Of \\ and \" and \n.");
        sink.gauge("most", std::numeric_limits<double>::infinity(), "Above all.");
        sink.gauge("least", -std::numeric_limits<double>::infinity(), "Below all.");
        sink.gauge("third", 1.0 / 3, "A third.");
        sink.gauge("tiny", 1e-300, "Little.");
        sink.gauge("large", 1e300, "Much.");
        sink.counter("everything", std::numeric_limits<std::uint64_t>::max(), "All.");
    };
    odd odd_source{report};
    const registry::registration all[] = {
        metrics.add(semaphore), metrics.add(mutex),   metrics.add(one),
        metrics.add(two),       metrics.add(pool),    metrics.add(group),
        metrics.add(limiter),   metrics.add(far, {.labels = {{"zone", "a \"quoted\" one"}}}),
        metrics.add(breaker),   metrics.add(odd_source), metrics.add(loop, {.name = "main", .prefix = "shop"})};
    f(metrics);
}

/// Gives `text` to a program's standard input. Returns its exit code and what it said, or -1 if it is not there.
std::pair<int, std::string> judge(const std::string& program, const std::string& probe, const std::string& text) {
    if (std::system((probe + " >/dev/null 2>&1").c_str()) != 0) return {-1, {}};
    char path[] = "/tmp/cordon-metrics-XXXXXX";
    const int file = mkstemp(path);
    REQUIRE(file >= 0);
    REQUIRE(::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    close(file);
    std::FILE* const pipe = popen((program + " <" + path + " 2>&1").c_str(), "r");
    REQUIRE(pipe != nullptr);
    std::string said;
    char buffer[256];
    for (std::size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) said.append(buffer, n);
    const int status = pclose(pipe);
    unlink(path);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 255, said};
}

}  // namespace

TEST_CASE("counters, gauges and states are families of their own, with the name as a label",
          "[observe][prometheus]") {
    registry metrics;
    fake_limiter limiter{10, "api"};
    fake_breaker breaker;
    const auto seen = metrics.add(breaker);
    const auto seen_too = metrics.add(limiter);
    for (int i = 0; i < 12; ++i) (void)limiter.try_acquire();
    CHECK(write(metrics) ==
          "# HELP cordon_circuit_breaker_state What the breaker does.\n"
          "# TYPE cordon_circuit_breaker_state gauge\n"
          "cordon_circuit_breaker_state{name=\"stock\",state=\"closed\"} 0\n"
          "cordon_circuit_breaker_state{name=\"stock\",state=\"open\"} 1\n"
          "cordon_circuit_breaker_state{name=\"stock\",state=\"half_open\"} 0\n"
          "# HELP cordon_rate_limiter_accepted_total Calls that were let through.\n"
          "# TYPE cordon_rate_limiter_accepted_total counter\n"
          "cordon_rate_limiter_accepted_total{name=\"api\"} 10\n"
          "# HELP cordon_rate_limiter_rejected_total Calls that were refused.\n"
          "# TYPE cordon_rate_limiter_rejected_total counter\n"
          "cordon_rate_limiter_rejected_total{name=\"api\"} 2\n"
          "# HELP cordon_rate_limiter_available Tokens that are there.\n"
          "# TYPE cordon_rate_limiter_available gauge\n"
          "cordon_rate_limiter_available{name=\"api\"} 0\n");
    breaker.state = 7;  // none of them
    CHECK(read(metrics).values.at("cordon_circuit_breaker_state{name=stock,state=open}") == 0);
}

TEST_CASE("all series of a family stand together, by name and labels", "[observe][prometheus]") {
    registry metrics;
    fake_limiter b{1, "b"}, a{2, "a"};
    const auto first = metrics.add(b);
    const auto second = metrics.add(a, {.labels = {{"zone", "x"}, {"rack", "7"}}});
    const auto third = metrics.add(a);
    const exposition found = read(metrics);
    CHECK(found.order == std::vector<std::string>{"cordon_rate_limiter_accepted_total",
                                                  "cordon_rate_limiter_rejected_total",
                                                  "cordon_rate_limiter_available"});
    CHECK(found.families.at("cordon_rate_limiter_available").samples ==
          std::vector<std::string>{"cordon_rate_limiter_available{name=a}",
                                   "cordon_rate_limiter_available{name=a,rack=7,zone=x}",
                                   "cordon_rate_limiter_available{name=b}"});
    CHECK(found.values.at("cordon_rate_limiter_available{name=b}") == 1.5);
}

TEST_CASE("OpenMetrics names the families of counters without their suffix, and says where it ends",
          "[observe][prometheus]") {
    registry metrics;
    fake_limiter limiter{0, "api"};
    const auto seen = metrics.add(limiter);
    (void)limiter.try_acquire();
    const std::string text = write(metrics, {.format = prometheus_format::openmetrics});
    INFO(text);
    CHECK(text.find("# TYPE cordon_rate_limiter_rejected counter\n"
                    "cordon_rate_limiter_rejected_total{name=\"api\"} 1\n") != std::string::npos);
    CHECK(text.find("# HELP cordon_rate_limiter_rejected Calls") != std::string::npos);
    CHECK(text.ends_with("\n# EOF\n"));
    CHECK(exposition(text, prometheus_format::openmetrics).values.size() == 3);
}

TEST_CASE("both formats give the same series, whatever the texts are", "[observe][prometheus]") {
    with_many([](const registry& metrics) {
        const exposition text = read(metrics), open = read(metrics, {.format = prometheus_format::openmetrics});
        REQUIRE(text.values.size() == open.values.size());
        for (const auto& [series, value] : text.values) {
            INFO(series);
            REQUIRE(open.values.count(series) == 1);
            if (series.find("thread_pool") != std::string::npos) continue;  // which does something meanwhile
            CHECK((value == open.values.at(series) || (std::isnan(value) && std::isnan(open.values.at(series)))));
        }
        const std::string bad = "\xEF\xBF\xBD";
        CHECK(text.values.at("cordon_semaphore_available{name=quote \" backslash \\ newline \n tab " + bad + " zero " +
                             bad + " latin " + bad + " \xC3\xA9}") == 3);
        CHECK(text.values.at("cordon_rate_limiter_available{name=far,zone=a \"quoted\" one}") == 2.5);
        CHECK(text.values.at("shop_run_loop_timers{name=main}") == 0);
        CHECK(std::isnan(text.values.at("cordon_odd_not_a_number{name=o}")));
        CHECK(text.values.at("cordon_odd_most{name=o}") == std::numeric_limits<double>::infinity());
        CHECK(text.values.at("cordon_odd_least{name=o}") == -std::numeric_limits<double>::infinity());
        CHECK(text.values.at("cordon_odd_third{name=o}") == 1.0 / 3);
        CHECK(text.values.at("cordon_odd_tiny{name=o}") == 1e-300);
        CHECK(text.values.at("cordon_odd_large{name=o}") == 1e300);
        for (const exposition* e : {&text, &open})
            CHECK(e->families.at("cordon_odd_not_a_number").help == "Of \\ and \" and \n.");
        CHECK(text.order.front() == "cordon_channel_size");
        CHECK(text.order.back() == "shop_run_loop_timers");
    });
}

TEST_CASE("whole numbers are written whole", "[observe][prometheus]") {
    const std::string text = text_of([](co::metric_sink& sink) {
        sink.gauge("million", 1e6, "");
        sink.gauge("minus", -5, "");
        sink.gauge("zero", -0.0, "");
        sink.gauge("half", 0.5, "");
        sink.gauge("yes", true, "");
        sink.counter("all", std::numeric_limits<std::uint64_t>::max(), "");
    });
    CHECK(text ==
          "# TYPE cordon_odd_million gauge\ncordon_odd_million{name=\"o\"} 1000000\n"
          "# TYPE cordon_odd_minus gauge\ncordon_odd_minus{name=\"o\"} -5\n"
          "# TYPE cordon_odd_zero gauge\ncordon_odd_zero{name=\"o\"} 0\n"
          "# TYPE cordon_odd_half gauge\ncordon_odd_half{name=\"o\"} 0.5\n"
          "# TYPE cordon_odd_yes gauge\ncordon_odd_yes{name=\"o\"} 1\n"
          "# TYPE cordon_odd_all_total counter\ncordon_odd_all_total{name=\"o\"} 18446744073709551615\n");
}

TEST_CASE("names of figures become words, and a counter has its suffix once", "[observe][prometheus]") {
    const std::string text = text_of([](co::metric_sink& sink) {
        sink.counter("hits_total", 1, "");
        sink.counter("p99 (ms)", 2, "");
        sink.gauge("sum_total", 3, "");
    });
    CHECK(text.find("cordon_odd_hits_total{name=\"o\"} 1\n") != std::string::npos);
    CHECK(text.find("cordon_odd_p99__ms__total{name=\"o\"} 2\n") != std::string::npos);
    CHECK(text.find("cordon_odd_sum{name=\"o\"} 3\n") != std::string::npos);
}

TEST_CASE("what claims the name of a family that it does not belong to is left out", "[observe][prometheus]") {
    SECTION("the same figure twice, or as another type") {
        const std::string_view names[] = {"a"};
        const auto report = [&](co::metric_sink& sink) {
            sink.gauge("x", 1, "");
            sink.gauge("x", 2, "");
            sink.counter("x", 3, "");
            sink.state("x", 0, names, "");
            sink.gauge("y", 4, "");
        };
        for (const prometheus_format format : {prometheus_format::text, prometheus_format::openmetrics}) {
            const exposition found(text_of(report, {.format = format}), format);
            const std::map<std::string, double> left{{"cordon_odd_x{name=o}", 1}, {"cordon_odd_y{name=o}", 4}};
            CHECK(found.values == left);
        }
    }
    SECTION("of another source of the kind, as another type") {
        later_limiter later;
        fake_limiter limiter{0, "api"};
        registry metrics;
        const auto a = metrics.add(limiter);
        const auto b = metrics.add(later);
        const exposition found = read(metrics);
        CHECK(found.values.size() == 4);
        CHECK(found.values.at("cordon_rate_limiter_extra{name=later}") == 9);
    }
    SECTION("of another kind") {
        odd_long other;
        odd first{[](co::metric_sink& sink) { sink.gauge("long_x", 2, ""); }};
        registry metrics;
        const auto a = metrics.add(other);
        const auto b = metrics.add(first);
        CHECK(read(metrics).values == std::map<std::string, double>{{"cordon_odd_long_x{name=o}", 2}});
    }
}

TEST_CASE("without a prefix the kind begins the names", "[observe][prometheus]") {
    registry metrics;
    fake_breaker breaker;
    const auto here = metrics.add(breaker, {.prefix = ""});
    CHECK(read(metrics).order == std::vector<std::string>{"circuit_breaker_state"});
}

TEST_CASE("an empty registry is an empty text, or nothing but its end", "[observe][prometheus]") {
    const registry metrics;
    CHECK(write(metrics).empty());
    CHECK(write(metrics, {.format = prometheus_format::openmetrics}) == "# EOF\n");
}

TEST_CASE("asked for them, it counts the tasks and groups of the process", "[observe][prometheus]") {
    registry metrics;
    fake_breaker breaker;
    const auto here = metrics.add(breaker);
    co::run_loop loop;
    co::async_event go;
    co::task_group group{loop, {.name = "g"}};
    const auto count = [&](const char* what) { return read(metrics, {.tasks = true}).values.at(what); };
#if CORDON_TASK_RECORDS
    const auto wait = [&]() -> co::task<> { co_await go.wait(); };
    const double groups = count("cordon_task_groups"), tasks = count("cordon_tasks");
    for (int i = 0; i < 5; ++i) CHECK(group.spawn(wait()));
    CHECK(count("cordon_tasks") == tasks + 5);
    CHECK(count("cordon_task_groups") == groups);
    {
        const co::task_group another{loop};
        CHECK(count("cordon_task_groups") == groups + 1);
        CHECK(count("cordon_tasks") == tasks + 5);
    }
    named_like_tasks rival;
    const auto too = metrics.add(rival, {.prefix = ""});
    CHECK(count("cordon_tasks") == tasks + 5);
    CHECK(read(metrics).values.at("cordon_tasks{name=rival}") == 7);
    CHECK(read(metrics, {.tasks = true}).order.front() == "cordon_tasks");
    go.set();
    while (loop.poll()) {}
    CHECK(count("cordon_tasks") == tasks);
#else
    CHECK_THROWS(count("cordon_tasks"));
#endif
    CHECK(read(metrics).values.count("cordon_tasks") == 0);  // nobody asked
    group.request_stop();
    while (loop.poll()) {}
    co::sync_wait(group.join());
}

TEST_CASE("an error of the stream goes to the caller, and registrations may end", "[observe][prometheus]") {
    struct full : std::streambuf {
        int_type overflow(int_type) override { throw std::length_error("full"); }
    } nowhere;
    std::ostream out(&nowhere);
    out.exceptions(std::ios::badbit);
    registry metrics;
    fake_breaker breaker;
    const auto here = metrics.add(breaker);
    CHECK_THROWS_AS(co::write_prometheus(out, metrics), std::length_error);
}

TEST_CASE("the content type is that of the format", "[observe][prometheus]") {
    CHECK(co::content_type(prometheus_format::text).starts_with("text/plain; version=0.0.4"));
    CHECK(co::content_type(prometheus_format::openmetrics).starts_with("application/openmetrics-text; version=1.0.0"));
}

TEST_CASE("promtool finds nothing to complain about", "[observe][prometheus]") {
    with_many([](const registry& metrics) {
        const std::string text = write(metrics, {.tasks = true});
        INFO(text);
        const auto [code, said] = judge("promtool check metrics", "command -v promtool", text);
        if (code == -1) {
            WARN("SKIPPED: there is no promtool (Debian: prometheus)");
            return;
        }
        CHECK(code == 0);
        CHECK(said == "");
    });
}

TEST_CASE("Prometheus' own client for Python reads both formats", "[observe][prometheus]") {
    with_many([](const registry& metrics) {
        for (const prometheus_format format : {prometheus_format::text, prometheus_format::openmetrics}) {
            const std::string parser = format == prometheus_format::text ? "prometheus_client.parser"
                                                                         : "prometheus_client.openmetrics.parser";
            const std::string text = write(metrics, {.format = format, .tasks = true});
            INFO(text);
            const auto [code, said] = judge(
                "/usr/bin/python3 -c 'import sys; from " + parser + " import text_string_to_metric_families as parse;"
                " print(sum(len(f.samples) for f in parse(open(0, newline=\"\\n\", encoding=\"utf-8\").read())))'",
                "/usr/bin/python3 -c 'import " + parser + "'", text);
            if (code == -1) {
                WARN("SKIPPED: there is no prometheus_client (Debian: python3-prometheus-client)");
                return;
            }
            CHECK(code == 0);
            CHECK(said == std::to_string(exposition(text, format).values.size()) + '\n');
        }
    });
}
