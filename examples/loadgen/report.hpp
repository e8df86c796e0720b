// SPDX-License-Identifier: MIT
#pragma once

// What is told at the end, as a table and as JSON; and a line of progress.

#include "ledger.hpp"
#include "options.hpp"
#include "tally.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iomanip>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>

namespace loadgen {

struct report {
    const options& opts;
    const schedule& plan;
    const tally& seen;
    std::optional<joined> ledger;

    [[nodiscard]] double seconds() const { return std::chrono::duration<double>(plan.counted()).count(); }
    [[nodiscard]] double per_second(std::uint64_t n) const {
        return seconds() > 0 ? static_cast<double>(n) / seconds() : 0;
    }
    [[nodiscard]] std::uint64_t answered() const { return seen[outcome::ok] + seen[outcome::status]; }
};

struct quantile {
    std::string_view name;
    double percent;
};
inline constexpr quantile quantiles[] = {{"p50", 50}, {"p90", 90}, {"p99", 99}, {"p99.9", 99.9}, {"p99.99", 99.99}};

inline double in_ms(std::chrono::nanoseconds d) { return std::chrono::duration<double, std::milli>(d).count(); }

inline void write_table(std::ostream& out, const report& r) {
    const auto begin_line = [&](std::string_view name) {
        out << "  " << std::left << std::setw(18) << name << std::right;
    };
    const auto line = [&](std::string_view name, std::uint64_t n) {
        if (n == 0 && name != "ok") return;
        begin_line(name);
        out << std::setw(9) << n << '\n';
    };
    const auto latencies = [&](std::string_view name, const histogram& h) {
        if (h.count() == 0) return;
        begin_line(name);
        for (const quantile& q : quantiles) out << std::setw(9) << in_ms(h.percentile(q.percent));
        out << std::setw(9) << in_ms(h.max()) << '\n';
    };
    out << std::fixed << std::setprecision(1);
    out << r.seen.total() << " requests in " << r.seconds() << " s: " << r.per_second(r.seen.total()) << "/s";
    if (r.opts.rate) out << " of " << *r.opts.rate << "/s asked for";
    out << ", " << r.per_second(r.answered()) << "/s answered\n";
    line("ok", r.seen[outcome::ok]);
    for (const auto& [status, n] : r.seen.statuses) line("status " + std::to_string(status), n);
    for (std::size_t i = 2; i < outcome_names.size(); ++i) line(outcome_names[i], r.seen[static_cast<outcome>(i)]);
    line("never_sent", r.seen.never_sent());
    out << std::setprecision(2) << "latency in ms            p50      p90      p99    p99.9   p99.99      max\n";
    latencies("ok", r.seen.ok);
    latencies("others", r.seen.others);
    out << "own delay at most " << in_ms(r.plan.own_delay()) << " ms\n";
    if (r.ledger)
        out << "executed " << r.ledger->executed << ", ambiguous " << r.ledger->ambiguous << ", lost "
            << r.ledger->lost() << " (ok but not executed " << r.ledger->ok_not_executed << ", unanswered "
            << r.ledger->unanswered << "), executed twice " << r.ledger->repeated << '\n';
}

inline void write_json(std::ostream& out, const report& r) {
    const auto latencies = [&](std::string_view name, const histogram& h) {
        out << "  \"" << name << "\": {\"count\": " << h.count();
        if (h.count() != 0) {
            for (const quantile& q : quantiles) out << ", \"" << q.name << "\": " << in_ms(h.percentile(q.percent));
            out << ", \"max\": " << in_ms(h.max());
        }
        out << "},\n";
    };
    out << std::fixed << std::setprecision(6) << "{\n  \"prefix\": \"" << r.opts.prefix << "\",\n  \"loop\": \""
        << (r.opts.rate ? "open" : "closed") << "\",\n  \"connections\": " << r.opts.connections
        << ",\n  \"seconds\": " << r.seconds() << ",\n  \"asked_per_s\": ";
    if (r.opts.rate) out << *r.opts.rate;
    else out << "null";
    out << ",\n  \"sent_per_s\": " << r.per_second(r.seen.total()) << ",\n  \"answered_per_s\": "
        << r.per_second(r.answered()) << ",\n  \"requests\": " << r.seen.total()
        << ",\n  \"never_sent\": " << r.seen.never_sent() << ",\n  \"outcomes\": {";
    for (std::size_t i = 0; i < outcome_names.size(); ++i)
        out << (i == 0 ? "" : ", ") << '"' << outcome_names[i] << "\": " << r.seen[static_cast<outcome>(i)];
    out << "},\n  \"statuses\": {";
    for (std::string_view comma; const auto& [status, n] : r.seen.statuses) {
        out << comma << '"' << status << "\": " << n;
        comma = ", ";
    }
    out << "},\n";
    latencies("latency_ms", r.seen.ok);
    latencies("latency_of_others_ms", r.seen.others);
    if (r.ledger)
        out << "  \"executed\": " << r.ledger->executed << ",\n  \"ambiguous\": " << r.ledger->ambiguous
            << ",\n  \"lost\": " << r.ledger->lost() << ",\n  \"ok_not_executed\": " << r.ledger->ok_not_executed
            << ",\n  \"unanswered\": " << r.ledger->unanswered << ",\n  \"executed_twice\": " << r.ledger->repeated
            << ",\n";
    out << "  \"own_delay_ms\": " << in_ms(r.plan.own_delay()) << "\n}\n";
}

/// One line, of all so far.
inline void write_progress(std::ostream& out, const report& r) {
    if (r.seconds() <= 0) {
        out << "warm-up\n" << std::flush;
        return;
    }
    out << std::fixed << std::setprecision(1) << std::setw(6) << r.seconds() << " s  ok " << r.seen[outcome::ok]
        << "  status " << r.seen[outcome::status] << "  failed " << r.seen.total() - r.answered()
        << std::setprecision(2) << "  p50 " << in_ms(r.seen.ok.percentile(50)) << " ms  p99 "
        << in_ms(r.seen.ok.percentile(99)) << " ms  own delay " << in_ms(r.plan.own_delay()) << " ms\n"
        << std::flush;
}

}  // namespace loadgen
