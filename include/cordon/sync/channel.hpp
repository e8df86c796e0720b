// SPDX-License-Identifier: MIT
#pragma once

// Hands items from tasks to tasks, with room for a number of them, and can be closed.
//
//     channel<job> jobs{16, {.name = "jobs"}};
//     const bool sent = co_await jobs.send(std::move(next));   // waits for room; false: closed, `next` is as it was
//     ...
//     while (true) {
//         std::optional<job> mine = co_await jobs.receive();   // waits for one
//         if (!mine) break;                                    // closed, and nothing is left
//         work_on(*mine);
//     }

#include <cordon/core/awaitable.hpp>
#include <cordon/core/blocking_scope.hpp>
#include <cordon/core/detail/block_on.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/intrusive_list.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/task_record.hpp>

#include <atomic>
#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {

template <class T>
struct channel_options {
    std::string_view name = {};
    /// Gets an item that a receiver was given and never took, if the channel is closed or a rendezvous, and nobody
    /// waits for it; and what is left when the channel is destroyed. Without one the former stays in front of the
    /// channel, the latter is destroyed. Called without a lock, on whatever thread it happens.
    void (*on_undelivered)(T&&) noexcept = nullptr;
};

/// What `try_send` did.
enum class send_status : std::uint8_t {
    sent,
    full,    ///< there is no room, or others wait for it
    closed,
};

/// A queue of at most `capacity` items between tasks, threads, or both. With capacity 0 it is a rendezvous: a sender
/// waits until a receiver takes its item.
///
/// No item is lost to a stop, a timeout or a close: as long as it is not delivered it is its sender's, and what was
/// delivered to a receive that is destroyed before anybody has taken it goes back to the front, even above the
/// capacity, or to `on_undelivered`. The same happens in a rendezvous whose receiver is stopped on another thread at
/// that very moment. A `receive()` that loses a `when_any` gives back what it was given.
/// Threads:       all members from any
/// Order:         first in, first out; senders and receivers are served in the order in which they came, and nobody
///                who comes later or only tries passes one that waits. A send happens before the receive of its item
/// Lifetime:      outlives the operations on it. Destroyed while somebody waits, has not gone on yet after it has
///                waited, or has a handle, it prints its name and terminates
/// Cost:          one exchange to send, one to receive, while nobody waits; one allocation in all, and another when
///                items come back to a full channel. Items are moved under a spin lock: a move should be a few
///                instructions
template <class T>
class channel {
    static_assert(std::is_object_v<T> && !std::is_const_v<T>, "channel<T>: T is a plain object type");
    static_assert(std::is_nothrow_move_constructible_v<T> && std::is_nothrow_destructible_v<T>,
                  "channel<T>: T must be nothrow move constructible, since an item is moved while others wait for it: "
                  "mark its move constructor noexcept, or send a std::unique_ptr<T>");
    static_assert(alignof(T) <= __STDCPP_DEFAULT_NEW_ALIGNMENT__,
                  "channel<T>: T is over-aligned, and coroutine frames are not: send a std::unique_ptr<T>");

    class send_waiter;
    class receive_waiter;
    template <bool copies>
    class send_operation;
    class receive_operation;
    template <std::atomic<std::size_t> channel::*count>
    class handle;

    /// Nobody can tell a copy of such an item from the item, and a copy needs nobody to keep the original.
    static constexpr bool keeps_copy = std::is_trivially_copyable_v<T> && sizeof(T) <= 4 * sizeof(void*);

public:
    class sender;
    class receiver;

    static constexpr std::string_view kind = "channel";

    struct snapshot {
        std::size_t size = 0;      ///< more than the capacity only if items came back
        std::size_t capacity = 0;
        std::size_t senders_waiting = 0;
        std::size_t receivers_waiting = 0;
        bool closed = false;
    };

    static constexpr std::size_t max_capacity =
        static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()) / sizeof(T) - 1;

    /// Errors:        `std::invalid_argument` if `capacity` is more than `max_capacity`; `std::bad_alloc`
    explicit channel(std::size_t capacity, channel_options<T> options = {});
    channel(const channel&) = delete;
    channel& operator=(const channel&) = delete;
    ~channel();

    /// Sends `item`, waiting for room. It is moved from when it is delivered, and only then.
    /// Returns:       true; false if the channel is closed, and `item` is as it was
    /// Cancellation:  a cancel point while it waits; stopped, nothing was sent and `item` is as it was. An item for
    ///                which there is room is sent even by a task that is to stop
    /// Lifetime:      `item` outlives the await, unless it is trivially copyable and no larger than four pointers; so a
    ///                group does not take the sending of another one: spawn a callable that awaits it.
    ///                With GCC before 13 an aggregate that has a destructor gets a name first: `send` cannot refuse the
    ///                others, which tools/lint_gcc12.py finds
    [[nodiscard]] send_operation<keeps_copy> send(T&& item) noexcept { return send_operation<keeps_copy>(*this, item); }
    /// Sends a copy of `item`, which is made at once.
    [[nodiscard]] send_operation<true> send(const T& item)
        requires std::copy_constructible<T>
    {
        return send_operation<true>(*this, item);
    }

    /// Receives the next item, waiting for it.
    /// Returns:       the item; nothing if the channel is closed and empty
    /// Cancellation:  a cancel point while it waits; stopped, it has taken nothing. An item that is there is taken even
    ///                by a task that is to stop
    [[nodiscard]] receive_operation receive() noexcept { return receive_operation(*this); }

    /// Sends `item` if there is room for it, or somebody waits for it; it is moved from only then.
    [[nodiscard]] send_status try_send(T&& item) noexcept;
    [[nodiscard]] send_status try_send(const T& item)
        requires std::copy_constructible<T>
    {
        return try_send(T(item));
    }
    /// Receives an item if one is there, or a sender waits with one.
    [[nodiscard]] std::optional<T> try_receive() noexcept {
        std::optional<T> item;
        (void)poll(item);
        return item;
    }

    /// The same on a thread.
    [[nodiscard]] outcome<bool> send_blocking(T&& item, const blocking_scope& heeds = {}) {
        return detail::block_on(send(std::move(item)), heeds);
    }
    [[nodiscard]] outcome<bool> send_blocking(const T& item, const blocking_scope& heeds = {})
        requires std::copy_constructible<T>
    {
        return detail::block_on(send(item), heeds);
    }
    [[nodiscard]] outcome<std::optional<T>> receive_blocking(const blocking_scope& heeds = {}) {
        return detail::block_on(receive(), heeds);
    }

    /// Closes it: senders who wait, and those who come, get false; receivers get what is left, then nothing. Resumes
    /// nobody inside the call but a waiter without an executor, which goes on here unless a loop runs on this thread:
    /// so not under a lock that it takes. Does nothing the second time.
    void close() noexcept;
    [[nodiscard]] bool is_closed() const noexcept {
        const detail::spin_guard guard(lock_);
        return closed_;
    }

    /// A counted end, for those on the other side, who would wait for ever if this side went away: with the last sender
    /// that was made of it, or the last receiver, the channel closes. One that nobody made a handle of never does.
    [[nodiscard]] sender make_sender() noexcept { return sender(*this); }
    [[nodiscard]] receiver make_receiver() noexcept { return receiver(*this); }

    /// All figures at one time.
    [[nodiscard]] snapshot stats() const noexcept {
        const detail::spin_guard guard(lock_);
        return {size_, capacity_, senders_.size(), receivers_.size(), closed_};
    }
    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    /// What metrics are told.
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.gauge("size", now.size, "Items that wait to be received.");
        sink.gauge("capacity", now.capacity, "Items that there is room for.");
        sink.gauge("senders_waiting", now.senders_waiting, "Sends that wait for room.");
        sink.gauge("receivers_waiting", now.receivers_waiting, "Receives that wait for an item.");
        sink.gauge("closed", now.closed, "Whether the channel is closed.");
    }

private:
    // Whoever holds lock_ has all of this, and the slots of the waiters in the two lists. When it is free:
    // C1 Receivers wait only while nothing is there: no item, and no sender either.
    // C2 Senders wait only while there is no room: size_ >= capacity_. So who comes with C1 and C2 passes nobody.
    // C3 A waiter gets its item, or gives it, after the lock's holder has won its complete(), so a stop has not; and it
    //    gets past its dequeue(), which takes the lock, only when that is done. While landing_ counts it, it has not.
    // C4 Closed, nobody waits.
    // C5 A sender is completed before its receiver: then at worst an item is left over, which goes into the spare slot
    //    that the ring always has, and not a receiver without one.
    bool offer(T& item, send_status& status) noexcept;
    bool poll(std::optional<T>& into) noexcept;
    CORDON_NOINLINE send_status offer_slow(T& item) noexcept;
    CORDON_NOINLINE bool poll_slow(std::optional<T>& into) noexcept;
    CORDON_NOINLINE void give_back(T&& item) noexcept;

    void push_back(T& item) noexcept {
        std::size_t at = head_ + size_;
        if (at >= slots_) at -= slots_;
        std::construct_at(ring_ + at, std::move(item));
        ++size_;
    }
    void push_front(T& item) noexcept {
        head_ = (head_ == 0 ? slots_ : head_) - 1;
        std::construct_at(ring_ + head_, std::move(item));
        ++size_;
    }
    void pop_front(std::optional<T>& into) noexcept {
        T& first = ring_[head_];
        into.emplace(std::move(first));
        std::destroy_at(&first);
        if (++head_ == slots_) head_ = 0;
        --size_;
    }
    /// Returns:       whether the waiter is to go on; its slot is the caller's until it unlocks (C3)
    template <class Waiter>
    bool land(Waiter& w) noexcept {
        if (!w.complete()) return false;
        ++landing_;
        return true;
    }
    bool hand_over(T& item) noexcept;
    void settle() noexcept;
    void unlock_and_wake() noexcept;
    template <class Waiter>
    void enqueue(detail::counted_list<Waiter>& list, Waiter& w) noexcept {
        lock_.lock();
        list.push_back(w);
        settle();
        unlock_and_wake();
    }
    template <class Waiter>
    void dequeue(detail::counted_list<Waiter>& list, Waiter& w, bool stopped) noexcept {
        const detail::spin_guard guard(lock_);
        if (w.linked()) list.remove(w);
        else if (!stopped) --landing_;
    }
    [[noreturn]] void fail_in_use(const snapshot& last, std::size_t handles) const noexcept;

    mutable detail::spin_lock lock_;
    bool closed_ = false;
    std::size_t size_ = 0;
    std::size_t room_;   ///< the capacity; 0 once it is closed
    std::size_t head_ = 0;
    std::size_t slots_;  ///< of the ring: more than the capacity (C5)
    T* ring_;
    detail::counted_list<send_waiter> senders_;
    detail::counted_list<receive_waiter> receivers_;
    std::size_t landing_ = 0;  ///< waiters that were completed and have not gone on (C3)
    const std::size_t capacity_;
    void (*const on_undelivered_)(T&&) noexcept;
    std::atomic<std::size_t> sender_handles_{0}, receiver_handles_{0};
    std::string name_;
    detail::named_wait_label send_label_, receive_label_;
};

/// The sending end: its members are the channel's.
/// Requires:      it is not empty
/// Lifetime:      the channel outlives it
template <class T>
class channel<T>::sender : public handle<&channel<T>::sender_handles_> {
public:
    sender() noexcept = default;
    [[nodiscard]] auto send(T&& item) const noexcept { return this->channel_->send(std::move(item)); }
    [[nodiscard]] auto send(const T& item) const
        requires std::copy_constructible<T>
    {
        return this->channel_->send(item);
    }
    [[nodiscard]] send_status try_send(T&& item) const noexcept { return this->channel_->try_send(std::move(item)); }
    [[nodiscard]] send_status try_send(const T& item) const
        requires std::copy_constructible<T>
    {
        return this->channel_->try_send(item);
    }
    [[nodiscard]] outcome<bool> send_blocking(T&& item, const blocking_scope& heeds = {}) const {
        return this->channel_->send_blocking(std::move(item), heeds);
    }
    [[nodiscard]] outcome<bool> send_blocking(const T& item, const blocking_scope& heeds = {}) const
        requires std::copy_constructible<T>
    {
        return this->channel_->send_blocking(item, heeds);
    }

private:
    friend class channel;
    explicit sender(channel& c) noexcept : handle<&channel::sender_handles_>(c) {}
};

/// The receiving end: its members are the channel's.
/// Requires:      it is not empty
/// Lifetime:      the channel outlives it
template <class T>
class channel<T>::receiver : public handle<&channel<T>::receiver_handles_> {
public:
    receiver() noexcept = default;
    [[nodiscard]] auto receive() const noexcept { return this->channel_->receive(); }
    [[nodiscard]] std::optional<T> try_receive() const noexcept { return this->channel_->try_receive(); }
    [[nodiscard]] outcome<std::optional<T>> receive_blocking(const blocking_scope& heeds = {}) const {
        return this->channel_->receive_blocking(heeds);
    }

private:
    friend class channel;
    explicit receiver(channel& c) noexcept : handle<&channel::receiver_handles_>(c) {}
};

}  // namespace cordon::inline CORDON_ABI

#include <cordon/sync/detail/channel_bodies.hpp>
