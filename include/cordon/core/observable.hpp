// SPDX-License-Identifier: MIT
#pragma once

// What metrics and dumps ask of a primitive: a name, and all its figures at one moment, each with a name and a sentence
// of its own. Registries and exporters know only these concepts, so that no primitive knows of any registry.
//
//     static constexpr std::string_view kind = "cache";
//     std::string_view name() const noexcept;
//     snapshot stats() const noexcept;
//     template <class Sink>
//     void report(Sink& sink) const {
//         const snapshot now = stats();
//         sink.counter("hits", now.hits, "Look-ups that found what they looked for.");
//         sink.gauge("size", now.size, "Entries.");
//     }

#include <cordon/core/detail/config.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <type_traits>

namespace cordon::inline CORDON_ABI {

enum class metric_type : std::uint8_t {
    counter,  ///< a total that only grows, from 0 when its primitive was made
    gauge,    ///< a value that goes up and down
    state,    ///< one of several that have names
};

/// One figure, while it is reported. Its texts are valid only then.
struct metric {
    metric_type type = metric_type::gauge;
    std::string_view name;                     ///< "hits": without the kind; a unit comes last, "age_seconds"
    std::string_view help;                     ///< a sentence
    std::uint64_t total = 0;                   ///< of a counter
    double value = 0;                          ///< of a gauge
    std::size_t state = 0;                     ///< of a state: the index of its name in `states`
    std::span<const std::string_view> states;  ///< the names of all its states
};

/// What figures are reported to; hands each figure to a callable.
/// Lifetime:      the callable outlives it
class metric_sink {
public:
    template <class F>
        requires std::invocable<F&, const metric&>
    explicit metric_sink(F& take) noexcept
        : take_(const_cast<void*>(static_cast<const void*>(std::addressof(take)))),
          call_([](void* f, const metric& m) { (*static_cast<F*>(f))(m); }) {}
    metric_sink(const metric_sink&) = delete;
    metric_sink& operator=(const metric_sink&) = delete;

    void counter(std::string_view name, std::uint64_t total, std::string_view help) {
        call_(take_, {.type = metric_type::counter, .name = name, .help = help, .total = total, .states = {}});
    }
    template <class Number>
        requires std::is_arithmetic_v<Number>
    void gauge(std::string_view name, Number value, std::string_view help) {
        const auto as_double = static_cast<double>(value);
        call_(take_, {.type = metric_type::gauge, .name = name, .help = help, .value = as_double, .states = {}});
    }
    /// `now` is an index of `names`; if it is none, no state is the present one.
    void state(std::string_view name, std::size_t now, std::span<const std::string_view> names, std::string_view help) {
        call_(take_, {.type = metric_type::state, .name = name, .help = help, .state = now, .states = names});
    }

private:
    void* take_;
    void (*call_)(void*, const metric&);
};

/// A type with `name()`, empty if it has none, and `stats()`, a consistent snapshot that is copied out.
template <class T>
concept observable = requires(const T& t) {
    { t.name() } noexcept -> std::convertible_to<std::string_view>;
    { t.stats() } noexcept;
    requires std::is_object_v<decltype(t.stats())> && std::copyable<decltype(t.stats())>;
};

/// An `observable` that says what its figures are: by `kind`, a constant in snake_case, and `report(sink)`, which gives
/// one snapshot, with the same figures in the same order each time. The sink is a `metric_sink`; a template can do
/// without this header, and takes sinks of tests.
template <class T>
concept reportable = observable<T> && requires(const T& t, metric_sink& sink) {
    { T::kind } -> std::convertible_to<std::string_view>;
    t.report(sink);
};

}  // namespace cordon::inline CORDON_ABI
