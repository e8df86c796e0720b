// SPDX-License-Identifier: MIT
#pragma once

// Places in a program where something may go wrong, and does so when a test has it:
//
//     if (testing::fault("disk full")) return std::make_error_code(std::errc::no_space_on_device);
//
//     testing::fault_plan plan{seed};       // in the test; some of the places, now and then
//     sim.run(service());
//
// Without a plan a place is one load. After FoundationDB's BUGGIFY.

#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/random.hpp>

#include <atomic>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace testing {

class fault_plan;

/// Whether what is named here is to go wrong now, by the plan of this thread; false without one.
/// Threads:       a plan is in force on the thread that made it: in a simulation, in all of it
[[nodiscard]] bool fault(std::string_view name);

struct fault_options {
    double armed = 0.25;  ///< the share of the places that go wrong at all, by seed and name; 0 to 1
    double fires = 0.25;  ///< how often one of those does; 0 to 1
};

/// Has places go wrong while it lives, the same ones for the same seed. When they do so is a choice of the schedule in
/// a simulation, which `explore` finds and makes shorter; elsewhere it comes from the seed as well.
/// Errors:        `std::invalid_argument` if a share is out of range, `std::logic_error` beside another on this thread
class fault_plan {
public:
    struct site {
        std::string name;
        bool armed = false;
        std::uint64_t asked = 0, fired = 0;
    };

    explicit fault_plan(std::uint64_t seed, const fault_options& options = {});
    fault_plan(const fault_plan&) = delete;
    fault_plan& operator=(const fault_plan&) = delete;
    ~fault_plan();

    /// Has that place go wrong with this share, whatever the seed says; 0: never, 1: each time.
    /// Errors:        `std::invalid_argument` if it is out of range
    void set(std::string_view name, double share);

    /// The places that were asked about or set, in the order of their names.
    [[nodiscard]] std::vector<site> sites() const;

private:
    friend bool fault(std::string_view name);
    struct place {
        double share = 0;
        std::uint64_t asked = 0, fired = 0;
    };

    static double checked(const char* what, double share) {
        return cordon::detail::checked_range("fault_plan", what, share, 0, 1);
    }
    [[nodiscard]] place& at(std::string_view name);
    [[nodiscard]] bool fires(std::string_view name);

    // A count for the process, so that a place looks at its thread's plan only if there is any.
    static inline std::atomic<std::uint32_t> plans_{0};
    static inline thread_local fault_plan* here_ = nullptr;

    std::uint64_t seed_;
    fault_options options_;
    cordon::detail::random_source random_;
    std::map<std::string, place, std::less<>> places_;
};

// --- below: bodies ----------------------------------------------------------------------------------------------

inline bool fault(std::string_view name) {
    if (fault_plan::plans_.load(std::memory_order_relaxed) == 0) [[likely]] return false;
    return fault_plan::here_ != nullptr && fault_plan::here_->fires(name);
}

inline fault_plan::fault_plan(std::uint64_t seed, const fault_options& options)
    : seed_(seed), options_{checked("armed", options.armed), checked("fires", options.fires)},
      random_(cordon::detail::mixed(seed + 1) | 1) {
    if (here_ != nullptr)
        cordon::detail::raise(std::logic_error("a fault_plan beside another one on this thread"),
                              "a fault_plan beside another one on this thread");
    here_ = this;
    plans_.fetch_add(1, std::memory_order_relaxed);
}
inline fault_plan::~fault_plan() {
    plans_.fetch_sub(1, std::memory_order_relaxed);
    here_ = nullptr;
}

inline fault_plan::place& fault_plan::at(std::string_view name) {
    const auto found = places_.find(name);
    if (found != places_.end()) return found->second;
    std::uint64_t hash = seed_ + 0x9e3779b97f4a7c15u;
    for (const char c : name) hash = cordon::detail::mixed(hash ^ static_cast<unsigned char>(c));
    const bool armed = cordon::detail::unit_interval(cordon::detail::mixed(hash + 1)) < options_.armed;
    return places_.try_emplace(std::string(name), place{armed ? options_.fires : 0, 0, 0}).first->second;
}
inline bool fault_plan::fires(std::string_view name) {
    place& p = at(name);
    ++p.asked;
    cordon::detail::chance* const simulated = cordon::detail::simulated_chance();
    const bool strikes = simulated != nullptr ? simulated->decide(p.share) : random_.next() < p.share;
    if (!strikes) return false;
    ++p.fired;
    return true;
}
inline void fault_plan::set(std::string_view name, double share) { at(name).share = checked("share", share); }
inline std::vector<fault_plan::site> fault_plan::sites() const {
    std::vector<site> all;
    for (const auto& [name, p] : places_) all.push_back({name, p.share > 0, p.asked, p.fired});
    return all;
}

}  // namespace testing
}  // namespace cordon::inline CORDON_ABI
