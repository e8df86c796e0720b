// SPDX-License-Identifier: MIT
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace bench {

/// What one writes without a thread pool: threads that take functions from a queue below a mutex.
class locked_pool {
public:
    explicit locked_pool(std::size_t threads) {
        for (std::size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
    }
    locked_pool(const locked_pool&) = delete;
    locked_pool& operator=(const locked_pool&) = delete;
    /// Runs what is left.
    ~locked_pool() {
        {
            const std::lock_guard lock(mutex_);
            last_ = true;
        }
        there_.notify_all();
        for (std::thread& t : threads_) t.join();
    }

    void post(std::function<void()> f) {
        {
            const std::lock_guard lock(mutex_);
            queue_.push_back(std::move(f));
        }
        there_.notify_one();
    }

private:
    void work() {
        while (true) {
            std::unique_lock lock(mutex_);
            there_.wait(lock, [this] { return last_ || !queue_.empty(); });
            if (queue_.empty()) return;
            const std::function<void()> f = std::move(queue_.front());
            queue_.pop_front();
            lock.unlock();
            f();
        }
    }

    std::mutex mutex_;
    std::condition_variable there_;
    std::deque<std::function<void()>> queue_;
    bool last_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace bench
