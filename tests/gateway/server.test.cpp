// SPDX-License-Identifier: MIT
#include "server.hpp"

#include "catch.hpp"

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <iostream>
#include <new>
#include <optional>
#include <sstream>
#include <streambuf>
#include <string>
#include <utility>

namespace {

bool memory_is_short = false;  // for the next allocation; everything here runs on one thread

/// Keeps what is written to a stream while it lives.
class overheard {
public:
    explicit overheard(std::ostream& stream) : stream_(stream), before_(stream.rdbuf(text_.rdbuf())) {}
    overheard(const overheard&) = delete;
    ~overheard() { stream_.rdbuf(before_); }
    [[nodiscard]] std::string text() const { return text_.str(); }

private:
    std::ostream& stream_;
    std::ostringstream text_;
    std::streambuf* before_;
};

}  // namespace

void* operator new(std::size_t size) {
    if (std::exchange(memory_is_short, false)) throw std::bad_alloc();
    if (void* const made = std::malloc(size)) return made;
    throw std::bad_alloc();
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return std::malloc(size); }
// Not inlined: g++ 12 would find a free() of what another operator new gave.
[[gnu::noinline]] void operator delete(void* made) noexcept { std::free(made); }
[[gnu::noinline]] void operator delete(void* made, std::size_t) noexcept { std::free(made); }

TEST_CASE("a server that fails to accept says so, and has the process drain", "[gateway][server]") {
    namespace co = cordon;
    using gateway::tcp;
    const overheard out(std::cout), err(std::cerr);
    gateway::options opts;
    opts.log = "/dev/null";
    gateway::process all(opts, 1);
    boost::asio::io_context io{1};
    gateway::service shared(opts, all.common, io.get_executor());
    co::asio_executor executor{io};
    gateway::server served(io, executor, shared, all, {boost::asio::ip::address_v4::loopback(), 0});
    std::optional<co::outcome<gateway::drained>> ended;
    co::start_on(executor, served.run(), [&](co::outcome<gateway::drained> o) { ended.emplace(std::move(o)); });
    io.poll();
    boost::asio::io_context clients;
    tcp::socket client(clients);
    client.connect(served.address());
    memory_is_short = true;
    io.run_for(std::chrono::seconds(5));
    CHECK_FALSE(memory_is_short);
    REQUIRE(ended);
    CHECK(ended->has_value());
    CHECK(all.failed);
    CHECK(all.ending.is_set());
    CHECK(err.text() == "gateway: std::bad_alloc\n");
}
