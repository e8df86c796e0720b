// SPDX-License-Identifier: MIT
#pragma once

// A line for each request, and the two values of its context that name it there: whatever runs below the `with` that
// binds them finds them, at any depth, without an argument for each.

#include "wire.hpp"

#include <cordon/cordon.hpp>

#include <chrono>
#include <ctime>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace gateway {

namespace co = cordon;

inline constexpr co::context_key<std::string> request_id{"request_id"};
inline constexpr co::context_key<trace_parent> trace{"trace"};  // whose parent_id is this hop's own

class access_log {
public:
    /// Appends to `file`, or writes to stderr if that is empty.
    explicit access_log(const std::string& file) {
        if (file.empty()) return;
        file_.open(file, std::ios::app);
        if (!file_) throw std::invalid_argument("--log is \"" + file + "\", allowed is a file that can be written to");
    }

    /// Writes: time, request id, trace id, method, target, status, milliseconds. What is unknown is `-`.
    co::task<> write(std::string_view method, std::string_view target, unsigned status, co::clock::duration took) {
        const std::string* const id = co_await co::this_task::get(request_id);
        const trace_parent* const in = co_await co::this_task::get(trace);
        std::ostringstream line;  // written as one piece: other threads write to the same file
        write_time(line);
        line << ' ' << (id != nullptr ? *id : "-") << ' ' << (in != nullptr ? in->trace_id : "-") << ' ' << method << ' '
             << target << ' ' << status << ' ' << std::fixed << std::setprecision(1)
             << std::chrono::duration<double, std::milli>(took).count() << '\n';
        (file_.is_open() ? file_ : std::clog) << line.str() << std::flush;
    }

private:
    static void write_time(std::ostream& out) {
        using namespace std::chrono;
        const auto now = time_point_cast<std::chrono::milliseconds>(system_clock::now());
        const std::time_t seconds = system_clock::to_time_t(now);
        std::tm utc{};
        gmtime_r(&seconds, &utc);
        out << std::put_time(&utc, "%FT%T.") << std::setw(3) << std::setfill('0')
            << now.time_since_epoch().count() % 1000 << 'Z';
    }

    std::ofstream file_;
};

}  // namespace gateway
