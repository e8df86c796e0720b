// SPDX-License-Identifier: MIT
#pragma once

// What became of each request, as the client saw it.

#include "histogram.hpp"
#include "schedule.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iomanip>
#include <map>
#include <optional>
#include <ostream>
#include <string_view>
#include <vector>

namespace loadgen {

enum class outcome : std::uint8_t {
    ok,                 // a complete answer with a status of 200 to 299
    status,             // a complete answer with another status
    refused,            // no connection could be made
    reset_before_send,  // the connection broke before the kernel had all of the request
    reset_after_send,   // the request was sent; the connection ended before the answer was complete
    timeout,            // no complete answer in time
    malformed,          // what came is not HTTP, or names another request
    abandoned,          // cut off by a second SIGINT
};
inline constexpr std::array<std::string_view, 8> outcome_names{
    "ok", "status", "refused", "reset_before_send", "reset_after_send", "timeout", "malformed", "abandoned"};

inline bool is_answered(outcome o) noexcept { return o == outcome::ok || o == outcome::status; }

class tally {
public:
    /// What is remembered of a request, to be joined with the ledger.
    struct fate {
        bool counted = false;
        bool unanswered_at_end = false;  // sent before the end, and never answered
        outcome ended = outcome::abandoned;
    };

    /// A request from when it is taken up until it dies, by whatever: then it is counted, as what it is called by then.
    class attempt {
    public:
        attempt(tally& counted_in, const schedule::request& r) : tally_(counted_in), request_(r) {}
        attempt(const attempt&) = delete;
        ~attempt() { tally_.add(*this); }

        [[nodiscard]] std::uint64_t number() const noexcept { return request_.number; }

        outcome ended = outcome::abandoned;
        unsigned status = 0;
        std::size_t nth = 0;  // of the requests on its connection
        std::optional<schedule::time_point> connected_at, sent_at;  // of the connection; when the kernel had all of it

    private:
        friend class tally;
        tally& tally_;
        const schedule::request request_;
    };

    /// `each` gets a line for each request that counts, when it has ended. Lifetime: it outlives the tally
    explicit tally(const schedule& plan, std::ostream* each = nullptr) : plan_(plan), each_(each) {
        if (each_ != nullptr)
            *each_ << std::fixed << std::setprecision(6)
                   << "number\tdue_at\tconnected_at\tsent_at\tended_at\toutcome\tstatus\tnth\n";
    }

    [[nodiscard]] std::uint64_t operator[](outcome o) const noexcept { return counts_[static_cast<std::size_t>(o)]; }
    /// Those that count, and have ended.
    [[nodiscard]] std::uint64_t total() const noexcept { return ok.count() + others.count(); }
    [[nodiscard]] const std::vector<fate>& fates() const noexcept { return fates_; }
    /// Open loop: those that were due, but found no connection free before the end. No histogram has them.
    [[nodiscard]] std::uint64_t never_sent() const {
        const std::uint64_t due = plan_.due_so_far();
        return due > total() ? due - total() : 0;
    }

    histogram ok, others;                        // latencies, from when a request was due
    std::map<unsigned, std::uint64_t> statuses;  // other than 200 to 299

private:
    void add(const attempt& a) {
        const schedule::time_point now = co::clock::now();
        if (fates_.size() <= a.number()) fates_.resize(a.number() + 1);
        fate& f = fates_[a.number()];
        f.counted = plan_.counts(a.request_);
        f.ended = a.ended;
        f.unanswered_at_end = a.sent_at && !is_answered(a.ended) && now > plan_.ends_at();
        if (!f.counted) return;
        ++counts_[static_cast<std::size_t>(a.ended)];
        if (a.ended == outcome::status) ++statuses[a.status];
        (a.ended == outcome::ok ? ok : others).record(now - a.request_.due);
        if (each_ != nullptr)
            *each_ << a.number() << '\t' << in_seconds(a.request_.due) << '\t' << in_seconds(a.connected_at) << '\t'
                   << in_seconds(a.sent_at) << '\t' << in_seconds(now) << '\t'
                   << outcome_names[static_cast<std::size_t>(a.ended)] << '\t' << a.status << '\t' << a.nth << '\n';
    }
    static double in_seconds(std::optional<schedule::time_point> t) {
        return t ? std::chrono::duration<double>(t->time_since_epoch()).count() : 0;
    }

    const schedule& plan_;
    std::ostream* each_;
    std::array<std::uint64_t, outcome_names.size()> counts_{};
    std::vector<fate> fates_;  // by number
};

}  // namespace loadgen
