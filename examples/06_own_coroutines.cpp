// SPDX-License-Identifier: MIT
// A host's own coroutine type: with one mixin it carries the context, so that deadlines and stops flow through it.
#include <cordon/cordon.hpp>

#include <cassert>
#include <coroutine>
#include <exception>
#include <iostream>
#include <string>
#include <utility>

using namespace std::chrono_literals;
namespace co = cordon;

// [job]
/// The smallest coroutine type that a host could have: lazy, awaited once, without a result.
class job {
public:
    struct promise_type : co::context_carrier {  // what cordon asks for, and no more
        job get_return_object() { return job(std::coroutine_handle<promise_type>::from_promise(*this)); }
        std::suspend_always initial_suspend() noexcept { return {}; }
        struct resume_awaiting {
            bool await_ready() noexcept { return false; }
            std::coroutine_handle<> await_suspend(std::coroutine_handle<promise_type> self) noexcept {
                return self.promise().awaiting;
            }
            void await_resume() noexcept {}
        };
        resume_awaiting final_suspend() noexcept { return {}; }
        void return_void() noexcept {}
        void unhandled_exception() noexcept { error = std::current_exception(); }

        std::coroutine_handle<> awaiting = std::noop_coroutine();
        std::exception_ptr error;
    };

    job(job&& other) noexcept : self_(std::exchange(other.self_, nullptr)) {}
    ~job() {
        if (self_) self_.destroy();
    }
    bool await_ready() const noexcept { return false; }
    template <class Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> parent) noexcept {
        self_.promise().inherit_context(parent.promise());  // one line where a coroutine awaits another
        self_.promise().awaiting = parent;
        return self_;
    }
    void await_resume() const {
        if (self_.promise().error) std::rethrow_exception(self_.promise().error);
    }
    void start(const co::context& root) {  // and one where the outermost begins
        self_.promise().set_context(root);
        self_.resume();
    }

private:
    explicit job(std::coroutine_handle<promise_type> self) : self_(self) {}
    std::coroutine_handle<promise_type> self_;
};
// [/job]

// [use]
job step() { co_await co::with_timeout(1ms, co::sleep_for(1h)); }

job work(std::string& log, co::run_loop& loop) {
    try {
        co_await step();
    } catch (const co::timeout_error&) {
        log += "the step timed out, ";
    }
    try {
        co_await co::sleep_for(1h);
    } catch (const co::canceled&) {  // how a stop looks in a promise without unhandled_stopped()
        log += "the job was stopped";
    }
    loop.stop();
}
// [/use]

int main() {
    std::string log;
    // [main]
    co::run_loop loop;
    const co::cancel_scope request{co::executor_ref(loop), co::deadline::after(10ms)};
    job whole = work(log, loop);
    whole.start(request.ctx());
    loop.run();
    // [/main]
    std::cout << log << '\n';
    assert(log == "the step timed out, the job was stopped");
}
