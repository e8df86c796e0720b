// SPDX-License-Identifier: MIT
// A host's own coroutine type: with one mixin it carries the context, so that deadlines and stops flow through it.
#include <cordon/cordon.hpp>

#include <cassert>
#include <coroutine>
#include <exception>
#include <iostream>
#include <string>

using namespace std::chrono_literals;
namespace co = cordon;

// [job]
class job {
public:
    struct promise_type : co::context_carrier {  // the mixin
        job get_return_object() { return job(std::coroutine_handle<promise_type>::from_promise(*this)); }
        std::suspend_always initial_suspend() noexcept { return {}; }
        auto final_suspend() noexcept { return resume_parent(); }
        void return_void() noexcept {}
        void unhandled_exception() noexcept { error = std::current_exception(); }
        std::coroutine_handle<> parent = std::noop_coroutine();
        std::exception_ptr error;
    };
    job(const job&) = delete;
    ~job() { self_.destroy(); }

    bool await_ready() const noexcept { return false; }
    template <class Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> parent) noexcept {
        self_.promise().inherit_context(parent.promise());  // one line where a coroutine awaits another
        self_.promise().parent = parent;
        return self_;
    }
    void await_resume() const {
        if (self_.promise().error) std::rethrow_exception(self_.promise().error);
    }
    void start(const co::context& root) {
        self_.promise().set_context(root);  // and one where the outermost begins
        self_.resume();
    }

private:
    struct resume_parent : std::suspend_always {
        auto await_suspend(std::coroutine_handle<promise_type> self) const noexcept { return self.promise().parent; }
    };
    explicit job(std::coroutine_handle<promise_type> self) : self_(self) {}
    std::coroutine_handle<promise_type> self_;
};
// [/job]

// [use]
job step(std::string& log) {
    const auto late = co_await co::as_outcome(co::with_timeout(1ms, co::sleep_for(1h)));
    if (late.is_error()) log += "the step timed out, ";
    co_await co::sleep_for(1h);
}
job work(std::string& log, co::run_loop& loop) {
    try {
        co_await step(log);
    } catch (const co::canceled&) {  // what a stop is to a promise without unhandled_stopped()
        log += "the job was stopped";
    }
    loop.stop();
}
// [/use]

int main() {
    std::string log;
    // [main]
    co::run_loop loop;
    const co::cancel_scope request{co::executor_ref(loop), 200ms};
    job whole = work(log, loop);
    whole.start(request.ctx());
    loop.run();
    // [/main]
    std::cout << log << '\n';
    assert(log == "the step timed out, the job was stopped");
}
