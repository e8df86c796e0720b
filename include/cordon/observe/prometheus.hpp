// SPDX-License-Identifier: MIT
#pragma once

// The figures of a registry as Prometheus and its kin read them, ready for any HTTP host:
//
//     write_prometheus(out, metrics);          // cordon_rate_limiter_rejected_total{name="api"} 2
//     header("Content-Type", content_type(prometheus_format::text));

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/observable.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/observe/detail/utf8.hpp>
#include <cordon/observe/registry.hpp>

#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {

enum class prometheus_format : std::uint8_t {
    text,         ///< 0.0.4, which all that scrape can read
    openmetrics,  ///< 1.0
};

struct prometheus_options {
    prometheus_format format = prometheus_format::text;
    bool tasks = false;  ///< also how many tasks and groups this process has: `cordon_tasks`, `cordon_task_groups`
};

/// What an HTTP answer says that it holds.
constexpr std::string_view content_type(prometheus_format format) noexcept {
    return format == prometheus_format::text ? "text/plain; version=0.0.4; charset=utf-8"
                                             : "application/openmetrics-text; version=1.0.0; charset=utf-8";
}

/// Writes all figures of a registry, each family of one name together: by prefix and kind, then as they are reported,
/// in it by name and labels. A counter is `<prefix>_<kind>_<figure>_total{name="api",zone="a"} 2`, a gauge the
/// same without `_total`; a state is a gauge for each of its names, with the label `state`, which is 1 for the present
/// one. What no name of a metric may have becomes `_`. A family belongs to the kind that reports it first, as the type
/// that it has there, and gets one figure of each source; what else claims its name is left out.
/// Errors:        what `out` throws, or a `report`
/// Threads:       from any. Each source is read at one moment, but not all at the same
/// Cost:          some hundred nanoseconds for a figure; the text is in memory until it is written, so no registration
///                waits for `out`. With tasks a few nanoseconds for each that was ever alive at once
/// Source:        Prometheus, "Exposition formats"; OpenMetrics 1.0
void write_prometheus(std::ostream& out, const registry& from, const prometheus_options& options = {});

namespace detail {

/// Builds the text, figure by figure; those of one prefix and kind come one after the other.
class prometheus_text {
public:
    explicit prometheus_text(prometheus_format format) noexcept : format_(format) {}

    void add(const metric_source& who, const metric& m) {
        if (who.id != source_) begin_source(who);
        family* const f = claim(m);
        if (f == nullptr) return;
        if (m.type == metric_type::state) {
            for (std::size_t i = 0; i < m.states.size(); ++i) {
                begin_series(*f);
                f->series += ",state=\"";
                append_escaped(f->series, m.states[i], true);
                f->series += i == m.state ? "\"} 1\n" : "\"} 0\n";
            }
            return;
        }
        begin_series(*f);
        f->series += "} ";
        if (m.type == metric_type::counter) f->series += std::to_string(m.total);
        else append_number(f->series, m.value);
        f->series += '\n';
    }

    /// A gauge without labels, of no source.
    void add_plain(std::string_view name, std::uint64_t value, std::string_view help) {
        taken_.emplace(name);
        append_head(name, metric_type::gauge, help);
        ((text_ += name) += ' ') += std::to_string(value) += '\n';
    }

    std::string finish() && {
        end_kind();
        if (format_ == prometheus_format::openmetrics) text_ += "# EOF\n";
        return std::move(text_);
    }

private:
    struct family {
        std::string name;  // without _total
        metric_type type;
        std::string help;
        std::uint64_t latest = 0;  // source
        std::string series;
    };

    void begin_source(const metric_source& who) {
        source_ = who.id;
        if (who.prefix != prefix_ || who.kind != kind_) {
            end_kind();
            prefix_ = who.prefix;
            kind_ = who.kind;
        }
        labels_ = "{name=\"";
        append_escaped(labels_, who.name, true);
        labels_ += '"';
        for (const metric_label& label : who.labels) {
            ((labels_ += ',') += label.name) += "=\"";
            append_escaped(labels_, label.value, true);
            labels_ += '"';
        }
    }

    /// Returns:       the family of a figure, with the figure's place in it; null if it has none
    family* claim(const metric& m) {
        name_ = prefix_;
        if (!name_.empty()) name_ += '_';
        (name_ += kind_) += '_';
        for (const char c : m.name) name_ += is_metric_byte(c) ? c : '_';
        if (std::string_view(name_).ends_with("_total")) name_.resize(name_.size() - 6);
        family* const f = find();
        if (f == nullptr || f->latest == source_ || (f->latest != 0 && f->type != m.type)) return nullptr;
        if (f->latest == 0) {
            f->type = m.type;
            f->help = m.help;
        }
        f->latest = source_;
        return f;
    }

    /// The family of `name_` in this kind, an empty one if it is new; null if another kind has it. Sources of a kind
    /// report the same in the same order, so mostly it is the next one.
    family* find() {
        for (std::size_t tries = families_.size(); tries > 0; --tries) {
            if (next_ >= families_.size()) next_ = 0;
            if (family& f = families_[next_++]; f.name == name_) return &f;
        }
        if (!taken_.insert(name_).second) return nullptr;
        next_ = families_.size() + 1;
        return &families_.emplace_back(family{name_, metric_type::gauge, {}, 0, {}});
    }

    void begin_series(family& f) const {
        f.series += f.name;
        if (f.type == metric_type::counter) f.series += "_total";
        f.series += labels_;
    }

    void end_kind() {
        for (const family& f : families_) {
            append_head(f.name, f.type, f.help);
            text_ += f.series;
        }
        families_.clear();
    }

    void append_head(std::string_view name, metric_type type, std::string_view help) {
        const bool is_counter = type == metric_type::counter;
        const std::string_view suffix = is_counter && format_ == prometheus_format::text ? "_total" : "";
        if (!help.empty()) {
            (((text_ += "# HELP ") += name) += suffix) += ' ';
            append_escaped(text_, help, format_ == prometheus_format::openmetrics);
            text_ += '\n';
        }
        (((text_ += "# TYPE ") += name) += suffix) += is_counter ? " counter\n" : " gauge\n";
    }

    static void append_escaped(std::string& to, std::string_view text, bool quotes) {
        for (const char c : to_clean_utf8(text)) {
            if (c == '\n') to += "\\n";
            else if (c == '\\' || (c == '"' && quotes)) (to += '\\') += c;
            else to += c;
        }
    }

    static void append_number(std::string& to, double value) {
        constexpr double exact = 9'007'199'254'740'992;  // 2^53: up to here an integer is written as one
        char digits[32];
        if (std::isnan(value)) to += "NaN";
        else if (std::isinf(value)) to += value < 0 ? "-Inf" : "+Inf";
        else if (value > -exact && value < exact && value == std::trunc(value))
            to += std::to_string(static_cast<std::int64_t>(value));
        else to.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
    }

    const prometheus_format format_;
    std::string text_;
    std::set<std::string> taken_;   // names of families that are in the text, or will be
    std::uint64_t source_ = 0;      // whose figures come now
    std::string prefix_, kind_;     // its
    std::string labels_;            // its: all of "{..}" but the bracket at the end
    std::vector<family> families_;  // of this kind
    std::size_t next_ = 0;          // in families_: where to look first
    std::string name_;
};

inline void add_task_counts([[maybe_unused]] prometheus_text& to) {
#if CORDON_TASK_RECORDS  // else nobody knows
    std::uint64_t tasks = 0, groups = 0;
    record_reader(to_record_ms(clock::now())).each_glimpse([&](const record_reader::glimpse& g) {
        ++(g.is_group ? groups : tasks);
    });
    to.add_plain("cordon_tasks", tasks, "Tasks that are alive.");
    to.add_plain("cordon_task_groups", groups, "Task groups that are alive.");
#endif
}

}  // namespace detail

inline void write_prometheus(std::ostream& out, const registry& from, const prometheus_options& options) {
    detail::prometheus_text text(options.format);
    if (options.tasks) detail::add_task_counts(text);
    from.scrape([&](const metric_source& who, const metric& m) { text.add(who, m); });
    out << std::move(text).finish();
}

}  // namespace cordon::inline CORDON_ABI
