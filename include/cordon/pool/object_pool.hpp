// SPDX-License-Identifier: MIT
#pragma once

// Objects that are used again instead of made again: buffers, parsers, whatever has memory of its own that is worth
// keeping.
//
//     object_pool<std::string> buffers{{.reset = [](std::string& s) { s.clear(); }}};
//     auto text = buffers.acquire();                       // never waits
//     text->append("hello");
//                                                          // back in the pool with `text`, cleared
//
// For a few scarce things that tasks wait for, such as connections, see resource_pool.hpp.

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/pool/detail/kept_function.hpp>
#include <cordon/pool/detail/object_depot.hpp>
#include <cordon/pool/detail/poison.hpp>
#include <cordon/pool/detail/thread_spares.hpp>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {

template <class T>
struct object_pool_options {
    std::string_view name = {};
    detail::kept_function<T()> make = {};               ///< a new object; without one, `T()`
    detail::kept_function<void(T&)> reset = {};         ///< before an object is kept; one that throws is not kept
    detail::kept_function<bool(const T&)> keep = {};    ///< after that: false destroys one that has grown too large
    std::uint32_t max_spare_per_thread = 64;            ///< 2 to a million; half of it travels to other threads at once
    std::size_t max_spare_shared = 4096;                ///< beyond what threads keep; 0, or half of that and more
    std::size_t min_spare_shared = 0;                   ///< that aging leaves
    clock::duration epoch = std::chrono::seconds(1);    ///< what nobody needed for so long is destroyed; more than 0
    executor_ref runs_on = {};                          ///< ages what is spare by its timers, without further calls
};

/// Spare objects, a few kept by each thread and the surplus shared. As many as are wanted at one time are made.
/// Threads:       all members from any; an object may go back on another thread than it was got on. A thread that ends
///                gives what it kept to the others
/// Order:         the object that was given back last is got first; what was done to it happens before it is got again.
///                What its last user left in it is there unless `reset` clears it, or is gone: a spare object may be
///                destroyed at any time
/// Lifetime:      destroyed while an object is out it says so and terminates. Threads that have used it may live on;
///                `runs_on` outlives it.
///                Objects are destroyed by whichever thread finds that they are not needed, or by a timer of `runs_on`:
///                their destructors do not block. Where a library that is loaded privately brings its own copy of this
///                one, its threads share what is spare and keep none
/// Cost:          no atomic exchange, fence, lock or allocation for an object that its thread has; a lock for one in
///                `max_spare_per_thread / 2` otherwise, and `make` where nothing is spare. A pointer for each spare
///                one. Aging looks at each thread that has used the pool, once in an epoch; for idle ones it has each
///                running thread of the process execute a fence
/// Source:        Bonwick and Adams, "Magazines and Vmem", 2001, for the two of a thread and the depot; Go's
///                sync.Pool for aging, which frees what lay unused through an epoch: after one at the earliest, two at
///                the latest. What a thread keeps is shared first, after an epoch without a use by that thread, and so
///                goes after three at the latest; where there is no membarrier(2), when the thread ends
template <class T>
class object_pool {
    static_assert(std::is_object_v<T> && !std::is_const_v<T>, "an object_pool keeps objects that can be changed");

public:
    class lease;

    static constexpr std::string_view kind = "object_pool";

    struct snapshot {
        std::size_t in_use = 0;
        std::size_t spare = 0;           ///< all of them
        std::size_t spare_shared = 0;    ///< those that no thread keeps for itself
        std::uint64_t made = 0;          ///< since the pool was made
        std::uint64_t destroyed = 0;
    };

    /// Errors:        `std::invalid_argument` if an option is out of its range, or there is no `make` and no `T()`
    explicit object_pool(object_pool_options<T> options = {});
    object_pool(const object_pool&) = delete;
    object_pool& operator=(const object_pool&) = delete;
    ~object_pool();

    /// A spare object, or a new one. Never waits.
    /// Errors:        what `make` throws, and `std::bad_alloc`
    [[nodiscard]] lease acquire() {
        if (void* const spare = detail::take_spare(*home_, depot_.get(), id_)) [[likely]] {
            node* const n = static_cast<node*>(spare);
            detail::expose(std::addressof(n->value), sizeof n->value);
            return lease(n, this);
        }
        return lease(make_node(), this);
    }

    /// Destroys what was shared and needed by nobody for an epoch, and shares what idle threads keep. For a loop of
    /// yours; with `runs_on` nobody needs to.
    /// Returns:       whether more is spare than aging leaves, or may be soon: call it again an epoch later
    bool age() {
        depot_->age(clock::now());
        return depot_->ages();
    }
    /// Destroys all that is shared, and what this thread keeps.
    void trim() noexcept {
        detail::drop_own_spares(*depot_);
        while (detail::magazine* const m = depot_->take()) depot_->destroy_all(m);
    }

    /// Consistent while nobody uses the pool; else each thread's part is of a moment of its own.
    [[nodiscard]] snapshot stats() const noexcept;
    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.counter("made", now.made, "Objects that were made.");
        sink.counter("destroyed", now.destroyed, "Objects that were destroyed.");
        sink.gauge("in_use", static_cast<double>(now.in_use), "Objects that somebody has.");
        sink.gauge("spare", static_cast<double>(now.spare), "Objects that nobody has.");
        sink.gauge("spare_shared", static_cast<double>(now.spare_shared), "Those that no thread keeps for itself.");
    }

private:
    /// So that what `make` gives need not be moved.
    struct node {
        template <class Make>
        explicit node(const Make& make) : value(make()) {}
        T value;
    };

    static void destroy(void* spare) noexcept {
        node* const n = static_cast<node*>(spare);
        detail::expose(std::addressof(n->value), sizeof n->value);
        delete n;
    }

    CORDON_NOINLINE node* make_node() {
        node* made = nullptr;
        if (make_) made = new node(make_);
        else if constexpr (std::default_initializable<T>) made = new node([] { return T(); });
        depot_->count_made();
        return made;
    }
    void give_back(node* n) noexcept {
        if (prepares_) prepare_and_keep(n);
        else keep(n);
    }
    /// Apart, so that the other case is small enough for compilers to put it in place.
    CORDON_NOINLINE void prepare_and_keep(node* n) noexcept {
        if (prepare(n->value)) [[likely]] keep(n);
        else drop(n);
    }
    void keep(node* n) noexcept {
        detail::hide(std::addressof(n->value), sizeof n->value);
        detail::keep_spare(*home_, depot_.get(), id_, n);
    }
    CORDON_NOINLINE void drop(node* n) noexcept {
        depot_->destroy_one(n);
    }
    /// Returns:       whether to keep it
    bool prepare(T& value) const noexcept {
#if defined(__cpp_exceptions)
        try {
#endif
            if (reset_) reset_(value);
            return !keep_ || keep_(value);
#if defined(__cpp_exceptions)
        } catch (...) {
            return false;
        }
#endif
    }
    static detail::object_depot::terms checked(const object_pool_options<T>& options);

    detail::pool_registry* const home_ = &detail::pools_alive;
    const std::unique_ptr<detail::object_depot> depot_;
    std::uint32_t id_ = 0;  ///< the depot's
    const bool prepares_;
    const detail::kept_function<T()> make_;
    const detail::kept_function<void(T&)> reset_;
    const detail::kept_function<bool(const T&)> keep_;
    const std::string name_;
};

/// Has an object, and gives it back when it dies.
/// Lifetime:      the pool outlives it
template <class T>
class [[nodiscard]] object_pool<T>::lease {
public:
    lease() noexcept = default;
    lease(lease&& other) noexcept : node_(std::exchange(other.node_, nullptr)), pool_(other.pool_) {}
    lease& operator=(lease&& other) noexcept {
        if (this != &other) {
            release();
            node_ = std::exchange(other.node_, nullptr);
            pool_ = other.pool_;
        }
        return *this;
    }
    ~lease() { release(); }

    /// Whether it has an object; so all but these three require.
    [[nodiscard]] explicit operator bool() const noexcept { return node_ != nullptr; }
    /// Gives it back early; does nothing if it is empty.
    void release() noexcept {
        if (node_ != nullptr) pool_->give_back(std::exchange(node_, nullptr));
    }
    /// Destroys the object instead; does nothing if it is empty.
    void discard() noexcept {
        if (node_ != nullptr) pool_->drop(std::exchange(node_, nullptr));
    }

    [[nodiscard]] T& operator*() const noexcept { return node_->value; }
    [[nodiscard]] T* operator->() const noexcept { return std::addressof(node_->value); }

private:
    friend class object_pool;
    lease(node* n, object_pool* of) noexcept : node_(n), pool_(of) {}

    node* node_ = nullptr;
    object_pool* pool_ = nullptr;
};

// --- below: bodies ----------------------------------------------------------------------------------------------

template <class T>
detail::object_depot::terms object_pool<T>::checked(const object_pool_options<T>& options) {
    if (!options.make && !std::default_initializable<T>)
        detail::raise(std::invalid_argument("object_pool: make is empty, and the objects have no default constructor"),
                      "an object_pool's make is empty, and the objects have no default constructor");
    const std::uint32_t magazine = detail::checked_range("object_pool", "max_spare_per_thread",
                                                         options.max_spare_per_thread, 2, 1'000'000) / 2;
    detail::check_option(options.max_spare_shared == 0 || options.max_spare_shared >= magazine, "object_pool",
                         "max_spare_shared", options.max_spare_shared,
                         "is 0, or half of max_spare_per_thread and more, since so many are shared at a time");
    static_cast<void>(detail::checked_range("object_pool", "min_spare_shared", options.min_spare_shared, 0,
                                            options.max_spare_shared));
    detail::check_option(options.epoch > clock::duration::zero(), "object_pool", "epoch", options.epoch,
                         "is more than 0");
    return {magazine, options.max_spare_shared, options.min_spare_shared, options.epoch,
            options.runs_on, &object_pool::destroy};
}

template <class T>
object_pool<T>::object_pool(object_pool_options<T> options)
    : depot_(std::make_unique<detail::object_depot>(checked(options))), prepares_(options.reset || options.keep),
      make_(std::move(options.make)), reset_(std::move(options.reset)), keep_(std::move(options.keep)),
      name_(options.name) {
    detail::enter_pool(*home_, *depot_);
    id_ = depot_->id;
}

template <class T>
object_pool<T>::~object_pool() {
    detail::leave_pool(*home_, *depot_);
    while (detail::magazine* const m = depot_->take()) depot_->destroy_all(m);
    const std::uint64_t out = depot_->made() - depot_->destroyed();
    if (out != 0) [[unlikely]]
        detail::fail("object_pool \"" + name_ + "\" destroyed while " + std::to_string(out) +
                     " of its objects are in use");
}

template <class T>
typename object_pool<T>::snapshot object_pool<T>::stats() const noexcept {
    snapshot s;
    s.destroyed = depot_->destroyed();  // first, so that the difference is never negative
    const detail::spare_objects spare = detail::count_spares(*home_, *depot_);
    s.spare_shared = spare.shared;
    s.spare = spare.shared + spare.of_threads;
    s.made = depot_->made();
    const auto alive = static_cast<std::size_t>(s.made - s.destroyed);
    s.in_use = alive > s.spare ? alive - s.spare : 0;
    return s;
}

}  // namespace cordon::inline CORDON_ABI
