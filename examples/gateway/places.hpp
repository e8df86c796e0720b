// SPDX-License-Identifier: MIT
#pragma once

// A bulkhead that goes on when the numbers of a configuration change.

#include "options.hpp"

#include <cordon/limit/bulkhead.hpp>

#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>

namespace gateway {

namespace co = cordon;

class places {
public:
    /// No numbers: as many as anybody wants.
    /// `before`: with the same number that may wait, its bulkhead is this one's, of its size until `take_over`
    places(const std::optional<bulkhead_numbers>& numbers, std::string_view name, const places* before)
        : numbers_(numbers.value_or(bulkhead_numbers{co::bulkhead::max_limit, 0})),
          bulkhead_(before != nullptr && before->numbers_.waiting == numbers_.waiting ? before->bulkhead_
                                                                                      : make(numbers_, name)) {}

    void take_over() { bulkhead_->resize(numbers_.concurrent); }

    [[nodiscard]] co::bulkhead& operator*() const noexcept { return *bulkhead_; }
    [[nodiscard]] co::bulkhead* operator->() const noexcept { return bulkhead_.get(); }

private:
    static std::shared_ptr<co::bulkhead> make(const bulkhead_numbers& numbers, std::string_view name) {
        const co::bulkhead_options options{.name = name, .max_waiting = numbers.waiting};
        return std::make_shared<co::bulkhead>(numbers.concurrent, options);
    }

    const bulkhead_numbers numbers_;
    const std::shared_ptr<co::bulkhead> bulkhead_;
};

}  // namespace gateway
