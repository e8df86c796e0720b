// SPDX-License-Identifier: MIT
#pragma once

// Who listens to a breaker, and what they have not been told yet. Whoever posts an event, or finds one, tells everybody
// unless a thread is at that already: so events are told in their order, one at a time and under no lock, and a
// listener that is slow holds up only the thread that happens to tell it.

#include <cordon/breaker/breaker_event.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/spin_lock.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

class event_hub {
public:
    class listener {
    public:
        listener() = default;
        listener(const listener&) = delete;
        listener& operator=(const listener&) = delete;
        virtual ~listener() = default;

    private:
        friend class event_hub;
        virtual void tell(const breaker_event& e) = 0;

        // Under the lock of the hub.
        listener* prev_ = nullptr;
        listener* next_ = nullptr;
        std::uint64_t from_ = 0;  // the first event that it is told
        bool removed_ = false;    // by itself, while it was told
    };

    void add(listener& l) noexcept {
        const spin_guard guard(lock_);
        l.from_ = posted_;
        l.prev_ = last_;
        (last_ == nullptr ? first_ : last_->next_) = &l;
        last_ = &l;
        listeners_.fetch_add(1, std::memory_order_relaxed);
    }
    /// Afterwards it is not told anything, and destroyed: at once, or if it does this itself when it returns.
    void remove(listener* l) noexcept {
        for (spin_wait wait;; wait()) {
            const spin_guard guard(lock_);
            if (told_ == l && teller_ != std::this_thread::get_id()) continue;  // another thread tells it just now
            unlink(*l);
            if (told_ != l) break;
            l->removed_ = true;
            return;
        }
        delete l;
    }
    [[nodiscard]] std::size_t listeners() const noexcept { return listeners_.load(std::memory_order_relaxed); }

    /// Keeps the event until `deliver`. If there is no room it is counted as lost: stale outcomes, which come in
    /// crowds, leave half of the room to the others.
    void post(const breaker_event& e) noexcept {
        if (listeners() == 0) return;
        const spin_guard guard(lock_);
        if (posted_ - told_up_to_ >= (e.cause == breaker_cause::stale ? room / 2 : room)) {
            lost_.fetch_add(1, std::memory_order_relaxed);
            return;
        }
        ring_[posted_++ % room] = e;
        pending_.store(true, std::memory_order_relaxed);
    }
    /// Tells what was posted. Not under a lock.
    void deliver() noexcept {
        if (pending_.load(std::memory_order_relaxed)) [[unlikely]]
            tell_all();
    }

    [[nodiscard]] std::uint64_t errors() const noexcept { return errors_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t lost() const noexcept { return lost_.load(std::memory_order_relaxed); }
    void count_error() noexcept { errors_.fetch_add(1, std::memory_order_relaxed); }

private:
    static constexpr std::uint64_t room = 32;

    void unlink(listener& l) noexcept {
        if (next_told_ == &l) next_told_ = l.next_;
        (l.prev_ == nullptr ? first_ : l.prev_->next_) = l.next_;
        (l.next_ == nullptr ? last_ : l.next_->prev_) = l.prev_;
        listeners_.fetch_sub(1, std::memory_order_relaxed);
    }

    CORDON_NOINLINE void tell_all() noexcept {
        lock_.lock();
        if (telling_) return lock_.unlock();  // that thread, or the call below on this stack, goes on
        telling_ = true;
        teller_ = std::this_thread::get_id();
        while (told_up_to_ != posted_) {
            const std::uint64_t number = told_up_to_++;
            const breaker_event e = ring_[number % room];
            next_told_ = first_;
            while (next_told_ != nullptr) {
                told_ = std::exchange(next_told_, next_told_->next_);
                if (told_->from_ > number) continue;
                listener* const l = told_;
                lock_.unlock();
                tell(*l, e);
                lock_.lock();
                if (l->removed_) {
                    told_ = nullptr;
                    lock_.unlock();
                    delete l;
                    lock_.lock();
                }
            }
            told_ = nullptr;
        }
        telling_ = false;
        pending_.store(false, std::memory_order_relaxed);
        lock_.unlock();
    }
    void tell(listener& l, const breaker_event& e) noexcept {
#if defined(__cpp_exceptions)
        try {
            l.tell(e);
        } catch (...) {
            count_error();
        }
#else
        l.tell(e);
#endif
    }

    spin_lock lock_;
    bool telling_ = false;
    std::atomic<bool> pending_{false};
    std::atomic<std::size_t> listeners_{0};
    std::atomic<std::uint64_t> errors_{0}, lost_{0};
    std::thread::id teller_;
    listener* first_ = nullptr;
    listener* last_ = nullptr;
    listener* told_ = nullptr;       // is told just now
    listener* next_told_ = nullptr;  // is told next
    std::uint64_t posted_ = 0, told_up_to_ = 0;
    std::array<breaker_event, room> ring_{};

public:
    template <class F>
    class listener_of final : public listener {
    public:
        template <class G>
        explicit listener_of(G&& f) : f_(std::forward<G>(f)) {}

    private:
        void tell(const breaker_event& e) override { f_(e); }
        F f_;
    };
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
