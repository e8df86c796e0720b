// SPDX-License-Identifier: MIT
#pragma once

// A few things that are costly to make and can be used by one at a time: connections.
//
//     resource_pool<connection> db{8, connect, {.name = "db", .max_idle_time = 10min}};
//     auto mine = co_await db.acquire();                   // waits its turn, or makes one
//     row r = co_await mine->query("select 1");            // back in the pool with `mine`
//
// A lease whose task is stopped in the middle of something takes its resource with it: the reply to half a request
// would be read by the next. For objects that nobody has to wait for see object_pool.hpp.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/blocking_scope.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/detail/root.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/task.hpp>
#include <cordon/pool/detail/kept_function.hpp>
#include <cordon/pool/detail/resource_core.hpp>
#include <cordon/pool/holder.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/with.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace detail {

template <class F, class R, class... Args>
concept awaits_to = std::invocable<F&, Args...> && awaitable<std::invoke_result_t<F&, Args...>> &&
                    std::convertible_to<await_result_t<std::invoke_result_t<F&, Args...>>, R>;

template <class R, class F, class... Args>
task<R> await_call(F& f, Args&... args) {
    co_return co_await f(args...);
}

/// A callable that answers at once, or by something to await.
template <class T>
class resource_check {
public:
    resource_check() = default;
    template <class F>
        requires(!std::same_as<std::decay_t<F>, resource_check> &&
                 (std::is_invocable_r_v<bool, std::decay_t<F>&, T&> || awaits_to<std::decay_t<F>, bool, T&>))
    resource_check(F&& f) {
        if constexpr (std::is_invocable_r_v<bool, std::decay_t<F>&, T&>) {
            at_once = std::forward<F>(f);
        } else {
            awaited = [kept = std::decay_t<F>(std::forward<F>(f))](T& t) mutable {
                return await_call<bool>(kept, t);
            };
        }
    }
    kept_function<bool(T&)> at_once;
    kept_function<task<bool>(T&)> awaited;
};

}  // namespace detail

template <class T>
struct resource_pool_options {
    static constexpr clock::duration unlimited = (clock::duration::max)();
    static constexpr std::size_t as_many_as_fit = static_cast<std::size_t>(-1);

    std::string_view name = {};
    clock::duration max_idle_time = unlimited;                     ///< what nobody borrowed for so long goes
    clock::duration max_lifetime = unlimited;                      ///< up to 2.5 % shorter, each a little different
    clock::duration held_too_long = unlimited;                     ///< a lease that is out so long is reported, once
    detail::resource_check<T> usable = {};                         ///< asked of what was idle: `bool(T&)`, or a task
    clock::duration trusted_for = std::chrono::milliseconds(500);  ///< after a use; what answers at once is asked still
    clock::duration max_check_time = std::chrono::seconds(5);      ///< for a task: longer means not usable
    clock::duration max_create_time = std::chrono::seconds(30);    ///< longer is a `timeout_error`
    std::size_t max_creating = as_many_as_fit;                     ///< at the same time; 1 or more
    executor_ref runs_on = {};                                     ///< makes and reaps, see `resource_pool`
    std::size_t min_idle = 0;                                      ///< kept ready; needs `runs_on`
    detail::kept_function<void(const pool_holder&)> on_held_too_long = &print_holder;  ///< called by timers: no waiting
    std::uint64_t seed = 0;                                        ///< of the lifetimes' differences; 0: a new one
};

/// At most so many resources, made when they are wanted, lent to one at a time.
///
/// Without `runs_on` who acquires makes what is missing: under its own stop and deadline, with its values; a creation
/// that fails is its error, and one that is stopped lets the next make another. What is too old goes when the pool is
/// used. With `runs_on` the pool makes them there, for whoever has waited longest when one is ready: who waits takes
/// one that comes back meanwhile, and what was made for nobody is kept. It keeps `min_idle` ready, and lets old ones go
/// by a timer, not later than a quarter of their limit after it.
/// Threads:       all members from any; a lease may die on another thread than it was got on
/// Order:         first come, first served; what comes back goes to who has waited longest, and nobody who comes passes
///                him. Of what is idle the one that was used last is lent first. A use happens before the next
/// Lifetime:      destroyed with leases out, creations or waiters it names them and terminates: `co_await close()`
///                first. `runs_on` outlives the close, the executors of who acquires outlive the leases. Resources are
///                destroyed by who gives them back, or by a timer, before another takes their place: their destructors
///                do not block
/// Cost:          a spin lock for a few instructions, a reading of the clock and, for reports, a timer, for each lease;
///                one allocation for each resource. While something idle is good, no coroutine and no allocation
/// Source:        HikariCP for the spread lifetimes and for trusting what was used just now; deadpool and bb8 for what
///                becomes of stopped waiters and failed creations
template <class T>
class resource_pool final : private detail::resource_core {
    static_assert(std::is_object_v<T> && std::move_constructible<T>, "a resource_pool keeps objects that can be moved");
    class acquire_operation;

public:
    class [[nodiscard]] lease;

    static constexpr std::string_view kind = "resource_pool";

    struct snapshot {
        std::size_t limit = 0;
        std::size_t size = 0;                 ///< resources that are there, or being made, checked or destroyed
        std::size_t idle = 0;
        std::size_t in_use = 0;
        std::size_t creating = 0;
        std::size_t waiting = 0;
        bool closed = false;
        std::uint64_t acquired = 0;           ///< leases since the pool was made
        std::uint64_t waited = 0;             ///< acquisitions that found nothing good that was idle, each once
        std::uint64_t gave_up = 0;            ///< of those, stopped or timed out while they waited for their turn
        std::uint64_t created = 0;
        std::uint64_t creations_failed = 0;   ///< or stopped
        std::uint64_t report_errors = 0;      ///< what `on_held_too_long` threw, which was dropped
        std::uint64_t closed_broken = 0;      ///< destroyed since they were discarded, or stopped while in use
        std::uint64_t closed_unusable = 0;    ///< ... since `usable` said so
        std::uint64_t closed_old = 0;         ///< ... for their lifetime
        std::uint64_t closed_idle = 0;        ///< ... since nobody wanted them
        std::uint64_t closed_surplus = 0;     ///< ... by `close`, `resize`, `retain` or `invalidate`
    };

    /// `create()` gives something to await, which makes a T. Of a size of 0 nothing is lent: who comes waits for a
    /// `resize`, a stop or a deadline.
    /// Errors:        `std::invalid_argument` if an option is out of its range
    template <class F>
        requires detail::awaits_to<std::decay_t<F>, T>
    resource_pool(std::size_t max_size, F&& create, resource_pool_options<T> options = {});
    ~resource_pool();

    /// Borrows a resource: one that is idle and usable, one that comes back, or a new one.
    /// Errors:        refused as `closed`; what its creation threw, if it failed; `std::bad_alloc`
    /// Cancellation:  a cancel point where it waits for its turn, a check or a creation; stopped, it has taken nothing,
    ///                and what it was about to get goes to the next. One that is idle and usable is lent even to a task
    ///                that is to stop
    [[nodiscard]] acquire_operation acquire(std::source_location where = std::source_location::current()) noexcept {
        return acquire_operation(*this, where);
    }
    /// The same on a thread. What there is to run, a check or a creation, runs on `runs_on`.
    /// Errors:        `std::logic_error` if the pool has none
    [[nodiscard]] outcome<lease> acquire_blocking(const blocking_scope& heeds = {},
                                                  std::source_location where = std::source_location::current());
    /// Borrows one that is idle and usable, if nobody waits. One that only a task could tell usable is not lent, unless
    /// it is trusted.
    /// Returns:       an empty lease otherwise
    [[nodiscard]] lease try_acquire(std::source_location where = std::source_location::current()) noexcept;

    /// Another limit. More lets those who wait go on; less lets go what is idle at once, and the rest as it comes back.
    void resize(std::size_t max_size) noexcept { resource_core::resize(max_size); }
    /// Keeps of what is idle those for which `keep(t)` is true.
    /// Returns:       how many went
    /// Errors:        what `keep` throws: that one and those not yet asked stay. Those that stay are in their order
    /// Cost:          for each that is idle a walk past the others, under the lock
    template <std::predicate<T&> F>
    std::size_t retain(F keep);
    /// Lends none of the present resources any more: those that are idle go at once, the others as they come back or
    /// their check ends. What is being made now counts as present, since it may have been begun with what is old.
    void invalidate() noexcept { resource_core::invalidate(); }
    /// Lets go what is too old, or idle for too long. With `runs_on` nobody needs to call it.
    void reap() noexcept { resource_core::reap(); }

    /// Refuses all who wait and all who come, lets go what is idle, stops creations of the pool's own, and waits until
    /// everything else has come back, too, and those who waited have gone on. If nobody comes it may then be destroyed.
    /// Cancellation:  a cancel point; stopped, it reports each lease that is still out by `on_held_too_long`. The pool
    ///                stays closed; close it again to wait again
    [[nodiscard]] auto close() noexcept { return close_operation(*this); }

    /// Who has something now.
    [[nodiscard]] std::vector<pool_holder> holders() const { return resource_core::holders(); }

    /// All figures at one time.
    [[nodiscard]] snapshot stats() const noexcept;
    [[nodiscard]] std::string_view name() const noexcept { return resource_core::name(); }
    template <class Sink>
    void report(Sink& sink) const;

private:
    struct entry final : detail::pooled {
        entry(resource_pool& p, std::uint64_t made_in, T&& v) : pooled(p, made_in), value(std::move(v)) {}
        T value;
    };
    class creation;
    enum class quality : std::uint8_t { good, bad, to_be_asked };

    static T& value_of(detail::pooled& p) noexcept { return static_cast<entry&>(p).value; }
    static detail::resource_core::terms checked(std::size_t max_size, const resource_pool_options<T>& options);

    /// What there is for who comes: lent to him, or in the place.
    enum class found : std::uint8_t { nothing, is_closed, lent, to_be_asked, room };
    [[nodiscard]] found find(detail::place& p, const detail::borrower& by, clock::time_point now, entry*& to) noexcept;
    /// What was just made is not asked whether it is usable: another like it would be made for it, and so on.
    [[nodiscard]] quality judge(const detail::place& p, clock::time_point now, detail::gone& why,
                                bool just_made = false) noexcept;
    static task<bool> ask(resource_pool* pool, detail::place* p);
    static task<outcome<lease>> acquire_slowly(resource_pool* pool, detail::place p, detail::borrower by);
    [[nodiscard]] auto making(const std::source_location& where) {
        return with(create_(), within(max_create_time_, where));
    }
    [[nodiscard]] std::unique_ptr<entry> entry_of(outcome<T> made, std::uint64_t generation,
                                                  std::exception_ptr& error) noexcept;

    void destroy(detail::pooled& p) noexcept override { delete static_cast<entry*>(&p); }
    std::exception_ptr create() noexcept override;
    void stop_creating() noexcept override;

    const detail::kept_function<task<T>()> create_;
    const detail::resource_check<T> usable_;
    const clock::duration trusted_for_, max_check_time_, max_create_time_;
    std::optional<cancel_scope> creations_;  ///< if there is an executor
};

/// Has a resource, and gives it back when it dies. If it dies in a frame that a stop or an exception ends, as a local,
/// a parameter or a capture, it takes the resource with it: what was begun with it may not be at its end. Not if it was
/// not touched since it was got, or since `mark_clean`. Used in a destructor that runs for a stop or an exception, it
/// looks for others than that. It does not see a stop whose outcome is looked at in its own frame, as by
/// `co_await as_outcome(with_timeout(5ms, mine->query()))`: call `discard()` then, or let `usable` know.
/// Lifetime:      the pool outlives it. References to the resource do not
template <class T>
class resource_pool<T>::lease {
public:
    lease() noexcept = default;
    lease(lease&& other) noexcept : entry_(std::exchange(other.entry_, nullptr)) { take_over(other); }
    lease& operator=(lease&& other) noexcept {
        lease old(std::move(*this));
        entry_ = std::exchange(other.entry_, nullptr);
        take_over(other);
        return *this;
    }
    ~lease() {
        if (entry_ == nullptr) return;
        if (use_ != use::none && interrupted()) discard();
        else release();
    }

    /// Whether it has a resource; so all others require but `release` and `discard`, which do nothing if it is empty.
    [[nodiscard]] explicit operator bool() const noexcept { return entry_ != nullptr; }

    [[nodiscard]] T& operator*() const noexcept {
        if (use_ != use::begun) begin_use();
        return entry_->value;
    }
    [[nodiscard]] T* operator->() const noexcept { return std::addressof(**this); }

    /// Says that nothing is under way: until it is touched again, a stop or an exception gives the resource back.
    void mark_clean() noexcept { use_ = use::none; }
    /// Gives the resource back early.
    void release() noexcept {
        if (entry_ != nullptr) core().give_back(*std::exchange(entry_, nullptr), std::nullopt);
    }
    /// Destroys the resource, which makes room for a new one.
    void discard() noexcept {
        if (entry_ != nullptr) core().give_back(*std::exchange(entry_, nullptr), detail::gone::broken);
    }
    /// Takes the resource out of the pool, which makes room for a new one.
    [[nodiscard]] T take() {
        T value = std::move(entry_->value);
        const std::unique_ptr<entry> emptied(std::exchange(entry_, nullptr));
        emptied->pool->let_go(*emptied);
        return value;
    }

private:
    friend class resource_pool;
    explicit lease(entry* e) noexcept : entry_(e), known_(detail::interruptions_here()) {}
    detail::resource_core& core() const noexcept { return *entry_->pool; }
    void begin_use() const noexcept {
        use_ = use::begun;
        if (known_.any()) [[unlikely]] begin_use_amid();
    }
    CORDON_NOINLINE void begin_use_amid() const noexcept {
        const detail::interruptions here = detail::interruptions_here();
        known_ = {std::min(known_.exceptions, here.exceptions), std::min(known_.frames, here.frames)};
        if (known_.any()) use_ = use::begun_amid;
    }
    void take_over(const lease& other) noexcept {
        use_ = other.use_;
        known_ = other.known_;
        if (use_ == use::begun_amid) [[unlikely]] forget_known();
    }
    /// Where a use that has begun goes on, nothing is known: in another task, perhaps.
    void forget_known() noexcept {
        use_ = use::begun;
        known_ = {};
    }
    [[nodiscard]] bool interrupted() const noexcept {
        const detail::interruptions here = detail::interruptions_here();
        return here.any() && (here.exceptions > known_.exceptions || here.frames > known_.frames);
    }

    enum class use : unsigned char { none, begun, begun_amid };  ///< amid: and something is known

    entry* entry_ = nullptr;
    mutable use use_ = use::none;
    mutable detail::interruptions known_;  ///< that were there both when it was got and whenever it was touched
};

}  // namespace cordon::inline CORDON_ABI

#include <cordon/pool/detail/resource_pool_bodies.hpp>
