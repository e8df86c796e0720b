// SPDX-License-Identifier: MIT
#pragma once

// Which primitives are to be seen in metrics? The host makes a registry, one for its process or one for each test, adds
// what it wants to see, and hands it to an exporter. Nothing is pushed: a figure is read when somebody looks.
//
//     registry metrics;
//     auto seen = metrics.add(connections);                     // until `seen` dies
//     auto seen_too = metrics.add(loop, {.name = "main"});      // what has no name of its own
//     write_prometheus(out, metrics);
//
// An exporter to another system is one call of `scrape`.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/observable.hpp>
#include <cordon/observe/detail/utf8.hpp>

#include <algorithm>
#include <compare>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {

struct metric_label {
    std::string name, value;
    friend auto operator<=>(const metric_label&, const metric_label&) = default;
};

struct metric_options {
    std::string_view name = {};             ///< what it is called; empty: by its own name
    std::string_view prefix = "cordon";     ///< of the names of its figures; may be empty
    std::vector<metric_label> labels = {};  ///< constant ones, besides its name
};

/// Whose a figure is. All texts are UTF-8 without control characters but newlines.
struct metric_source {
    std::uint64_t id = 0;              ///< of this registration, in this registry
    std::string prefix;                ///< matches [a-zA-Z_][a-zA-Z0-9_]*, or is empty
    std::string kind;                  ///< [a-zA-Z_][a-zA-Z0-9_]*
    std::string name;                  ///< not empty
    std::vector<metric_label> labels;  ///< sorted; their names match, too, and their values are not empty
};

namespace detail {

/// What a registry knows of one source.
struct metric_entry {
    metric_source who;
    const void* object;
    void (*read)(const void* object, metric_sink& sink);
    mutable std::size_t readers = 0;  // E1; like `leaving`, under the registry's lock
    mutable bool leaving = false;     // E2
};

struct metric_order {
    static auto key(const metric_source& s) noexcept { return std::tie(s.prefix, s.kind, s.name, s.labels); }
    bool operator()(const metric_entry& a, const metric_entry& b) const noexcept { return key(a.who) < key(b.who); }
};

}  // namespace detail

/// A set of `reportable` things, each with a name, to be read from time to time.
/// Threads:       all members from any
/// Lifetime:      outlives its registrations: else it prints the first one and terminates
/// Cost:          to add and to remove is logarithmic. What was added pays nothing but its `report` when it is read
class registry {
    using entry = detail::metric_entry;
    using entries = std::set<entry, detail::metric_order>;
    class cursor;

public:
    class registration;

    registry() = default;
    registry(const registry&) = delete;
    registry& operator=(const registry&) = delete;
    ~registry();

    /// Shows `source` until the registration dies. Its name is read now, and only now.
    /// Errors:        `std::invalid_argument` if there is no name, if one of the same prefix, kind, name and labels is
    ///                here already (two such would be one series), or if an option is not what a metric may have
    /// Lifetime:      `source` outlives the registration
    template <reportable T>
    [[nodiscard]] registration add(T& source, metric_options options = {});
    template <class T>
    registration add(const T&&, metric_options = {}) = delete;  // a temporary is dead before anybody looks

    /// Calls `f(const metric_source&, const metric&)` for each figure of each entry: the entries by prefix, kind, name
    /// and labels, the figures of one together, as it reports them. Several may scrape at the same time. What is added
    /// or removed meanwhile may be missing.
    /// Requires:      neither `f` nor a `report` destroys the registration that it is called for; nor any other while
    ///                several scrape, since two could wait for each other
    /// Errors:        what `f` throws, or a `report`
    /// Lifetime:      the texts of both are valid during the call
    /// Cost:          one `report` for each entry; no lock is held while it and `f` run, and nothing is allocated
    template <class F>
    void scrape(F&& f) const;

    /// How many are registered.
    [[nodiscard]] std::size_t size() const;

private:
    registration enter(entry&& e);
    static metric_source describe(std::string_view kind, std::string_view own_name, metric_options&& options);

    // E1 Whoever reads an entry is counted in its `readers`. An entry with readers is not erased, so that it stays a
    //    place to go on from.
    // E2 An entry whose registration dies is marked `leaving`, and gets no more readers; the last one tells.
    // E3 A source that is registered anew takes the place of its predecessor in the order, which a scrape has passed if
    //    it has seen that: so no scrape meets both.
    mutable std::mutex mutex_;
    mutable std::condition_variable read_;
    entries entries_;             // under mutex_
    std::uint64_t last_id_ = 0;   // under mutex_
};

/// Keeps something in a registry. Its destructor waits for who is reading that now, on another thread; then nobody
/// touches it any more. So it must not hold a lock that a `report` takes.
class [[nodiscard]] registry::registration {
public:
    registration() noexcept = default;
    registration(registration&& other) noexcept
        : registry_(std::exchange(other.registry_, nullptr)), entry_(other.entry_) {}
    registration& operator=(registration&& other) noexcept {
        if (this != &other) {
            remove();
            registry_ = std::exchange(other.registry_, nullptr);
            entry_ = other.entry_;
        }
        return *this;
    }
    ~registration() { remove(); }

private:
    friend class registry;
    registration(registry& in, entries::const_iterator e) noexcept : registry_(&in), entry_(e) {}

    void remove() noexcept {
        registry* const in = std::exchange(registry_, nullptr);
        if (in == nullptr) return;
        std::unique_lock lock(in->mutex_);
        entry_->leaving = true;  // E2
        while (entry_->readers != 0) in->read_.wait(lock);
        in->entries_.erase(entry_);
    }

    registry* registry_ = nullptr;
    entries::const_iterator entry_;
};

/// Goes from entry to entry, and is counted as a reader of the one where it is.
class registry::cursor {
public:
    explicit cursor(const registry& in) : in_(in) {
        const std::lock_guard lock(in_.mutex_);
        enter(in_.entries_.begin());
    }
    cursor(const cursor&) = delete;
    cursor& operator=(const cursor&) = delete;
    ~cursor() {
        const std::lock_guard lock(in_.mutex_);
        if (now_ != nullptr) leave();
    }

    /// Null: there are no more.
    [[nodiscard]] const entry* now() const noexcept { return now_; }
    void next() {
        const std::lock_guard lock(in_.mutex_);
        const auto following = std::next(at_);
        leave();
        enter(following);
    }

private:
    void enter(entries::const_iterator e) noexcept {
        while (e != in_.entries_.end() && e->leaving) ++e;
        at_ = e;
        now_ = e == in_.entries_.end() ? nullptr : &*e;
        if (now_ != nullptr) ++now_->readers;
    }
    void leave() noexcept {
        if (--now_->readers == 0 && now_->leaving) in_.read_.notify_all();
    }

    const registry& in_;
    entries::const_iterator at_;
    const entry* now_ = nullptr;
};

namespace detail {

inline bool is_metric_byte(char c) noexcept {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/// Whether a text matches [a-zA-Z_][a-zA-Z0-9_]*.
inline bool is_metric_word(std::string_view text) noexcept {
    if (text.empty() || (text[0] >= '0' && text[0] <= '9')) return false;
    return std::all_of(text.begin(), text.end(), is_metric_byte);
}

/// The text with an underscore for each byte that no such word may have, and before a digit that it begins with.
inline std::string to_metric_word(std::string_view text) {
    std::string word(!text.empty() && text[0] >= '0' && text[0] <= '9' ? "_" : "");
    for (const char c : text) word += is_metric_byte(c) ? c : '_';
    return word;
}

[[noreturn]] inline void refuse_metric(const std::string& why) {
    raise(std::invalid_argument("registry::add: " + why), "registry::add: no name, a name twice, or a bad option");
}

}  // namespace detail

template <reportable T>
registry::registration registry::add(T& source, metric_options options) {
    const auto read = [](const void* object, metric_sink& sink) { static_cast<const T*>(object)->report(sink); };
    return enter({describe(T::kind, source.name(), std::move(options)), std::addressof(source), read});
}

template <class F>
void registry::scrape(F&& f) const {
    for (cursor at(*this); at.now() != nullptr; at.next()) {
        const entry& e = *at.now();
        const auto take = [&](const metric& m) { f(e.who, m); };
        metric_sink sink(take);
        e.read(e.object, sink);
    }
}

inline metric_source registry::describe(std::string_view kind, std::string_view own_name, metric_options&& options) {
    metric_source who;
    who.prefix = options.prefix;
    who.kind = detail::to_metric_word(kind);
    who.name = detail::to_clean_utf8(options.name.empty() ? own_name : options.name);
    who.labels = std::move(options.labels);
    std::sort(who.labels.begin(), who.labels.end());

    if (who.kind.empty()) detail::refuse_metric("its kind is empty");
    const std::string what = "of a " + who.kind + " named \"" + who.name + "\" ";
    if (who.name.empty()) detail::refuse_metric("a " + who.kind + " has no name: give it one, or one in the options");
    if (!who.prefix.empty() && !detail::is_metric_word(who.prefix))
        detail::refuse_metric("the prefix " + what + "is \"" + who.prefix + "\", allowed is [a-zA-Z_][a-zA-Z0-9_]*");
    for (std::size_t i = 0; i < who.labels.size(); ++i) {
        metric_label& label = who.labels[i];
        label.value = detail::to_clean_utf8(label.value);
        const std::string which = "a label " + what + "is \"" + label.name + "\", ";
        if (!detail::is_metric_word(label.name) || label.name.starts_with("__"))
            detail::refuse_metric(which + "allowed is [a-zA-Z_][a-zA-Z0-9_]*, but not __ at the beginning");
        if (label.name == "name" || label.name == "state") detail::refuse_metric(which + "which is cordon's own");
        if (label.value.empty()) detail::refuse_metric(which + "and has no value");
        if (i != 0 && who.labels[i - 1].name == label.name) detail::refuse_metric(which + "twice");
    }
    return who;
}

inline registry::registration registry::enter(entry&& e) {
    const std::lock_guard lock(mutex_);
    e.who.id = last_id_ + 1;
    const auto [at, is_new] = entries_.insert(std::move(e));
    if (!is_new)
        detail::refuse_metric("a " + at->who.kind + " named \"" + at->who.name +
                              "\" is here already, with the same labels: give one of the two another name, or a label");
    ++last_id_;
    return registration(*this, at);
}

inline std::size_t registry::size() const {
    const std::lock_guard lock(mutex_);
    return entries_.size();
}

inline registry::~registry() {
    if (!entries_.empty()) [[unlikely]]
        detail::fail("registry destroyed while " + std::to_string(entries_.size()) + " are registered, the first a " +
                     entries_.begin()->who.kind + " named \"" + entries_.begin()->who.name + '"');
}

}  // namespace cordon::inline CORDON_ABI
