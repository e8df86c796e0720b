// SPDX-License-Identifier: MIT
#pragma once

// Who is alive, since when, and where does it wait? Every spawned task and every group has a record, which a dump reads
// from any thread without a lock and without stopping anyone:
//
//     for (const cordon::task_info& task : cordon::live_tasks()) std::cout << cordon::describe(task);
//
// A record is 64 bytes. It costs some ten nanoseconds to open and close, and a few stores whenever its task suspends.
//
// Long, because R1 to R3 bind the writer and the reader of a record: they are read as one. Users need the first page.

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/function_name.hpp>
#include <cordon/core/detail/record_slab.hpp>

#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <source_location>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility push(default)
#endif

namespace cordon::inline CORDON_ABI {

/// What a record said at one moment.
struct task_info {
    /// A group, or a task that has not run yet, is starting. A task is running from each wake-up to its next wait.
    enum class activity { starting, running, suspended };

    std::uint64_t id = 0;          // unique in this process: the record's index, and its life in the upper 32 bits
    std::uint64_t parent_id = 0;   // 0: none
    bool is_group = false;
    std::string name;              // at most 63 bytes
    std::source_location spawned_at;
    std::chrono::milliseconds age{0};            // wraps after 49 days
    activity state = activity::starting;
    std::vector<std::source_location> waits;     // if suspended: outermost first, at most three
    bool frames_elided = false;                  // there are more frames, after the outermost one
    std::string waits_for;                       // if suspended: "sleep_for", "semaphore db, held by 3"
};

/// Returns a line for the task, and one for each place where it waits; each ends with a newline. A life other than the
/// first of its record is printed behind the index: `#7.2`.
std::string describe(const task_info& task);

/// Returns every task and group that is alive, in the order of their records. Weakly consistent: each entry is right
/// for one moment, but not all for the same; what starts or ends meanwhile may be missing.
/// Threads:       from any; nobody is stopped or blocked
/// Lifetime:      sites and labels are pointers to static data: read no dump after a `dlclose` of code that spawned
/// Cost:          a scan of all records that were ever alive at once, and an allocation or two for each live one
std::vector<task_info> live_tasks();

namespace detail {

/// Milliseconds of `cordon::clock`, as records count them; they wrap.
inline std::uint32_t to_record_ms(clock::time_point t) noexcept {
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(t.time_since_epoch()).count();
    return static_cast<std::uint32_t>(static_cast<std::uint64_t>(ms));
}

std::vector<task_info> live_tasks(std::uint32_t now_ms);

#if CORDON_TASK_RECORDS

static_assert(sizeof(std::source_location) == sizeof(void*) && std::is_trivially_copyable_v<std::source_location>,
              "a task record keeps each source_location as one pointer: define CORDON_TASK_RECORDS=0 here");

/// The record of one task or group. It has one writer at a time, which its task is or has handed over to.
///
///  R1  `gen_` is odd while the record is alive: stored last by `open`, made even first by `close`. What was read
///      between two equal odd values belongs to that life.
///  R2  `state_` changes before the places change and after them. What was read between two equal values that say
///      suspended belongs to that suspension. While the record says anything else, the places mean nothing.
///  R3  A label is given back only after `gen_` or `state_` has changed; a name after `gen_` or `name_`, so that a task
///      which changes its state all the time can be read. The lower bits of `name_` count the renames, so that a name
///      which comes back to its first cell is another word.
/// Fields are stored with release and loaded with acquire (I1 of record_slab.hpp), which makes both comparisons sound
/// without fences: a reader that met a newer value also sees the mark that was stored before it.
class alignas(64) task_record {
public:
    /// Opens a record for a task or a group; an empty name takes no memory. Returns null when out of memory.
    static task_record* open(bool group, std::string_view name, std::source_location spawned, task_record* parent,
                             std::uint32_t now_ms) noexcept;

    /// The number of this life, as in `task_info`.
    std::uint64_t id() const noexcept { return id(gen_.load(std::memory_order_relaxed)); }

    /// Ends the life. Threads: from any, after everything that the task did.
    void close() noexcept;

    /// Gives the task another name; out of memory it keeps the old one.
    void rename(std::string_view name) noexcept;

    /// Says where the task waits, before it can be resumed; places that are not needed are default-constructed.
    /// Requires:      a new record, or `running()` since the last call
    /// Lifetime:      the label outlives the wait
    void suspended(std::source_location outermost, std::source_location middle, std::source_location innermost,
                   bool elided, const wait_label& what) noexcept;

    /// Says that the task runs again.
    void running() noexcept;

    std::atomic<std::uintptr_t>& next_cell() noexcept { return name_; }
    std::atomic<std::uintptr_t>& next_chain() noexcept { return outermost_; }

private:
    friend class record_reader;
    static constexpr std::uint32_t activity_bits = 3, group_bit = 4, elided_bit = 8, step = 32;

    using chunk = slab_chunk<task_record>;

    std::uint32_t index() const noexcept { return chunk::of(*this).index_of(*this); }
    std::uint64_t id(std::uint32_t gen) const noexcept { return (std::uint64_t{gen >> 1} << 32) | index(); }
    static constexpr std::uintptr_t renames = 63;   // R3; cells are aligned to 64 bytes

    static const slab_text* text(std::uintptr_t word) noexcept {
        return reinterpret_cast<const slab_text*>(word & ~renames);
    }
    std::uint32_t kept_state() const noexcept {
        return (state_.load(std::memory_order_relaxed) & (group_bit | ~(step - 1))) + step;
    }
    CORDON_NOINLINE static std::uintptr_t copy_name(std::string_view name) noexcept {
        return reinterpret_cast<std::uintptr_t>(slab_text::copy(name));
    }
    static void release_name(std::uintptr_t word) noexcept {
        if ((word & ~renames) != 0) [[unlikely]]
            record_slab<slab_text>::put(reinterpret_cast<slab_text*>(word & ~renames));
    }

    std::atomic<std::uint32_t> gen_;           // R1; 2 * life + 1
    std::atomic<std::uint32_t> state_;         // R2; activity 2 bits, group, elided, label in slab, changes 27 bits
    std::atomic<std::uintptr_t> name_;         // a slab_text or 0, and `renames`; a free record's link
    std::atomic<std::uintptr_t> spawned_;
    std::atomic<std::uint32_t> parent_;        // an index or 0
    std::atomic<std::uint32_t> since_;         // milliseconds
    std::atomic<std::uintptr_t> outermost_;    // a free chain's link
    std::atomic<std::uintptr_t> middle_;
    std::atomic<std::uintptr_t> innermost_;
    std::atomic<std::uintptr_t> what_;
};

inline task_record* task_record::open(bool group, std::string_view name, std::source_location spawned,
                                      task_record* parent, std::uint32_t now_ms) noexcept {
    task_record* const record = record_slab<task_record>::take();
    if (record == nullptr) return nullptr;
    record->name_.store(name.empty() ? 0 : copy_name(name), std::memory_order_release);
    record->state_.store(group ? group_bit : 0, std::memory_order_release);
    record->spawned_.store(std::bit_cast<std::uintptr_t>(spawned), std::memory_order_release);
    record->parent_.store(parent == nullptr ? 0 : parent->index(), std::memory_order_release);
    record->since_.store(now_ms, std::memory_order_release);
    record->gen_.store(record->gen_.load(std::memory_order_relaxed) + 1, std::memory_order_release);   // R1
    return record;
}

inline void task_record::close() noexcept {
    gen_.store(gen_.load(std::memory_order_relaxed) + 1, std::memory_order_release);   // R1
    release_name(name_.load(std::memory_order_relaxed));                               // R3
    record_slab<task_record>::put(this);
}

inline void task_record::rename(std::string_view name) noexcept {
    const slab_text* const copied = name.empty() ? nullptr : slab_text::copy(name);
    if (copied == nullptr && !name.empty()) return;
    const std::uintptr_t old = name_.load(std::memory_order_relaxed);
    name_.store(reinterpret_cast<std::uintptr_t>(copied) | ((old + 1) & renames), std::memory_order_release);
    state_.store(state_.load(std::memory_order_relaxed) + step, std::memory_order_release);
    release_name(old);   // R3
}

inline void task_record::suspended(std::source_location outermost, std::source_location middle,
                                   std::source_location innermost, bool elided, const wait_label& what) noexcept {
    outermost_.store(std::bit_cast<std::uintptr_t>(outermost), std::memory_order_release);
    middle_.store(std::bit_cast<std::uintptr_t>(middle), std::memory_order_release);
    innermost_.store(std::bit_cast<std::uintptr_t>(innermost), std::memory_order_release);
    what_.store(reinterpret_cast<std::uintptr_t>(what.text_), std::memory_order_release);
    const std::uint32_t flags = (elided ? elided_bit : 0) | what.flags_;
    const auto activity = static_cast<std::uint32_t>(task_info::activity::suspended);
    state_.store(kept_state() | flags | activity, std::memory_order_release);   // R2
}

inline void task_record::running() noexcept {
    const auto activity = static_cast<std::uint32_t>(task_info::activity::running);
    state_.store(kept_state() | activity, std::memory_order_release);   // R2
}

/// Reads records that others write.
class record_reader {
public:
    using chunk = slab_chunk<task_record>;

    explicit record_reader(std::uint32_t now_ms) : now_ms_(now_ms) { find_chunks(); }

    /// What one look at a record gives: no text, no places.
    struct glimpse {
        std::uint64_t id = 0, parent_id = 0;
        bool is_group = false;
        std::chrono::milliseconds age{0};
        std::uint32_t changes = 0;   // of its state, so far
    };

    std::vector<task_info> all() {
        std::vector<task_info> found;
        each([&](task_info& info) { found.push_back(std::move(info)); });
        return found;
    }

    /// Calls `f(task_info&)` for each record that is alive, in the order of their indices.
    template <class F>
    void each(F f) {
        each_record([&](const task_record& record) {
            if (task_info info; read_any(record, info)) f(info);
        });
    }

    /// Calls `f(const glimpse&)` for the same. Cost: no allocation, and a tenth of the time.
    template <class F>
    void each_glimpse(F f) {
        each_record([&](const task_record& record) {
            glimpse seen;
            for (int tries = 8; tries > 0 && alive(record); --tries)
                if (look(record, seen)) return f(std::as_const(seen));
        });
    }

    /// Reads the life with this number. False: it has ended.
    bool find(std::uint64_t id, task_info& info) {
        const task_record* const record = record_at(static_cast<std::uint32_t>(id));
        return record != nullptr && record->id(record->gen_.load(std::memory_order_acquire)) == id &&
               read_any(*record, info) && info.id == id;
    }

private:
    template <class F>
    void each_record(F f) {
        for (std::size_t number = 0; number < chunks_.size(); ++number)
            for (const task_record& record : *chunks_[number]) f(record);
    }

    static bool alive(const task_record& record) noexcept {
        return (record.gen_.load(std::memory_order_acquire) & 1) != 0;
    }

    /// Tries a few times, at last without the places: a task that changes so fast is running. False: no life.
    bool read_any(const task_record& record, task_info& info) {
        for (int tries = 8; tries > 0 && alive(record); --tries) {
            info = task_info();
            if (read(record, tries > 4, info)) return true;
        }
        return false;
    }

    /// False: the record changed meanwhile.
    bool look(const task_record& record, glimpse& seen) {
        constexpr auto acquire = std::memory_order_acquire;
        const std::uint32_t gen = record.gen_.load(acquire);
        const std::uint32_t elapsed = now_ms_ - record.since_.load(acquire);
        const std::uint32_t state = record.state_.load(acquire);
        seen = {record.id(gen), id_at(record.parent_.load(acquire)), (state & task_record::group_bit) != 0,
                age_of(elapsed), state / task_record::step};
        return (gen & 1) != 0 && record.gen_.load(acquire) == gen;   // R1
    }

    static std::chrono::milliseconds age_of(std::uint32_t elapsed) noexcept {
        return std::chrono::milliseconds(elapsed > 0xFFFF'0000U ? 0 : elapsed);   // opened by a later clock reading
    }

    /// False: the record changed meanwhile, and `info` is worth nothing.
    bool read(const task_record& record, bool with_places, task_info& info) {
        using activity = task_info::activity;
        constexpr auto acquire = std::memory_order_acquire;
        const std::uint32_t gen = record.gen_.load(acquire);
        const std::uint32_t state = record.state_.load(acquire);
        const std::uintptr_t name = record.name_.load(acquire);
        const std::uintptr_t spawned = record.spawned_.load(acquire);
        const std::uint32_t parent = record.parent_.load(acquire);
        const std::uint32_t elapsed = now_ms_ - record.since_.load(acquire);
        const std::uintptr_t places[] = {record.outermost_.load(acquire), record.middle_.load(acquire),
                                         record.innermost_.load(acquire)};
        const std::uintptr_t what = record.what_.load(acquire);
        const auto said = activity(state & task_record::activity_bits);
        const bool waits = with_places && said == activity::suspended;
        const auto unchanged = [&] {
            return (gen & 1) != 0 &&
                   (waits ? record.state_.load(acquire) == state : record.name_.load(acquire) == name) &&
                   record.gen_.load(acquire) == gen;
        };
        if (!unchanged()) return false;   // else: pointers point to what they should, and may be followed

        info.id = record.id(gen);
        info.parent_id = id_at(parent);
        info.is_group = (state & task_record::group_bit) != 0;
        info.spawned_at = std::bit_cast<std::source_location>(spawned);
        info.age = age_of(elapsed);
        info.state = said == activity::suspended && !waits ? activity::running : said;
        if ((name & ~task_record::renames) != 0) info.name = task_record::text(name)->read();
        if (waits) {
            info.frames_elided = (state & task_record::elided_bit) != 0;
            for (const std::uintptr_t place : places) {
                if (place != 0) info.waits.push_back(std::bit_cast<std::source_location>(place));
            }
            info.waits_for = (state & wait_label::in_slab) != 0 ? label_text(*task_record::text(what))
                                                                : reinterpret_cast<const char*>(what);
        }
        return unchanged();   // else: a text or the parent was another's already
    }

    static std::string label_text(const slab_text& label) {
        std::string text = label.read();
        if (const std::size_t holders = label.figure(); holders != 0) text += ", held by " + std::to_string(holders);
        return text;
    }

    /// The parent outlives the child, so its generation holds as long as the child's does.
    std::uint64_t id_at(std::uint32_t index) {
        const task_record* const parent = record_at(index);
        const std::uint32_t gen = parent == nullptr ? 0 : parent->gen_.load(std::memory_order_acquire);
        return (gen & 1) != 0 ? parent->id(gen) : 0;
    }

    /// Null: there is no such record yet.
    const task_record* record_at(std::uint32_t index) {
        const std::uint32_t number = index / chunk::slots;
        if (number >= chunks_.size()) find_chunks();
        return number < chunks_.size() ? chunks_[number]->find(index) : nullptr;
    }

    void find_chunks() {
        const chunk* newest = record_slab<task_record>::newest();
        chunks_.resize(newest == nullptr ? 0 : newest->number + std::size_t{1});
        for (; newest != nullptr; newest = newest->older) chunks_[newest->number] = newest;
    }

    std::uint32_t now_ms_;
    std::vector<const chunk*> chunks_;   // by number
};

inline std::vector<task_info> live_tasks(std::uint32_t now_ms) { return record_reader(now_ms).all(); }

#else

class task_record {
public:
    static task_record* open(bool, std::string_view, std::source_location, task_record*, std::uint32_t) noexcept {
        return nullptr;
    }
    std::uint64_t id() const noexcept { return 0; }
    void close() noexcept {}
    void rename(std::string_view) noexcept {}
    void suspended(std::source_location, std::source_location, std::source_location, bool,
                   const wait_label&) noexcept {}
    void running() noexcept {}
};

class record_reader {
public:
    struct glimpse {
        std::uint64_t id = 0, parent_id = 0;
        bool is_group = false;
        std::chrono::milliseconds age{0};
        std::uint32_t changes = 0;
    };
    explicit record_reader(std::uint32_t) {}
    template <class F>
    void each(F) {}
    template <class F>
    void each_glimpse(F) {}
    bool find(std::uint64_t, task_info&) { return false; }
};

inline std::vector<task_info> live_tasks(std::uint32_t) { return {}; }

#endif

/// Texts of sites, each made by `make`, which is most of the work of a dump; with slots, the last few are kept.
class site_texts {
public:
    using function = std::string (*)(const std::source_location&);

    explicit site_texts(function make, std::size_t slots) : make_(make), slots_(slots + 1) {}

    const std::string& operator()(const std::source_location& at) {
        const std::size_t mixed = std::bit_cast<std::uintptr_t>(at.function_name()) / 8 + 7 * std::size_t{at.line()};
        slot& s = slots_[mixed % slots_.size()];
        const bool same = s.line == at.line() && s.column == at.column() && s.file == at.file_name() &&
                          s.function_name == at.function_name();
        if (!same || slots_.size() == 1)
            s = {at.file_name(), at.function_name(), at.line(), at.column(), make_(at)};
        return s.text;
    }

private:
    struct slot {
        const char* file = nullptr;  // static data: the pointers tell
        const char* function_name = nullptr;
        std::uint_least32_t line = 0, column = 0;
        std::string text;
    };
    function make_;
    std::vector<slot> slots_;
};

/// Without what could forge a line.
inline std::string on_one_line(std::string text) {
    for (char& c : text)
        if (c >= 0 && c < ' ') c = '?';
    return text;
}

/// "7", or "7.2" for another life than the first.
inline std::string id_text(std::uint64_t id) {
    std::string text = std::to_string(id & 0xFFFF'FFFFU);
    if (id >> 32 != 0) text += '.' + std::to_string(id >> 32);
    return text;
}

/// Who it is: `#7.2 group "connections"`.
inline std::string label_text(const task_info& task) {
    std::string text = '#' + id_text(task.id);
    if (task.is_group) text += " group";
    if (!task.name.empty()) text += " \"" + on_one_line(task.name) + '"';
    return text;
}

/// Where it is: the rest of the line that says where it was spawned, and the lines of its waits.
inline std::string places_text(const task_info& task, site_texts& sites) {
    std::string text = task.spawned_at.line() != 0 ? "spawned at " + sites(task.spawned_at) : "a branch";
    const std::string what = on_one_line(task.waits_for);
    text += task.state == task_info::activity::running ? "\n    running\n" : "\n";
    if (task.waits.empty() && !what.empty()) text += "    waits for " + what + '\n';
    for (std::size_t i = 0; i < task.waits.size(); ++i) {
        (text += "    waits at ") += sites(task.waits[i]);
        if (i + 1 == task.waits.size() && !what.empty()) text += "   " + what;
        text += i == 0 && task.frames_elided ? "\n    ...\n" : "\n";
    }
    return text;
}

inline std::string describe(const task_info& task, site_texts& sites) {
    return label_text(task) + "  alive " + std::to_string(task.age.count()) + " ms  " + places_text(task, sites);
}

}  // namespace detail

inline std::vector<task_info> live_tasks() { return detail::live_tasks(detail::to_record_ms(clock::now())); }

inline std::string describe(const task_info& task) {
    detail::site_texts sites(&detail::site_text, 0);
    return detail::describe(task, sites);
}

}  // namespace cordon::inline CORDON_ABI

#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility pop
#endif
