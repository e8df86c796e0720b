// SPDX-License-Identifier: MIT
#pragma once

// Asks running work to stop: a source asks, its tokens are asked, its callbacks run when it happens. Nothing allocates.
//
//     cordon::inplace_stop_source source;
//     cordon::inplace_stop_callback wake(source.get_token(), [&]() noexcept { bell.ring(); });
//     source.request_stop();  // rings before it returns; source.reason() tells who asked, and why
//
// The interface is that of C++26's std::inplace_stop_source. Added are a reason, of which the first wins, and sources
// that are children of others. At the edge to std::stop_token see <cordon/core/std_stop_token.hpp>.
//
// Long, because the invariants of the source bind every function from there to the end: they are read as one. Users
// need the first half.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/spin_lock.hpp>

#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <source_location>
#include <thread>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {

class inplace_stop_source;
template <class F>
class inplace_stop_callback;

namespace detail {
class stop_node;
class stop_link;
class stop_walk;
[[nodiscard]] std::size_t attached(const inplace_stop_source& source) noexcept;
}  // namespace detail

/// Says what kind of event stopped a source.
enum class stop_kind : std::uint8_t {
    none,       ///< nothing did: not stopped
    requested,  ///< someone asked
    deadline,   ///< a deadline passed
    failure,    ///< a sibling failed
    closed,     ///< the scope has ended
};

/// Says why a source was stopped. Trivially copyable.
struct stop_reason {
    stop_kind kind = stop_kind::none;
    int code = 0;                  ///< the requester's own number, 0 if it gave none
    std::source_location where{};  ///< where the stop was requested; line 0 if nobody said

    [[nodiscard]] friend bool operator==(const stop_reason& a, const stop_reason& b) noexcept {
        return a.kind == b.kind && a.code == b.code && a.where.line() == b.where.line() &&
               a.where.column() == b.where.column() && a.where.file_name() == b.where.file_name();
    }
};

/// Asks whether a source was stopped: one pointer, copied freely. A default one belongs to no source and never stops.
/// Lifetime:      the source outlives every use but comparing, copying and destroying
class inplace_stop_token {
public:
    template <class F>
    using callback_type = inplace_stop_callback<F>;

    constexpr inplace_stop_token() noexcept = default;

    [[nodiscard]] bool stop_requested() const noexcept;
    /// Returns:       whether there is a source that might ask, or has asked
    [[nodiscard]] constexpr bool stop_possible() const noexcept { return source_ != nullptr; }
    /// Returns:       why the source was stopped; kind none while it is not
    [[nodiscard]] stop_reason reason() const noexcept;

    constexpr void swap(inplace_stop_token& other) noexcept { std::swap(source_, other.source_); }
    [[nodiscard]] friend constexpr bool operator==(inplace_stop_token, inplace_stop_token) noexcept = default;

private:
    friend class inplace_stop_source;
    friend class detail::stop_node;
    friend class detail::stop_link;
    constexpr explicit inplace_stop_token(const inplace_stop_source* source) noexcept : source_(source) {}

    const inplace_stop_source* source_ = nullptr;
};

/// Asks its tokens and callbacks, and the sources that are its children, to stop: once, and for good.
/// Threads:       every member but the destructor may be called from any thread, from callbacks too
/// Lifetime:      outlives the use of its tokens, its callbacks and its links, or the destructor terminates with a
///                message. A request that has stopped this source and still runs on another thread is waited for; a
///                callback of this source may destroy it.
/// Cost:          48 bytes; no allocation; a spin lock that is never held while foreign code runs
class inplace_stop_source {
public:
    constexpr inplace_stop_source() noexcept : links_(nullptr) {}
    inplace_stop_source(const inplace_stop_source&) = delete;
    inplace_stop_source& operator=(const inplace_stop_source&) = delete;
    ~inplace_stop_source();

    [[nodiscard]] constexpr inplace_stop_token get_token() const noexcept { return inplace_stop_token(this); }
    [[nodiscard]] static constexpr bool stop_possible() noexcept { return true; }
    /// Returns:       whether this source was stopped, by its own request or by a parent's that has reached it
    /// Order:         true makes visible all that the requester wrote before it asked
    /// Cost:          one load
    [[nodiscard]] bool stop_requested() const noexcept {
        return (state_.load(std::memory_order_acquire) & stopped) != 0;  // I2
    }
    /// Returns:       why this source was stopped: the first reason, or exactly its parent's; kind none while it is not
    [[nodiscard]] stop_reason reason() const noexcept;

    /// Stops this source and its descendants, then runs their callbacks here, a parent's before its children's.
    /// Returns:       true to the request that stopped this source; false, with nothing done, to any later one
    /// Order:         on return every descendant reports stopped, and every callback that was registered has run or is
    ///                running on another thread. A descendant that another request had stopped before leaves its
    ///                callbacks to that one; if it has several parents, its descendants too.
    /// Cost:          linear in descendants and callbacks; no recursion, however deep the tree
    bool request_stop(int code = 0, std::source_location where = std::source_location::current()) noexcept {
        return request_stop(stop_reason{stop_kind::requested, code, where});
    }
    /// The same with a reason of another kind; kind none counts as requested.
    bool request_stop(stop_reason reason) noexcept;

private:
    friend class detail::stop_node;
    friend class detail::stop_link;
    friend class detail::stop_walk;
    friend std::size_t detail::attached(const inplace_stop_source& source) noexcept;

    // I1  Whoever set `locked` holds the lock. Only the holder touches callbacks_, links_ or prev_, walk_, and the
    //     hooks of what is in the two lists.
    // I2  kind_, code_ and where_ are written once, under the lock, by the request that wins, and published by the
    //     store that sets `stopped`: who sees `stopped` by an acquire load may read them, and what was written before.
    // I3  `stopped` is never taken back, and nothing joins either list once it is set.
    // I4  walk_ (and, when unlocked, `walked`) is set while a walk still has to visit this source, or is visiting it.
    //     That walk lives until it has locked this source again, or somebody who holds this lock has dequeued it.
    // I5  Locks nest in one order: parent, child, queue of a walk. None is held while a callback runs.
    // I6  A walk stops all descendants before it runs its first callback: waiting for that part of another walk is
    //     waiting for no foreign code. Walks in that part wait only for walks that began at a descendant, so never in
    //     a circle.
    // I7  The store that leaves `stopped` alone is the walk's last access to this source.
    static constexpr std::uint8_t stopped = 1;
    static constexpr std::uint8_t locked = 2;
    static constexpr std::uint8_t walked = 4;

    bool lock_unless_stopped() const noexcept {
        std::uint8_t seen = 0;
        // acquire: I1 when it succeeds, I2 when not
        return state_.compare_exchange_strong(seen, locked, std::memory_order_acquire, std::memory_order_acquire) ||
               lock_slow(false);
    }
    void unlock() const noexcept { state_.store(0, std::memory_order_release); }  // I1
    /// Requires:      known to be stopped
    void lock_stopped() const noexcept {
        std::uint8_t seen = state_.load(std::memory_order_relaxed) & static_cast<std::uint8_t>(~locked);
        const auto mine = static_cast<std::uint8_t>(seen | locked);
        if (!state_.compare_exchange_strong(seen, mine, std::memory_order_acquire, std::memory_order_relaxed))  // I1
            lock_slow(true);
    }
    void unlock_stopped() const noexcept {
        state_.store(walk_ != nullptr ? stopped | walked : stopped, std::memory_order_release);  // I1, I2, I7
    }
    bool lock_slow(bool even_if_stopped) const noexcept;
    void stop_and_walk() noexcept;

    mutable std::atomic<std::uint8_t> state_ = 0;  // a sum of stopped, locked, walked
    stop_kind kind_ = stop_kind::none;
    std::uint16_t parents_ = 0;  // links to this source; the owner's of those links alone
    int code_ = 0;
    std::source_location where_{};
    mutable detail::stop_node* callbacks_ = nullptr;
    union {
        mutable detail::stop_link* links_;  // to the children, until a walk has stopped them all
        inplace_stop_source* prev_;         // from then on: the one before this in the walk's queue
    };
    detail::stop_walk* walk_ = nullptr;
    inplace_stop_source* next_ = nullptr;  // in the walk's queue
};

namespace detail {

/// A place in a list that is guarded by some source's lock.
template <class T>
class stop_hook {
    friend T;
    friend class stop_walk;
    friend std::size_t attached(const inplace_stop_source& source) noexcept;

    constexpr stop_hook() noexcept = default;

    void hook(T*& head) noexcept {
        next_ = head;
        prev_ = &head;
        if (head != nullptr) head->prev_ = &next_;
        head = static_cast<T*>(this);
    }
    void unhook() noexcept {
        *prev_ = next_;
        if (next_ != nullptr) next_->prev_ = prev_;
        prev_ = nullptr;
    }
    [[nodiscard]] bool hooked() const noexcept { return prev_ != nullptr; }

    T* next_ = nullptr;
    T** prev_ = nullptr;  // what points to this
};

/// A registration that lives inside something else, such as an awaiter; inplace_stop_callback is one with a callable.
/// `run` gets this node, at most once for each attach, on a thread that stops the source, with no lock held.
/// Lifetime:      detached before it dies, and before its source does
class stop_node : public stop_hook<stop_node> {
public:
    using run_type = void (*)(stop_node&) noexcept;

    constexpr explicit stop_node(run_type run) noexcept : run_(run) {}
    stop_node(const stop_node&) = delete;
    stop_node& operator=(const stop_node&) = delete;

    /// Registers with the token's source.
    /// Requires:      not attached
    /// Returns:       false, with nothing registered and nothing run, if it is stopped already; else true
    /// Order:         false makes visible what the requester wrote before it asked, and so does the start of `run`
    /// Cost:          with detach() two atomic read-modify-writes
    [[nodiscard]] bool attach(inplace_stop_token token) noexcept;
    [[nodiscard]] bool attach(const inplace_stop_source& source) noexcept { return attach(source.get_token()); }
    /// Deregisters. Afterwards `run` is not running on another thread and will not start. Inside `run`, on its thread,
    /// returns at once: the node may be destroyed there. Does nothing if not attached.
    void detach() noexcept;

private:
    friend class stop_walk;
    void detach_slow(const inplace_stop_source& source) noexcept;

    run_type run_;
    const inplace_stop_source* source_ = nullptr;  // the owner's alone
};

/// Makes one source a child of another: when the parent stops, so does the child, for exactly the parent's reason.
/// A source may have several parents; links never form a circle.
/// Threads:       links to the same child are attached and detached one at a time
/// Lifetime:      detached (the destructor does it) before the child dies, and before the parent does
class stop_link : public stop_hook<stop_link> {
public:
    constexpr stop_link() noexcept = default;
    stop_link(const stop_link&) = delete;
    stop_link& operator=(const stop_link&) = delete;
    ~stop_link() { detach(); }

    /// Links `child` to the token's source. If that is stopped already, stops the child here, callbacks and all.
    /// Requires:      not attached
    /// Returns:       false, with nothing linked, if the parent was stopped; else true
    bool attach(inplace_stop_token parent, inplace_stop_source& child) noexcept;
    /// Unlinks: the parent keeps no trace. Waits while a callback of the child, stopped by its parent, is running on
    /// another thread; inside one, returns at once. If callbacks of the child are still to be run by a request that
    /// has not come to them yet, runs them here. Does nothing if not attached.
    void detach() noexcept;

private:
    friend class stop_walk;
    void detach_slow(const inplace_stop_source& parent) noexcept;

    const inplace_stop_source* parent_ = nullptr;  // the owner's alone
    inplace_stop_source* child_ = nullptr;
};

}  // namespace detail

/// Runs a callable once when the token's source is stopped; at once, in the constructor, if it already is. Those of one
/// source run one after the other, in no particular order.
/// The callable must not throw (that terminates) and should not block, since the thread that asks runs it. It may stop
/// other sources, and destroy this callback, others, and their sources.
/// Threads:       the destructor waits while the callable is running on another thread, and returns at once inside it
template <class F>
class inplace_stop_callback final : private detail::stop_node {
    static_assert(std::invocable<F> && std::destructible<F>,
                  "inplace_stop_callback needs a callable without parameters");

public:
    using callback_type = F;

    template <class Init>
        requires std::constructible_from<F, Init>
    explicit inplace_stop_callback(inplace_stop_token token,
                                   Init&& init) noexcept(std::is_nothrow_constructible_v<F, Init>)
        : stop_node(&invoke), callback_(std::forward<Init>(init)) {
        if (!attach(token)) invoke(*this);
    }
    ~inplace_stop_callback() { detach(); }

private:
    static void invoke(stop_node& self) noexcept {
        std::forward<F>(static_cast<inplace_stop_callback&>(self).callback_)();
    }

    [[no_unique_address]] F callback_;
};

template <class F>
inplace_stop_callback(inplace_stop_token, F) -> inplace_stop_callback<F>;

namespace detail {

/// One request on its way through the tree, on the stack of the thread that asks. First it stops the root and all its
/// descendants, which it queues through fields of their own; then it visits one after the other to run callbacks.
class stop_walk {
public:
    /// Requires:      `root` is locked, and stays so until run()
    explicit stop_walk(inplace_stop_source& root) noexcept : root_(&root), last_(&root), current_(&root) {
        root.walk_ = this;
    }
    void run() noexcept;

    /// Waits until whoever stopped `source` has stopped all its descendants as well.
    static void settle(const inplace_stop_source& source) noexcept;
    /// Takes a stopped source out of the walk that it is in, waiting if that is visiting it on another thread.
    static void leave(inplace_stop_source& source, bool dying) noexcept;

private:
    friend class stop_node;
    void stop_children(inplace_stop_source& source, inplace_stop_source* before) noexcept;
    void visit(inplace_stop_source& source) noexcept;
    [[nodiscard]] bool is_stopping() const noexcept { return stopping_.load(std::memory_order_acquire); }  // I6

    std::atomic<bool> stopping_ = true;  // until every descendant is stopped: so long the queue is this thread's alone
    spin_lock queue_;                    // afterwards guards first_, current_, and next_ and prev_ of what is queued
    const std::thread::id thread_ = std::this_thread::get_id();
    inplace_stop_source* const root_;  // only compared, once others see it
    inplace_stop_source* first_ = nullptr;
    inplace_stop_source* last_;     // while stopping_: of root and queue
    inplace_stop_source* current_;  // being visited, or gone; the root's turn is first; set by this thread alone
    stop_node* running_ = nullptr;  // of current_, guarded by its lock; only compared, since it may be gone
};

}  // namespace detail

inline bool inplace_stop_token::stop_requested() const noexcept {
    return source_ != nullptr && source_->stop_requested();
}

inline stop_reason inplace_stop_token::reason() const noexcept {
    return source_ != nullptr ? source_->reason() : stop_reason{};
}

inline inplace_stop_source::~inplace_stop_source() {
    const std::uint8_t state = state_.load(std::memory_order_acquire);  // I7
    if (state == 0) {
        if (links_ != nullptr) detail::fail("inplace_stop_source destroyed while it has children");
    } else if (state != stopped) {
        detail::stop_walk::leave(*this, true);
    }
    if (callbacks_ != nullptr) detail::fail("inplace_stop_source destroyed while callbacks are registered");
    if (parents_ != 0) detail::fail("inplace_stop_source destroyed before the link to its parent");
}

inline stop_reason inplace_stop_source::reason() const noexcept {
    if (!stop_requested()) return {};
    return {kind_, code_, where_};  // I2
}

inline bool inplace_stop_source::request_stop(stop_reason reason) noexcept {
    if (!lock_unless_stopped()) {
        detail::stop_walk::settle(*this);
        return false;
    }
    kind_ = reason.kind == stop_kind::none ? stop_kind::requested : reason.kind;
    code_ = reason.code;
    where_ = reason.where;
    if (callbacks_ == nullptr && links_ == nullptr) unlock_stopped();
    else stop_and_walk();
    return true;
}

CORDON_NOINLINE inline void inplace_stop_source::stop_and_walk() noexcept {
    detail::stop_walk walk(*this);
    walk.run();
}

CORDON_NOINLINE inline bool inplace_stop_source::lock_slow(bool even_if_stopped) const noexcept {
    std::uint8_t seen = state_.load(std::memory_order_acquire);  // I2
    if ((seen & stopped) == 0) {  // it was locked, and may be free by now: others want it as well
        detail::stand_back lost;
        lost();
        seen = state_.load(std::memory_order_acquire);  // I2
    }
    for (detail::spin_wait wait;;) {
        if ((seen & stopped) != 0 && !even_if_stopped) return false;
        if ((seen & locked) == 0) {
            const auto mine = static_cast<std::uint8_t>(seen | locked);
            if (state_.compare_exchange_weak(seen, mine, std::memory_order_acquire, std::memory_order_acquire))
                return true;  // I1; else I2
        } else {
            wait();
            seen = state_.load(std::memory_order_acquire);  // I2
        }
    }
}

namespace detail {

inline bool stop_node::attach(inplace_stop_token token) noexcept {
    const inplace_stop_source* source = token.source_;
    if (source == nullptr) return true;
    if (!source->lock_unless_stopped()) return false;
    hook(source->callbacks_);
    source_ = source;  // under the lock: as soon as it is given back, `run` may detach and destroy this node
    source->unlock();
    return true;
}

inline void stop_node::detach() noexcept {
    const inplace_stop_source* source = std::exchange(source_, nullptr);
    if (source == nullptr) return;
    if (source->stop_requested() || !source->lock_unless_stopped()) return detach_slow(*source);
    unhook();
    source->unlock();
}

CORDON_NOINLINE inline void stop_node::detach_slow(const inplace_stop_source& source) noexcept {
    for (spin_wait wait;; wait()) {
        source.lock_stopped();
        const bool taken = !hooked();  // by a walk, which is visiting this source as long as walk_ is set (I4)
        if (!taken) unhook();
        const bool running = taken && source.walk_ != nullptr && source.walk_->running_ == this &&
                             source.walk_->thread_ != std::this_thread::get_id();
        source.unlock_stopped();
        if (!running) return;
    }
}

inline bool stop_link::attach(inplace_stop_token parent, inplace_stop_source& child) noexcept {
    const inplace_stop_source* source = parent.source_;
    if (source == nullptr) return true;
    if (!source->lock_unless_stopped()) {
        child.request_stop(source->reason());
        return false;
    }
    hook(source->links_);
    parent_ = source;  // under the lock, as above
    child_ = &child;
    ++child.parents_;
    source->unlock();
    return true;
}

inline void stop_link::detach() noexcept {
    const inplace_stop_source* parent = std::exchange(parent_, nullptr);
    if (parent == nullptr) return;
    --child_->parents_;
    if (parent->stop_requested() || !parent->lock_unless_stopped()) return detach_slow(*parent);
    unhook();
    parent->unlock();
}

CORDON_NOINLINE inline void stop_link::detach_slow(const inplace_stop_source& parent) noexcept {
    parent.lock_stopped();
    const bool taken = !hooked();  // by a walk, which stopped the child or found it stopped
    if (!taken) unhook();
    parent.unlock_stopped();
    if (taken) stop_walk::leave(*child_, false);
}

CORDON_NOINLINE inline void stop_walk::run() noexcept {
    if (root_->links_ == nullptr) {
        stopping_.store(false, std::memory_order_relaxed);  // visit() publishes it when it unlocks the root
        return visit(*root_);
    }
    root_->unlock_stopped();
    stop_children(*root_, nullptr);
    first_ = root_->next_;
    inplace_stop_source* before = nullptr;
    for (inplace_stop_source* source = first_; source != nullptr; before = std::exchange(source, source->next_))
        stop_children(*source, before);
    stopping_.store(false, std::memory_order_release);  // I6: the queue, and that every descendant is stopped
    root_->lock_stopped();
    visit(*root_);
    for (;;) {
        {
            const spin_guard guard(queue_);
            current_ = first_;
            if (current_ == nullptr) return;
            first_ = current_->next_;
            if (first_ != nullptr) first_->prev_ = nullptr;
        }
        current_->lock_stopped();
        visit(*current_);
    }
}

/// Takes one link at a time, so that nobody waits long for the lock of a source with many children.
inline void stop_walk::stop_children(inplace_stop_source& source, inplace_stop_source* before) noexcept {
    for (spin_wait wait;;) {
        source.lock_stopped();
        stop_link* const link = source.links_;
        if (link == nullptr) {
            source.prev_ = before;
            return source.unlock_stopped();
        }
        inplace_stop_source& child = *link->child_;  // lives: the link is in the list (I1)
        bool busy = false;
        if (child.lock_unless_stopped()) {
            child.kind_ = source.kind_;
            child.code_ = source.code_;
            child.where_ = source.where_;
            child.walk_ = this;
            last_ = last_->next_ = &child;
        } else {
            child.lock_stopped();
            const stop_walk* const other = child.walk_;                                 // lives (I4)
            busy = other != nullptr && other->is_stopping() && other->root_ == &child;  // I6
        }
        child.unlock_stopped();
        if (!busy) link->unhook();
        source.unlock_stopped();
        if (busy) wait();
    }
}

/// Requires:      `source`, which is current_, is locked. Afterwards it may be gone.
inline void stop_walk::visit(inplace_stop_source& source) noexcept {
    for (;;) {
        stop_node* const node = running_ = source.callbacks_;
        if (node == nullptr) {
            source.walk_ = nullptr;
            return source.unlock_stopped();  // I7
        }
        node->unhook();
        source.unlock_stopped();
        node->run_(*node);                // I5; may destroy the node
        if (current_ != &source) return;  // destroyed
        source.lock_stopped();
    }
}

CORDON_NOINLINE inline void stop_walk::settle(const inplace_stop_source& source) noexcept {
    for (spin_wait wait;; wait()) {
        source.lock_stopped();
        const bool busy = source.walk_ != nullptr && source.walk_->is_stopping();  // I4
        source.unlock_stopped();
        if (!busy) return;
    }
}

CORDON_NOINLINE inline void stop_walk::leave(inplace_stop_source& source, bool dying) noexcept {
    for (spin_wait wait;; wait()) {
        source.lock_stopped();
        stop_walk* const walk = source.walk_;
        if (walk == nullptr) return source.unlock_stopped();
        if (!walk->is_stopping()) {
            walk->queue_.lock();
            const bool visited = walk->current_ == &source;
            const bool inside = visited && walk->thread_ == std::this_thread::get_id();
            if (inside && dying) walk->current_ = nullptr;
            if (!visited) {
                (source.prev_ != nullptr ? source.prev_->next_ : walk->first_) = source.next_;
                if (source.next_ != nullptr) source.next_->prev_ = source.prev_;
            }
            walk->queue_.unlock();  // if not visited: now the walk may be gone (I4)
            if (!visited) {
                source.links_ = nullptr;  // all taken: the descendants are stopped, and stay in the other walk's queue
                stop_walk rest(source);
                return rest.run();
            }
            if (inside) return source.unlock_stopped();
        }
        source.unlock_stopped();
    }
}

/// Counts the callbacks and children that are registered with a source. For tests: walks the lists under its lock.
/// Callbacks that were taken to be run do not count, nor do the children of a stopped source.
inline std::size_t attached(const inplace_stop_source& source) noexcept {
    const bool live = source.lock_unless_stopped();
    if (!live) source.lock_stopped();
    std::size_t n = 0;
    for (const stop_node* node = source.callbacks_; node != nullptr; node = node->next_) ++n;
    for (const stop_link* link = live ? source.links_ : nullptr; link != nullptr; link = link->next_) ++n;
    live ? source.unlock() : source.unlock_stopped();
    return n;
}

}  // namespace detail

}  // namespace cordon::inline CORDON_ABI
