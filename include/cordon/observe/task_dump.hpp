// SPDX-License-Identifier: MIT
#pragma once

// What is this process doing right now? Writes every live task below its group, with the places where it waits, from
// any thread, while all go on:
//
//     write_task_dump(out);                                // a line for each, and one for each place
//     write_task_dump(out, {.by_site = true});             // a hundred that wait at the same place are one entry
//     write_task_dump(out, {.format = dump_format::json});

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/observe/detail/utf8.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <ostream>
#include <source_location>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {

enum class dump_format : std::uint8_t { text, json };

struct dump_options {
    dump_format format = dump_format::text;
    bool by_site = false;  ///< tasks that were spawned at one place and wait at the same ones are counted, not listed
};

/// Writes who is alive. Text is `describe` of each task and group, children below their parent and two columns further
/// in. JSON is an object, `{"tasks":[{"id":"7.2","parent":"3","group":false,"name":"ada","spawned_at":{"file":"a.cpp",
/// "line":7,"function":"main"},"age_ms":20,"state":"suspended","waits":[..],"frames_elided":false,
/// "waits_for":"sleep_for"},..]}`, in no order: ids are texts, since they do not fit into a double, and the parent of
/// none is null; `waits` are places, outermost first. By site, the most numerous first and without groups, the object
/// is `{"sites":[{"count":100,"youngest_ms":5,"oldest_ms":20,"spawned_at":..},..]}`, with the same fields as a task.
/// What is no UTF-8 is replaced.
/// Errors:        what `out` throws
/// Threads:       from any; nobody is stopped or blocked. Weakly consistent, as `live_tasks`: each entry is right for
///                one moment; who ends meanwhile may be missing, and who starts
/// Lifetime:      as `live_tasks`
/// Cost:          a microsecond for each, and 24 bytes while it lasts (text), nothing (JSON), or a text for each site
///                (by site)
void write_task_dump(std::ostream& out, const dump_options& options = {});

namespace detail {

/// The tree of all that are alive, in 24 bytes each.
class task_tree {
public:
    explicit task_tree(record_reader& reader) : reader_(&reader) {
        reader.each_glimpse([&](const record_reader::glimpse& g) { nodes_.push_back({g.id, g.parent_id}); });
        for (std::size_t i = nodes_.size(); i-- > 0;) {  // backwards, since each becomes its parent's first child
            const std::uint32_t parent = position_of(nodes_[i].parent_id);
            std::uint32_t& first = parent == none ? root_ : nodes_[parent].first_child;
            nodes_[i].next = std::exchange(first, static_cast<std::uint32_t>(i));
        }
    }

    /// Calls `f(task_info&, depth)` for each that is still alive, a parent before its children.
    template <class F>
    void visit(F f) {
        std::vector<std::uint32_t> left;  // at each depth: who comes next
        task_info info;
        for (std::uint32_t at = root_;;) {
            while (at == none) {
                if (left.empty()) return;
                at = left.back();
                left.pop_back();
            }
            if (reader_->find(nodes_[at].id, info)) f(info, left.size());
            left.push_back(nodes_[at].next);
            at = nodes_[at].first_child;
        }
    }

private:
    static constexpr std::uint32_t none = 0xFFFF'FFFFU;
    struct node {
        std::uint64_t id, parent_id;
        std::uint32_t first_child = none, next = none;
    };

    /// The parent's life, too, has to be the one that the child had: so there is no cycle, however much has changed
    /// between the two looks.
    std::uint32_t position_of(std::uint64_t id) const {
        const auto index = [](std::uint64_t of) { return of & 0xFFFF'FFFFU; };
        const auto at = std::lower_bound(nodes_.begin(), nodes_.end(), index(id), [&](const node& n, std::uint64_t i) {
            return index(n.id) < i;
        });
        return id == 0 || at == nodes_.end() || at->id != id ? none : static_cast<std::uint32_t>(at - nodes_.begin());
    }

    record_reader* reader_;
    std::vector<node> nodes_;  // by index
    std::uint32_t root_ = none;
};

inline constexpr std::size_t site_slots = 1021;  // of texts that are kept: a prime, for good measure

/// Tasks counted by where they were spawned and where they wait.
class site_counts {
public:
    struct site {
        std::string places;
        std::size_t count = 0;
        std::chrono::milliseconds youngest{0}, oldest{0};
        task_info one;
    };

    void add(task_info& task) {
        site& s = sites_[places_text(task, texts_)];
        s.youngest = s.count == 0 ? task.age : std::min(s.youngest, task.age);
        s.oldest = std::max(s.oldest, task.age);
        if (s.count++ == 0) s.one = std::move(task);
    }
    /// The most numerous first.
    std::vector<site> sorted() && {
        std::vector<site> all;
        for (auto& [places, s] : sites_) {
            s.places = places;
            all.push_back(std::move(s));
        }
        std::sort(all.begin(), all.end(), [](const site& a, const site& b) {
            return a.count != b.count ? a.count > b.count : a.places < b.places;
        });
        return all;
    }

private:
    site_texts texts_{&site_text, site_slots};
    std::map<std::string, site> sites_;
};

/// Appends the lines of a text, each further in.
inline void append_indented(std::string& to, std::string_view lines, std::size_t columns) {
    while (!lines.empty()) {
        const std::size_t end = lines.find('\n');
        to.append(columns, ' ').append(lines.substr(0, end)) += '\n';
        lines.remove_prefix(end == std::string_view::npos ? lines.size() : end + 1);
    }
}

/// Builds one JSON object after the other.
class json_text {
public:
    std::string text;

    json_text& key(std::string_view name) {
        if (text.back() != '{') text += ',';
        return string(name), text += ':', *this;
    }
    json_text& raw(std::string_view value) { return text += value, *this; }
    json_text& number(std::int64_t n) { return text += std::to_string(n), *this; }
    json_text& boolean(bool b) { return raw(b ? "true" : "false"); }
    json_text& string(std::string_view value) {
        text += '"';
        while (!value.empty()) {
            const auto odd = std::find_if_not(value.begin(), value.end(), is_plain);
            text.append(value.begin(), odd);
            value.remove_prefix(static_cast<std::size_t>(odd - value.begin()));
            if (value.empty()) break;
            const std::size_t length = utf8_length(value);
            if (length == 0) text += utf8_replacement;
            else if (length > 1) text += value.substr(0, length);
            else escape(value[0]);
            value.remove_prefix(std::max<std::size_t>(length, 1));
        }
        return text += '"', *this;
    }
    /// Where a task was spawned, what it does, and where it waits.
    json_text& places(const task_info& task, site_texts& sites) {
        using activity = task_info::activity;
        key("spawned_at").raw(sites(task.spawned_at));
        key("state").string(task.state == activity::running    ? "running"
                            : task.state == activity::suspended ? "suspended"
                                                                : "starting");
        key("waits").raw("[");
        for (std::size_t i = 0; i < task.waits.size(); ++i) raw(i == 0 ? "" : ",").raw(sites(task.waits[i]));
        return raw("]").key("frames_elided").boolean(task.frames_elided).key("waits_for").string(task.waits_for);
    }

private:
    static bool is_plain(char c) noexcept { return c >= ' ' && c != '"' && c != '\\' && c != 0x7F; }
    void escape(char c) {
        constexpr const char* digits = "0123456789abcdef";
        if (c == '"' || c == '\\') text += '\\', text += c;
        else if (c == '\n') text += "\\n";
        else if (c == '\t') text += "\\t";
        else text += "\\u00", text += digits[c >> 4], text += digits[c & 15];
    }
};

inline std::string site_json(const std::source_location& at) {
    json_text json;
    json.raw("{").key("file").string(at.file_name()).key("line").number(at.line());
    return json.key("function").string(unqualified_name(at.function_name())).raw("}").text;
}

inline void dump_text(std::ostream& out, record_reader& reader) {
    constexpr std::size_t deepest = 20;  // further in there is no more room
    site_texts sites(&site_text, site_slots);
    std::string lines;
    task_tree(reader).visit([&](const task_info& task, std::size_t depth) {
        lines.clear();
        append_indented(lines, describe(task, sites), 2 * std::min(depth, deepest));
        out << lines;
    });
}

inline void dump_json(std::ostream& out, record_reader& reader) {
    site_texts sites(&site_json, site_slots);
    json_text json;
    const char* before = "{\"tasks\":[\n";
    reader.each([&](const task_info& task) {
        json.text = std::exchange(before, ",\n");
        json.raw("{").key("id").string(id_text(task.id)).key("parent");
        if (task.parent_id == 0) json.raw("null");
        else json.string(id_text(task.parent_id));
        json.key("group").boolean(task.is_group).key("name").string(task.name);
        json.key("age_ms").number(task.age.count()).places(task, sites).raw("}");
        out << json.text;
    });
    out << (before[0] == '{' ? "{\"tasks\":[" : "") << "]}\n";
}

inline void dump_sites(std::ostream& out, record_reader& reader, dump_format format) {
    site_counts counts;
    reader.each([&](task_info& task) {
        if (!task.is_group) counts.add(task);
    });
    site_texts sites(&site_json, 0);
    json_text json;
    const char* before = "{\"sites\":[\n";
    for (const site_counts::site& s : std::move(counts).sorted()) {
        const std::int64_t youngest = s.youngest.count(), oldest = s.oldest.count();
        const auto count = static_cast<std::int64_t>(s.count);
        if (format == dump_format::text) {
            out << count << (count == 1 ? " task  alive " : " tasks  alive ") << youngest;
            if (oldest != youngest) out << " to " << oldest;
            out << " ms  " << s.places;
            continue;
        }
        json.text = std::exchange(before, ",\n");
        json.raw("{").key("count").number(count).key("youngest_ms").number(youngest);
        out << json.key("oldest_ms").number(oldest).places(s.one, sites).raw("}").text;
    }
    if (format == dump_format::json) out << (before[0] == '{' ? "{\"sites\":[" : "") << "]}\n";
}

}  // namespace detail

inline void write_task_dump(std::ostream& out, const dump_options& options) {
    detail::record_reader reader(detail::to_record_ms(clock::now()));
    if (options.by_site) detail::dump_sites(out, reader, options.format);
    else if (options.format == dump_format::json) detail::dump_json(out, reader);
    else detail::dump_text(out, reader);
}

}  // namespace cordon::inline CORDON_ABI
