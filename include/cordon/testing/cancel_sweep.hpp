// SPDX-License-Identifier: MIT
#pragma once

// Stops an operation at each of its steps, one run for each, and looks at what is left behind: the test of cancellation
// that nobody writes by hand.
//
//     auto books = std::make_shared<ledger>();
//     const auto make = [&] { *books = {}; return transfer(books, 40); };
//     const auto swept = testing::cancel_sweep({}, make, [&](const outcome<void>&, testing::sweep_point) {
//         return books->total() == 100;                    // whatever happened, and wherever it was stopped
//     });
//     INFO(describe(swept));
//     CHECK(swept.findings.empty());

#include <cordon/core/awaitable.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/testing/simulation.hpp>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <source_location>
#include <stdexcept>
#include <string>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace testing {

struct sweep_options {
    std::uint64_t seed = 0;                              ///< the schedule of all runs
    std::uint64_t max_steps = 100'000;                   ///< that a run may take beyond the baseline's
    clock::duration max_time = std::chrono::minutes(1);  ///< virtual time that it may take beyond the baseline's
    std::size_t max_findings = 10;                       ///< after that many the sweep ends
    bool fail_allocations = false;                       ///< too, each of them; see `allocation_fault`
    bool fail_awaits = false;                            ///< too, each that waits, by an `injected_error`
};

/// What an await throws that a sweep has fail.
class injected_error : public std::runtime_error {
public:
    injected_error() : std::runtime_error("an await that a sweep had fail") {}
};

/// How a run was made to end.
enum class sweep_variant : std::uint8_t {
    baseline,    ///< it was not
    stop,        ///< its scope was asked to stop before a step
    deadline,    ///< a deadline around it passed
    allocation,  ///< an allocation failed
    error,       ///< an await threw
};
[[nodiscard]] constexpr const char* to_string(sweep_variant v) noexcept {
    constexpr const char* texts[] = {"baseline", "stop", "deadline", "allocation", "error"};
    return texts[static_cast<std::size_t>(v)];
}

/// Where a run was made to end.
struct sweep_point {
    sweep_variant variant = sweep_variant::baseline;
    /// stop: the step before which it was asked; deadline, allocation, error: which of them; all from 1
    std::uint64_t number = 0;
    clock::duration at{0};  ///< virtual time since the beginning of the run
};

/// What was wrong with a run.
struct sweep_finding : sweep_point {
    std::string what;
    std::string where;  ///< who waited where at that point, as `describe` gives tasks
};

struct sweep_result {
    std::uint64_t points = 0;  ///< runs besides the baseline
    std::vector<sweep_finding> findings;
};

/// Each ends with a newline.
[[nodiscard]] std::string describe(const sweep_finding& finding);
[[nodiscard]] std::string describe(const sweep_result& swept);

/// Runs `make()` once as it is, then once for each of its steps with a stop of its scope before that step, then with a
/// deadline at each time when something happened and between each two; and, if wanted, with each of its allocations
/// failing, and with each await that would wait throwing instead. After each run it asks `check(ended, point)`, where
/// `ended` is the `outcome`, a `timeout_error` if that deadline ended it.
///
/// The awaits that throw are those in which a task waits for something of this library: time, a permit, an item, an
/// event, a completion, a place. Not those that end what was begun, a join or a close, nor a yield, nor any below a
/// `shield` or in the cleanup of `finally`.
/// Returns:       how many points were swept, and what was found: a run that does not end within the limits; a task or
///                a timer that it leaves behind; an error, or a refusal other than `closed`, that the baseline does not
///                end with, but for the `std::bad_alloc` of an allocation, and any after an await that threw; a check
///                that says false or throws. Only the baseline's findings if there are any
/// Errors:        `std::logic_error` if allocations are to fail, and the program's operator new does not ask
/// Requires:      `make` gives an operation that does the same each time; no other thread starts tasks meanwhile
/// Threads:       `make` is called inside the run, a simulation of its own each time; `check` after it, while
///                the clock shows the time at which the run ended: it may run simulations, but not block
/// Lifetime:      what a run leaves behind is kept for ever, and refers to what it was given: share that with the tasks
/// Cost:          as many runs as the baseline has steps, and a few. A task that goes on without suspending hangs it
template <class Make, class Check>
    requires std::invocable<Make&> && awaitable<std::invoke_result_t<Make&>>
[[nodiscard]] sweep_result cancel_sweep(const sweep_options& options, Make&& make, Check&& check,
                                        std::source_location where = std::source_location::current());

/// The same where no invariant needs to be checked.
template <class Make>
    requires std::invocable<Make&> && awaitable<std::invoke_result_t<Make&>>
[[nodiscard]] sweep_result cancel_sweep(const sweep_options& options, Make&& make,
                                        std::source_location where = std::source_location::current());

}  // namespace testing
}  // namespace cordon::inline CORDON_ABI

#include <cordon/testing/detail/cancel_sweep_bodies.hpp>
