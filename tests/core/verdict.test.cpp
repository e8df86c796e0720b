// SPDX-License-Identifier: MIT
#include <cordon/core/verdict.hpp>

#include "catch.hpp"

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <source_location>
#include <stdexcept>
#include <string>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <utility>

namespace {

namespace co = cordon;
using co::outcome;
using co::outcome_classifier;
using co::rejection;
using co::verdict;

struct reply {
    int status = 200;
};

template <class E>
outcome<int> failed(E e) {
    return outcome<int>(std::make_exception_ptr(std::move(e)));
}
outcome<int> refused(co::reject_reason why) { return outcome<int>(rejection(why, "somebody")); }
std::system_error system(std::errc e) { return std::system_error(std::make_error_code(e)); }
std::error_code code(std::errc e) { return std::make_error_code(e); }

/// Converts to a code, as those of other libraries do.
struct foreign_code {
    bool bad = false;
    operator std::error_code() const { return bad ? code(std::errc::io_error) : std::error_code(); }  // NOLINT
};

// Calls do not carry the address of what has nothing to say.
static_assert(std::is_empty_v<outcome_classifier<>>);
static_assert(sizeof(outcome_classifier<>().failing_when([](int) { return true; }).ignoring([](int) {
                  return false;
              })) <= 4);

}  // namespace

TEST_CASE("only success and failure count", "[core][verdict]") {
    static_assert(std::is_same_v<std::underlying_type_t<verdict>, std::uint8_t>);
    CHECK(co::counts(verdict::success));
    CHECK(co::counts(verdict::failure));
    CHECK_FALSE(co::counts(verdict::ignored));
    CHECK_FALSE(co::counts(verdict::stopped));
}

TEST_CASE("unless told otherwise a value is a success and an exception a failure", "[core][verdict]") {
    const outcome_classifier<> judge;
    CHECK(judge(outcome<int>(3)) == verdict::success);
    CHECK(judge(outcome<void>()) == verdict::success);
    CHECK(judge(outcome<reply>(reply{503})) == verdict::success);
    int n = 0;
    CHECK(judge(outcome<int&>(std::in_place, &n)) == verdict::success);
    CHECK(judge(failed(std::runtime_error("r"))) == verdict::failure);
    CHECK(judge(failed(system(std::errc::timed_out))) == verdict::failure);
    CHECK(judge(failed(co::timeout_error(std::source_location::current()))) == verdict::failure);
    CHECK(judge(failed(42)) == verdict::failure);  // no std::exception
    CHECK(judge(outcome<int>::stopped()) == verdict::stopped);
}

TEST_CASE("a programming error, which no repetition mends, is ignored", "[core][verdict]") {
    const outcome_classifier<> judge;
    CHECK(judge(failed(std::logic_error("l"))) == verdict::ignored);
    CHECK(judge(failed(std::invalid_argument("l"))) == verdict::ignored);
    const auto asks_of_values = outcome_classifier<>().failing_when([](int) { return true; });
    CHECK(asks_of_values(failed(std::out_of_range("l"))) == verdict::ignored);
    const auto all = outcome_classifier<>().failing_when([](const std::exception&) { return true; });
    CHECK(all(failed(std::logic_error("l"))) == verdict::failure);
}

TEST_CASE("a refusal further in is ignored, for nobody was asked", "[core][verdict]") {
    const outcome_classifier<> judge;
    CHECK(judge(refused(co::reject_reason::full)) == verdict::ignored);
    CHECK(judge(refused(co::reject_reason::circuit_open)) == verdict::ignored);
    static_assert(!outcome_classifier<>::judges_rejections);
    const auto full =
        outcome_classifier<>().failing_when([](const rejection& r) { return r.reason == co::reject_reason::full; });
    static_assert(decltype(full)::judges_rejections);
    CHECK(full(refused(co::reject_reason::full)) == verdict::failure);
    CHECK(full(refused(co::reject_reason::draining)) == verdict::ignored);
    CHECK(full(failed(std::runtime_error("r"))) == verdict::failure);
    CHECK(full(outcome<int>(1)) == verdict::success);
}

TEST_CASE("an error_code that is set is a failure, alone or as the first of a tuple", "[core][verdict]") {
    const outcome_classifier<> judge;
    const std::error_code none, some = code(std::errc::connection_reset);
    CHECK(judge(outcome<std::error_code>(none)) == verdict::success);
    CHECK(judge(outcome<std::error_code>(some)) == verdict::failure);
    using read = std::tuple<std::error_code, std::size_t>;
    CHECK(judge(outcome<read>(read(none, 5))) == verdict::success);
    CHECK(judge(outcome<read>(read(some, 0))) == verdict::failure);
    using twin = std::pair<std::error_code, int>;
    CHECK(judge(outcome<twin>(twin(some, 0))) == verdict::failure);
    using three = std::array<std::error_code, 3>;
    CHECK(judge(outcome<three>(three{none, some, some})) == verdict::success);
    using second = std::tuple<int, std::error_code>;
    CHECK(judge(outcome<second>(second(1, some))) == verdict::success);
    CHECK(judge(outcome<foreign_code>(foreign_code{true})) == verdict::failure);
    CHECK(judge(outcome<foreign_code>(foreign_code{})) == verdict::success);
    using foreign_read = std::tuple<foreign_code, int>;
    CHECK(judge(outcome<foreign_read>(foreign_read(foreign_code{true}, 1))) == verdict::failure);
    CHECK(judge(outcome<bool>(true)) == verdict::success);
    CHECK(judge(outcome<std::tuple<>>(std::tuple<>())) == verdict::success);
}

TEST_CASE("a predicate of values decides of them alone", "[core][verdict]") {
    const auto judge = outcome_classifier<>().failing_when([](const reply& r) { return r.status >= 500; });
    CHECK(judge(outcome<reply>(reply{503})) == verdict::failure);
    CHECK(judge(outcome<reply>(reply{404})) == verdict::success);
    CHECK(judge(failed(std::runtime_error("r"))) == verdict::failure);
    CHECK(judge(failed(std::logic_error("l"))) == verdict::ignored);
    CHECK(judge(refused(co::reject_reason::full)) == verdict::ignored);
    CHECK(judge(outcome<int>(503)) == verdict::success);  // no reply
    CHECK(judge(outcome<void>()) == verdict::success);
    CHECK(judge(outcome<reply>::stopped()) == verdict::stopped);
}

TEST_CASE("a predicate of codes decides of values and of exceptions that have one", "[core][verdict]") {
    const auto judge = outcome_classifier<>().failing_when([](std::error_code e) { return e == std::errc::timed_out; });
    const std::error_code late = code(std::errc::timed_out), other = code(std::errc::io_error);
    CHECK(judge(outcome<std::error_code>(late)) == verdict::failure);
    CHECK(judge(outcome<std::error_code>(other)) == verdict::success);
    using read = std::tuple<std::error_code, std::size_t>;
    CHECK(judge(outcome<read>(read(late, 0))) == verdict::failure);
    CHECK(judge(outcome<read>(read(other, 0))) == verdict::success);
    CHECK(judge(failed(system(std::errc::timed_out))) == verdict::failure);
    CHECK(judge(failed(system(std::errc::io_error))) == verdict::ignored);
    CHECK(judge(failed(co::timeout_error(std::source_location::current()))) == verdict::failure);
    CHECK(judge(failed(std::runtime_error("has none"))) == verdict::failure);  // as if nobody had said anything
    CHECK(judge(failed(std::logic_error("has none"))) == verdict::ignored);
    CHECK(judge(outcome<int>(7)) == verdict::success);
}

TEST_CASE("a timeout fails whatever codes are said to fail, unless its own is said to count as nothing",
          "[core][verdict]") {
    const outcome<int> late = failed(co::timeout_error(std::source_location::current()));
    const auto reset =
        outcome_classifier<>().failing_when([](std::error_code e) { return e == std::errc::connection_reset; });
    CHECK(reset(late) == verdict::failure);
    CHECK(reset(failed(system(std::errc::timed_out))) == verdict::ignored);
    const auto patient = outcome_classifier<>().ignoring([](std::error_code e) { return e == std::errc::timed_out; });
    CHECK(patient(late) == verdict::ignored);
    const auto asks_all = outcome_classifier<>().failing_when([](const std::exception&) { return false; });
    CHECK(asks_all(late) == verdict::ignored);
}

TEST_CASE("only a predicate of a class of exceptions is taken for one", "[core][verdict]") {
    struct own : std::runtime_error {
        using std::runtime_error::runtime_error;
    };
    const auto asks = []<class P>(P) { return std::predicate<const P&, co::detail::any_exception>; };
    CHECK(asks([](const own&) { return true; }));
    CHECK(asks([](own) { return true; }));
    CHECK(asks([](const co::rejected&) { return true; }));
    CHECK_FALSE(asks([](const std::optional<own>&) { return true; }));
    CHECK_FALSE(asks([](int) { return true; }));
    CHECK_FALSE(asks([](const reply&) { return true; }));
    CHECK_FALSE(asks([](const std::string&) { return true; }));
    CHECK_FALSE(asks([](std::error_code) { return true; }));
    CHECK_FALSE(asks([](const rejection&) { return true; }));
    CHECK_FALSE(asks([](const std::exception_ptr&) { return true; }));
    CHECK_FALSE(asks([](const std::tuple<std::error_code, std::size_t>&) { return true; }));
}

TEST_CASE("a predicate of exceptions decides of them alone", "[core][verdict]") {
    const auto judge =
        outcome_classifier<>().failing_when([](const std::exception& e) { return std::string(e.what()) == "bad"; });
    CHECK(judge(failed(std::runtime_error("bad"))) == verdict::failure);
    CHECK(judge(failed(std::logic_error("bad"))) == verdict::failure);
    CHECK(judge(failed(std::runtime_error("fine"))) == verdict::ignored);
    CHECK(judge(failed(42)) == verdict::ignored);
    CHECK(judge(outcome<int>(1)) == verdict::success);
    CHECK(judge(refused(co::reject_reason::full)) == verdict::ignored);
}

TEST_CASE("a predicate of exception_ptr sees what is no std::exception as well", "[core][verdict]") {
    const auto is_number = [](const std::exception_ptr& e) {
        try {
            std::rethrow_exception(e);
        } catch (int) {
            return true;
        } catch (...) {
            return false;
        }
    };
    const auto judge = outcome_classifier<>().failing_when(is_number);
    CHECK(judge(failed(42)) == verdict::failure);
    CHECK(judge(failed(std::runtime_error("r"))) == verdict::ignored);
}

TEST_CASE("what is ignored is ignored whatever else is said", "[core][verdict]") {
    const auto judge = outcome_classifier<>()
                           .failing_when([](const reply& r) { return r.status >= 400; })
                           .ignoring([](const reply& r) { return r.status == 404 || r.status == 204; })
                           .ignoring([](std::error_code e) { return e == std::errc::operation_canceled; })
                           .ignoring([](const rejection& r) { return r.reason == co::reject_reason::full; });
    CHECK(judge(outcome<reply>(reply{500})) == verdict::failure);
    CHECK(judge(outcome<reply>(reply{404})) == verdict::ignored);
    CHECK(judge(outcome<reply>(reply{204})) == verdict::ignored);
    CHECK(judge(outcome<reply>(reply{200})) == verdict::success);
    CHECK(judge(failed(system(std::errc::operation_canceled))) == verdict::ignored);
    CHECK(judge(failed(system(std::errc::io_error))) == verdict::failure);
    CHECK(judge(outcome<std::error_code>(code(std::errc::operation_canceled))) == verdict::ignored);
    CHECK(judge(outcome<std::error_code>(code(std::errc::io_error))) == verdict::failure);
    CHECK(judge(failed(std::runtime_error("r"))) == verdict::failure);
    CHECK(decltype(judge)::judges_rejections);
}

TEST_CASE("several predicates of one kind are an or", "[core][verdict]") {
    const auto judge = outcome_classifier<>()
                           .failing_when([](int n) { return n == 1; })
                           .failing_when([](int n) { return n == 2; })
                           .failing_when([](const std::exception& e) { return std::string(e.what()) == "a"; })
                           .failing_when([](const std::exception& e) { return std::string(e.what()) == "b"; })
                           .failing_when([](std::error_code e) { return e == std::errc::io_error; });
    CHECK(judge(outcome<int>(1)) == verdict::failure);
    CHECK(judge(outcome<int>(2)) == verdict::failure);
    CHECK(judge(outcome<int>(3)) == verdict::success);
    CHECK(judge(failed(std::runtime_error("a"))) == verdict::failure);
    CHECK(judge(failed(std::runtime_error("b"))) == verdict::failure);
    CHECK(judge(failed(std::runtime_error("c"))) == verdict::ignored);
    CHECK(judge(failed(system(std::errc::io_error))) == verdict::failure);
}
