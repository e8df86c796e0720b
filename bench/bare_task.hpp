// SPDX-License-Identifier: MIT
#pragma once

// The floor under every await: a task by symmetric transfer that knows no context, no record, no stop, no error and no
// executor, and whose frames come from where a parameter says.

#include <cordon/core/detail/frame_cache.hpp>

#include <coroutine>
#include <cstddef>
#include <new>
#include <utility>

namespace bench {

/// Frames from the library's own cache.
struct cached_frames {
    static void* take(std::size_t size) { return cordon::detail::allocate_frame(size); }
    static void give(void* frame, std::size_t size) noexcept { cordon::detail::deallocate_frame(frame, size); }
};

/// Frames from operator new.
struct new_frames {
    static void* take(std::size_t size) { return ::operator new(size); }
    static void give(void* frame, std::size_t size) noexcept { ::operator delete(frame, size); }
};

/// Frames from a list per thread and size class that is never bounded, shared or freed: no cache can be cheaper.
class listed_frames {
public:
    static void* take(std::size_t size) {
        link*& head = heads_[size_class(size)];
        if (head == nullptr) return ::operator new((size_class(size) + 1) * granule);
        return std::exchange(head, head->next);
    }
    static void give(void* frame, std::size_t size) noexcept {
        link*& head = heads_[size_class(size)];
        head = ::new (frame) link{head};
    }

private:
    struct link {
        link* next;
    };
    static constexpr std::size_t granule = 16, classes = 32;
    static std::size_t size_class(std::size_t size) noexcept { return (size - 1) / granule % classes; }
    static inline constinit thread_local link* heads_[classes] = {};
};

template <class Frames>
class [[nodiscard]] bare_task {
public:
    class promise_type {
    public:
        static void* operator new(std::size_t size) { return Frames::take(size); }
        static void operator delete(void* frame, std::size_t size) noexcept { Frames::give(frame, size); }

        bare_task get_return_object() noexcept {
            return bare_task(std::coroutine_handle<promise_type>::from_promise(*this));
        }
        std::suspend_always initial_suspend() const noexcept { return {}; }
        auto final_suspend() const noexcept {
            struct awaiter {
                bool await_ready() const noexcept { return false; }
                std::coroutine_handle<> await_suspend(std::coroutine_handle<promise_type> h) const noexcept {
                    return h.promise().awaiting_;
                }
                void await_resume() const noexcept {}
            };
            return awaiter();
        }
        void return_value(int value) noexcept { value_ = value; }
        void unhandled_exception() const noexcept {}

    private:
        friend bare_task;
        std::coroutine_handle<> awaiting_ = std::noop_coroutine();
        int value_ = 0;
    };

    bare_task(bare_task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    bare_task& operator=(bare_task&&) = delete;
    ~bare_task() {
        if (handle_) handle_.destroy();
    }

    bool await_ready() const noexcept { return false; }
    std::coroutine_handle<> await_suspend(std::coroutine_handle<> awaiting) noexcept {
        handle_.promise().awaiting_ = awaiting;
        return handle_;
    }
    int await_resume() const noexcept { return handle_.promise().value_; }

    /// For the outermost one, which must not suspend for good.
    void run() { handle_.resume(); }
    /// Gives up the ownership: for whoever resumes and destroys it by its handle.
    std::coroutine_handle<> release() noexcept { return std::exchange(handle_, nullptr); }

private:
    explicit bare_task(std::coroutine_handle<promise_type> h) noexcept : handle_(h) {}
    std::coroutine_handle<promise_type> handle_;
};

}  // namespace bench
