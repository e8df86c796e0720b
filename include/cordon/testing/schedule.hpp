// SPDX-License-Identifier: MIT
#pragma once

// A schedule as a value and as a short text, so that one that failed can be run again: by a test, or by who reads its
// output.
//
//     CORDON_SIM=7            all that seed 7 chooses
//     CORDON_SIM=7/3:1,9:2x4  of what is ready the first; but at choice 3 the second, at choices 9 to 12 the third
//
// Whether something goes wrong, by `fault` or `chaos`, is a choice as well: the first is that it does not.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/raise.hpp>

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace testing {

/// What a run chose: among several that were ready, or whether a `fault` or `chaos` strikes. Enough to run the same
/// schedule again.
struct choice {
    std::uint32_t taken = 0;
    std::uint32_t of = 1;
    bool strikes = false;  ///< the latter: 0 it does not, 1 it does

    friend bool operator==(const choice&, const choice&) = default;
};

/// Which of those that are ready goes on, wherever a run finds several.
class schedule {
public:
    /// What the seed chooses, each time.
    schedule(std::uint64_t seed = 0) noexcept : seed_(seed) {}
    /// What an earlier run chose, `sim.trace()`, and from its end on the first. What else the run took from its seed
    /// stays the same: `simulation::seed()`.
    schedule(const std::vector<choice>& trace, std::uint64_t seed = 0);

    [[nodiscard]] std::uint64_t seed() const noexcept { return seed_; }
    /// Whether all its choices are those of the seed.
    [[nodiscard]] bool is_seeded() const noexcept { return seeded_; }
    /// The choices, counted from 0, up to the last that is not the first of what is ready; none if it is seeded.
    [[nodiscard]] const std::vector<std::uint32_t>& choices() const noexcept { return choices_; }

    /// As above, without `CORDON_SIM=`: the seed, and unless it is seeded a slash and those choices that are not the
    /// first: `position:taken`, and `xN` for N of the same in a row.
    [[nodiscard]] std::string to_string() const;
    /// The schedule that gives this text.
    /// Errors:        `std::invalid_argument`, which begins with `name`, and says what was expected at which character
    [[nodiscard]] static schedule from_string(std::string_view text, std::string_view name = "schedule");

    friend bool operator==(const schedule&, const schedule&) = default;

private:
    class reader;

    std::uint64_t seed_;
    bool seeded_ = true;
    std::vector<std::uint32_t> choices_;  ///< the last is not 0
};

// --- below: bodies ----------------------------------------------------------------------------------------------

inline schedule::schedule(const std::vector<choice>& trace, std::uint64_t seed) : seed_(seed), seeded_(false) {
    for (const choice& c : trace) choices_.push_back(c.taken);
    while (!choices_.empty() && choices_.back() == 0) choices_.pop_back();
}

inline std::string schedule::to_string() const {
    std::string text = std::to_string(seed_);
    if (seeded_) return text;
    char separator = '/';
    for (std::size_t i = 0, next = 0; i < choices_.size(); i = next) {
        for (next = i + 1; next < choices_.size() && choices_[next] == choices_[i];) ++next;
        if (choices_[i] == 0) continue;
        (text += separator) += std::to_string(i) + ':' + std::to_string(choices_[i]);
        if (next - i > 1) text += 'x' + std::to_string(next - i);
        separator = ',';
    }
    return separator == '/' ? text + '/' : text;
}

class schedule::reader {
public:
    reader(std::string_view text, std::string_view name) : text_(text), name_(name) {}

    schedule read() {
        schedule s(number("a seed", 0, (std::numeric_limits<std::uint64_t>::max)()));
        if (at_end()) return s;
        if (!skip('/')) fail("'/', or the end,");
        s.seeded_ = false;
        if (at_end()) return s;
        do {
            const std::uint64_t first = number("the number of a choice", s.choices_.size(), max_choices - 1);
            if (!skip(':')) fail("':'");
            const std::uint64_t taken = number("what is chosen", 1, (std::numeric_limits<std::uint32_t>::max)());
            const std::uint64_t times = skip('x') ? number("how often", 1, max_choices - first) : 1;
            s.choices_.resize(first);
            s.choices_.resize(first + times, static_cast<std::uint32_t>(taken));
        } while (skip(','));
        if (!at_end()) fail("',', or the end,");
        return s;
    }

private:
    static constexpr std::uint64_t max_choices = std::uint64_t{1} << 26;  // more is a typing error

    [[nodiscard]] bool at_end() const noexcept { return at_ == text_.size(); }
    bool skip(char c) noexcept {
        const bool is_there = !at_end() && text_[at_] == c;
        at_ += is_there ? 1 : 0;
        return is_there;
    }
    std::uint64_t number(const char* what, std::uint64_t min, std::uint64_t max) {
        std::uint64_t n = 0;
        const auto [behind, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), n);
        if (error != std::errc() || n < min || n > max)
            fail(what + (", " + std::to_string(min)) + " to " + std::to_string(max) + ',');
        at_ = static_cast<std::size_t>(behind - text_.data());
        return n;
    }
    [[noreturn]] void fail(const std::string& expected) const {
        const std::string said = std::string(name_) + ": \"" + std::string(text_) + "\" is no schedule: " + expected +
                                 " is expected at character " + std::to_string(at_ + 1);
        detail::raise(std::invalid_argument(said), said.c_str());
    }

    std::string_view text_, name_;
    std::size_t at_ = 0;
};

inline schedule schedule::from_string(std::string_view text, std::string_view name) {
    return reader(text, name).read();
}

}  // namespace testing
}  // namespace cordon::inline CORDON_ABI
