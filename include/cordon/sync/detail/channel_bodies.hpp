// SPDX-License-Identifier: MIT
#pragma once

// The bodies of <cordon/sync/channel.hpp>, which includes this, and has the invariants C1 to C5.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/intrusive_list.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/sync/channel.hpp>

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {

template <class T>
class channel<T>::send_waiter : public detail::leaf<send_waiter>, public detail::list_hook {
public:
    bool ready() noexcept {
        send_status status;
        if (!channel_->offer(*item_, status)) return false;
        sent_ = status == send_status::sent;
        return true;
    }
    std::coroutine_handle<> start(receiver_ref r) noexcept { return this->suspend(r); }
    outcome<bool> take() noexcept { return outcome<bool>(std::in_place, sent_); }
    bool get() const noexcept { return sent_; }

protected:
    explicit send_waiter(channel& c) noexcept : channel_(&c) {}

    T* item_ = nullptr;

private:
    friend class detail::leaf<send_waiter>;
    friend class channel;
    void enqueue() noexcept { channel_->enqueue(channel_->senders_, *this); }
    void dequeue(bool was_stopped) noexcept { channel_->dequeue(channel_->senders_, *this, was_stopped); }
    void leave_queue() noexcept { channel_->dequeue(channel_->senders_, *this, true); }
    const detail::wait_label& label() const noexcept { return channel_->send_label_; }

    channel* channel_;
    bool sent_ = false;
};

template <class T>
class channel<T>::receive_waiter : public detail::leaf<receive_waiter>, public detail::list_hook {
public:
    explicit receive_waiter(channel& c) noexcept : channel_(&c) {}
    ~receive_waiter() {
        if (item_) [[unlikely]] channel_->give_back(*std::move(item_));  // got, and never taken
    }
    bool ready() noexcept { return channel_->poll(item_); }
    std::coroutine_handle<> start(receiver_ref r) noexcept { return this->suspend(r); }
    outcome<std::optional<T>> take() noexcept { return outcome<std::optional<T>>(std::in_place, get()); }
    std::optional<T> get() noexcept {
        std::optional<T> item(std::move(item_));
        item_.reset();
        return item;
    }

private:
    friend class detail::leaf<receive_waiter>;
    friend class channel;
    void enqueue() noexcept { channel_->enqueue(channel_->receivers_, *this); }
    void dequeue(bool was_stopped) noexcept { channel_->dequeue(channel_->receivers_, *this, was_stopped); }
    void leave_queue() noexcept { channel_->dequeue(channel_->receivers_, *this, true); }
    const detail::wait_label& label() const noexcept { return channel_->receive_label_; }

    channel* channel_;
    std::optional<T> item_;
};

/// Refers to the item, or keeps a copy.
template <class T>
template <bool copies>
class channel<T>::send_operation : public detail::operation_base<send_operation<copies>> {
    using kept = std::conditional_t<copies, T, T*>;

public:
    using value_type = bool;
    static constexpr bool needs_executor = false;
    static constexpr bool borrows = !copies;

    send_operation(channel& c, const T& item)
        requires copies
        : channel_(&c), kept_(item) {}
    send_operation(channel& c, T& item) noexcept
        requires(!copies)
        : channel_(&c), kept_(&item) {}

    class state : public send_waiter {
    public:
        explicit state(send_operation&& s) noexcept : send_waiter(*s.channel_), kept_(std::move(s.kept_)) {
            if constexpr (copies) this->item_ = &kept_;
            else this->item_ = kept_;
        }

    private:
        kept kept_;
    };

private:
    channel* channel_;
    kept kept_;
};

template <class T>
class channel<T>::receive_operation : public detail::operation_base<receive_operation> {
public:
    using value_type = std::optional<T>;
    static constexpr bool needs_executor = false;

    explicit receive_operation(channel& c) noexcept : channel_(&c) {}
    class state : public receive_waiter {
    public:
        explicit state(receive_operation&& r) noexcept : receive_waiter(*r.channel_) {}
    };

private:
    channel* channel_;
};

/// One of those whose number decides; an empty one counts for nothing.
template <class T>
template <std::atomic<std::size_t> channel<T>::*count>
class channel<T>::handle {
public:
    handle(const handle& other) noexcept : channel_(other.channel_) {
        if (channel_ != nullptr) (channel_->*count).fetch_add(1, std::memory_order_relaxed);
    }
    handle(handle&& other) noexcept : channel_(std::exchange(other.channel_, nullptr)) {}
    handle& operator=(handle other) noexcept {
        std::swap(channel_, other.channel_);
        return *this;
    }
    ~handle() { reset(); }

    /// Whether it belongs to a channel.
    [[nodiscard]] explicit operator bool() const noexcept { return channel_ != nullptr; }
    /// Gives the handle up.
    void reset() noexcept {
        channel* const c = std::exchange(channel_, nullptr);
        if (c != nullptr && (c->*count).fetch_sub(1, std::memory_order_acq_rel) == 1) c->close();
    }

protected:
    handle() noexcept = default;
    explicit handle(channel& c) noexcept : channel_(&c) { (c.*count).fetch_add(1, std::memory_order_relaxed); }

    channel* channel_ = nullptr;
};

template <class T>
channel<T>::channel(std::size_t capacity, channel_options<T> options)
    : room_(detail::checked_range("channel", "capacity", capacity, 0, max_capacity)), slots_(capacity + 1),
      capacity_(capacity), on_undelivered_(options.on_undelivered), name_(options.name),
      send_label_(detail::wait_label("send to channel"), options.name),
      receive_label_(detail::wait_label("receive from channel"), options.name) {
    ring_ = std::allocator<T>().allocate(slots_);
}

template <class T>
channel<T>::~channel() {
    const snapshot last = stats();
    const std::size_t handles = sender_handles_.load(std::memory_order_relaxed) +
                                receiver_handles_.load(std::memory_order_relaxed);
    if (last.senders_waiting + last.receivers_waiting + landing_ + handles != 0) [[unlikely]]
        fail_in_use(last, handles);
    while (size_ != 0) {
        std::optional<T> item;
        pop_front(item);
        if (on_undelivered_ != nullptr) on_undelivered_(*std::move(item));
    }
    std::allocator<T>().deallocate(ring_, slots_);
}

template <class T>
CORDON_NOINLINE void channel<T>::fail_in_use(const snapshot& last, std::size_t handles) const noexcept {
    detail::fail("channel \"" + name_ + "\" destroyed while " + std::to_string(last.senders_waiting) +
                 " wait to send, " + std::to_string(last.receivers_waiting) + " wait to receive, " +
                 std::to_string(landing_) + " have waited and not gone on yet, and " + std::to_string(handles) +
                 " handles are left");
}

/// Returns:       whether the sending is over, since it was sent or the channel is closed
template <class T>
bool channel<T>::offer(T& item, send_status& status) noexcept {
    lock_.lock();
    if (size_ < room_ && receivers_.empty()) [[likely]] {
        push_back(item);
        lock_.unlock();
        status = send_status::sent;
        return true;
    }
    status = offer_slow(item);
    return status != send_status::full;
}
template <class T>
CORDON_NOINLINE send_status channel<T>::offer_slow(T& item) noexcept {
    send_status status = send_status::full;
    if (closed_) {
        status = send_status::closed;
    } else if (hand_over(item)) {
        status = send_status::sent;
    } else if (size_ < room_) {  // those who waited were all stopped
        push_back(item);
        status = send_status::sent;
    }
    lock_.unlock();
    detail::run_woken();
    return status;
}
template <class T>
send_status channel<T>::try_send(T&& item) noexcept {
    send_status status;
    (void)offer(item, status);
    return status;
}

/// Returns:       whether the receiving is over, since there was an item or none will come
template <class T>
bool channel<T>::poll(std::optional<T>& into) noexcept {
    lock_.lock();
    if (size_ != 0 && senders_.empty()) [[likely]] {
        pop_front(into);
        lock_.unlock();
        return true;
    }
    return poll_slow(into);
}
template <class T>
CORDON_NOINLINE bool channel<T>::poll_slow(std::optional<T>& into) noexcept {
    if (size_ != 0) {
        pop_front(into);
        settle();
    }
    while (!into && !senders_.empty()) {  // a rendezvous
        send_waiter& first = senders_.pop_front();
        if (!land(first)) continue;
        into.emplace(std::move(*first.item_));
        first.sent_ = true;
    }
    const bool over = into || closed_;
    lock_.unlock();
    detail::run_woken();
    return over;
}

/// Gives the item to the first receiver that a stop has not taken away.
template <class T>
bool channel<T>::hand_over(T& item) noexcept {
    while (!receivers_.empty()) {
        receive_waiter& first = receivers_.pop_front();
        if (!land(first)) continue;
        first.item_.emplace(std::move(item));
        return true;
    }
    return false;
}

/// Lets go on all who can: makes C1, C2 and C4 true.
template <class T>
void channel<T>::settle() noexcept {
    for (;;) {
        if (size_ != 0 && !receivers_.empty()) {
            receive_waiter& first = receivers_.pop_front();
            if (land(first)) pop_front(first.item_);
        } else if (!senders_.empty() && (size_ < room_ || (size_ == 0 && !closed_ && !receivers_.empty()))) {
            send_waiter& first = senders_.pop_front();
            if (!land(first)) continue;
            push_back(*first.item_);  // C5
            first.sent_ = true;
        } else {
            break;
        }
    }
    if (!closed_) return;
    while (!senders_.empty()) (void)land(senders_.pop_front());
    while (!receivers_.empty()) (void)land(receivers_.pop_front());
}

/// A rendezvous keeps nothing, if there is somebody else to keep it.
template <class T>
void channel<T>::unlock_and_wake() noexcept {
    std::optional<T> left_over;
    if (capacity_ == 0 && size_ != 0 && on_undelivered_ != nullptr) [[unlikely]] pop_front(left_over);
    lock_.unlock();
    detail::run_woken();
    if (left_over) [[unlikely]] on_undelivered_(*std::move(left_over));
}

template <class T>
void channel<T>::close() noexcept {
    lock_.lock();
    closed_ = true;
    room_ = 0;
    settle();
    lock_.unlock();
    detail::run_woken();
}

/// Takes back what a receiver was given and has not taken.
template <class T>
CORDON_NOINLINE void channel<T>::give_back(T&& item) noexcept {
    lock_.lock();
    if (!hand_over(item)) {
        if (on_undelivered_ != nullptr && (closed_ || capacity_ == 0)) {
            lock_.unlock();
            detail::run_woken();
            return on_undelivered_(std::move(item));
        }
        while (size_ == slots_) {  // allocates without the lock, and looks again
            std::size_t more = 2 * slots_;
            lock_.unlock();
            T* larger = std::allocator<T>().allocate(more);
            lock_.lock();
            if (size_ == slots_ && more > slots_) {
                for (std::size_t i = 0, at = head_; i < size_; ++i) {
                    std::construct_at(larger + i, std::move(ring_[at]));
                    std::destroy_at(ring_ + at);
                    if (++at == slots_) at = 0;
                }
                head_ = 0;
                std::swap(ring_, larger);
                std::swap(slots_, more);
            }
            lock_.unlock();
            std::allocator<T>().deallocate(larger, more);
            lock_.lock();
        }
        push_front(item);
        settle();
    }
    lock_.unlock();
    detail::run_woken();
}

}  // namespace cordon::inline CORDON_ABI
