// SPDX-License-Identifier: MIT
#pragma once

// How the calls of the last while ended, in a ring of buckets. A call that went well writes one word.

#include <cordon/breaker/detail/count_log.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/detail/config.hpp>

#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// A word of a bucket is a count (lower 28 bits) and the tag of the bucket's time (36 bits): buckets since the log was
/// made, plus the generation times the number of buckets. Tags may overflow: with buckets of a millisecond two years
/// later. Then a bucket that nobody used for exactly that time would seem to be the present one.
// T1 A word only goes from an older tag to a newer one: who is late, by less than 2^20 buckets, writes into his own
//    bucket, or nowhere. What is further apart is an idle time, not a late writer.
// T2 With the generation every tag moves up by a whole window, so that no call of one generation is in the window of
//    another, whenever it writes.
// T3 Counts are written and read in one total order (seq_cst): of two who write and then count, one sees both.
// T4 In one bucket's time a success can only lower a rate, or bring the minimum of calls. So a success that is not the
//    first of its bucket needs to look only while the minimum is not there: few_ says so from before a look on
//    (seq_cst), and whoever counts and does not see it yet is seen by that look. So it is with last_bad_, which a
//    failure or a slow call sets before its own look: a success that does not see it is in what that look counts.
// T5 A bucket that is full counts no more calls, neither as failed nor as slow: so a rate stays one.
class alignas(64) time_log {
public:
    /// `buckets` 0: never used.
    time_log(clock::time_point now, clock::duration span, std::uint32_t buckets)
        : begun_(now),
          width_(buckets == 0 ? 1 : span.count() / buckets),
          buckets_(buckets),
          mask_(std::bit_ceil(buckets + 1) - 1),
          words_(new words[buckets == 0 ? 1 : mask_ + 1]{}) {}

    [[nodiscard]] std::uint64_t tag_at(std::uint64_t generation, clock::time_point t) const noexcept {
        const auto since = static_cast<std::uint64_t>(t < begun_ ? 0 : (t - begun_).count());
        return (since / static_cast<std::uint64_t>(width_) + generation * buckets_) & tag_mask;
    }
    /// Returns:       whether a look at the window may find a rate that is reached
    bool record(std::uint64_t tag, bool failed, bool slow) noexcept {
        words& bucket = words_[tag & mask_];
        const std::uint64_t n = add(bucket.calls, tag);
        if (failed && n != 0) add(bucket.failed, tag);  // T5
        if (slow && n != 0) add(bucket.slow, tag);
        if (failed || slow) {
            advance(last_bad_, tag);
            return true;
        }
        const std::uint64_t bad = last_bad_.load(std::memory_order_seq_cst);    // T4
        if (bad == 0 || ((tag + 1 - bad) & tag_mask) >= buckets_) return false;  // nothing but successes
        return n == 1 || few_.load(std::memory_order_seq_cst) == tag + 1;         // T4
    }
    /// Before and after a look at the window that ends with `tag`.
    void begin_look(std::uint64_t tag) noexcept { advance(few_, tag); }  // T4
    void end_look(std::uint64_t tag, bool few) noexcept {
        std::uint64_t mine = tag + 1;
        if (!few) few_.compare_exchange_strong(mine, 0, std::memory_order_relaxed);
    }
    /// The window that ends with `tag`.
    [[nodiscard]] call_tally tally(std::uint64_t tag) const noexcept {
        call_tally sum;
        for (std::uint32_t i = 0; i < buckets_; ++i) {
            const std::uint64_t t = (tag - i) & tag_mask;
            const words& bucket = words_[t & mask_];
            sum.calls += read(bucket.calls, t);
            sum.failed += read(bucket.failed, t);
            sum.slow += read(bucket.slow, t);
        }
        return sum;
    }

private:
    using word = std::atomic<std::uint64_t>;
    struct words {
        word calls{0}, failed{0}, slow{0};
    };
    static constexpr int count_bits = 28;
    static constexpr std::uint64_t count_mask = (std::uint64_t{1} << count_bits) - 1;
    static constexpr std::uint64_t tag_mask = (std::uint64_t{1} << 36) - 1;

    static bool newer(std::uint64_t a, std::uint64_t b) noexcept {
        return a != b && ((a - b) & tag_mask) < (std::uint64_t{1} << 20);
    }
    /// Returns:       the count with this one; 0: it was not counted
    static std::uint64_t add(word& w, std::uint64_t tag) noexcept {
        std::uint64_t seen = w.load(std::memory_order_relaxed), next;
        do {
            const std::uint64_t theirs = seen >> count_bits;
            if (theirs == tag && (seen & count_mask) == count_mask) return 0;  // T5
            if (theirs == tag) next = seen + 1;
            else if (newer(theirs, tag) && (seen & count_mask) != 0) return 0;  // T1
            else next = tag << count_bits | 1;
        } while (!w.compare_exchange_weak(seen, next, std::memory_order_seq_cst, std::memory_order_relaxed));  // T3
        return next & count_mask;
    }
    /// Writes one more than `tag`, unless a later one is there.
    static void advance(word& w, std::uint64_t tag) noexcept {
        std::uint64_t seen = w.load(std::memory_order_seq_cst);
        do {
            if (seen != 0 && newer(seen - 1, tag)) return;
        } while (!w.compare_exchange_weak(seen, tag + 1, std::memory_order_seq_cst, std::memory_order_seq_cst));
    }
    static std::uint64_t read(const word& w, std::uint64_t tag) noexcept {
        const std::uint64_t seen = w.load(std::memory_order_seq_cst);  // T3
        return seen >> count_bits == tag ? seen & count_mask : 0;
    }

    const clock::time_point begun_;
    const clock::rep width_;
    const std::uint32_t buckets_;
    const std::uint32_t mask_;
    const std::unique_ptr<words[]> words_;
    word last_bad_{0};  ///< one more than the tag of the last such call
    word few_{0};       ///< one more than the tag in which the minimum of calls was not there; 0: it was
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
