// SPDX-License-Identifier: MIT
#include "json_values.hpp"

#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/src.hpp>  // all of Boost.JSON, in this file alone

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <istream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace gateway {
namespace {

namespace json = boost::json;
using boost::system::error_code;

/// Notes every value with its path and the line where it ends. Its parser is fed line by line.
class collector {
public:
    static constexpr std::size_t max_object_size = 1000, max_array_size = 1000, max_key_size = 100,
                                 max_string_size = 1000;

    json_values found;
    std::size_t line = 0;
    std::string problem;  // that is not one of syntax

    bool on_document_begin(error_code&) { return true; }
    bool on_document_end(error_code&) { return true; }
    bool on_object_begin(error_code& ec) {
        const bool root = std::exchange(is_root_, false);
        if (!root) return open(json_value::kind::object, "an object", ec);
        in_.emplace_back();
        return true;
    }
    bool on_object_end(std::size_t, error_code&) { return close(); }
    bool on_array_begin(error_code& ec) {
        return is_root_ ? note(json_value::kind::list, "a list", ec) : open(json_value::kind::list, "a list", ec);
    }
    bool on_array_end(std::size_t, error_code&) { return close(); }
    bool on_key_part(json::string_view s, std::size_t, error_code&) { return more(s); }
    bool on_key(json::string_view s, std::size_t, error_code&) {
        key_ = take(s);
        return true;
    }
    bool on_string_part(json::string_view s, std::size_t, error_code&) { return more(s); }
    bool on_string(json::string_view s, std::size_t, error_code& ec) {
        return note(json_value::kind::text, take(s), ec);
    }
    bool on_number_part(json::string_view s, error_code&) { return more(s); }
    bool on_int64(std::int64_t, json::string_view s, error_code& ec) { return number(s, ec); }
    bool on_uint64(std::uint64_t, json::string_view s, error_code& ec) { return number(s, ec); }
    bool on_double(double, json::string_view s, error_code& ec) { return number(s, ec); }
    bool on_bool(bool b, error_code& ec) {
        return b ? note(json_value::kind::other, "true", ec) : note(json_value::kind::no, "false", ec);
    }
    bool on_null(error_code& ec) { return note(json_value::kind::other, "null", ec); }
    bool on_comment_part(json::string_view, error_code&) { return true; }
    bool on_comment(json::string_view, error_code&) { return true; }

private:
    /// An object or a list whose end is still to come.
    struct level {
        std::string path;
        bool is_list = false;
        std::size_t seen = 0;  // of a list: values so far
    };

    bool open(json_value::kind is, std::string said, error_code& ec) {
        const std::string path = path_of_next();
        in_.push_back({path, is == json_value::kind::list});
        return note_at(path, is, std::move(said), ec);
    }
    bool close() {
        in_.pop_back();
        return true;
    }
    bool more(json::string_view part) {
        text_.append(part.data(), part.size());
        return true;
    }
    std::string take(json::string_view rest) {
        std::string all = std::exchange(text_, {});
        return all.append(rest.data(), rest.size());
    }
    bool number(json::string_view s, error_code& ec) { return note(json_value::kind::number, take(s), ec); }
    bool note(json_value::kind is, std::string said, error_code& ec) {
        if (!is_root_) return note_at(path_of_next(), is, std::move(said), ec);
        problem = "the file holds " + said + ", allowed is an object";
        ec = json::error::syntax;
        return false;
    }
    bool note_at(const std::string& path, json_value::kind is, std::string said, error_code& ec) {
        if (found.emplace(path, json_value{line, is, std::move(said)}).second) return true;
        problem = path + " is there twice";
        ec = json::error::syntax;
        return false;
    }
    [[nodiscard]] std::string path_of_next() {
        level& inner = in_.back();
        if (inner.is_list) return inner.path + '[' + std::to_string(inner.seen++) + ']';
        if (inner.path == "routes") return "routes[\"" + key_ + "\"]";
        return inner.path.empty() ? key_ : inner.path + '.' + key_;
    }

    std::string key_, text_;
    std::vector<level> in_;  // the innermost is the last
    bool is_root_ = true;
};

}  // namespace

void fail_in(const std::string& file, std::size_t line, const std::string& what) {
    throw std::invalid_argument(file + ':' + std::to_string(std::max<std::size_t>(line, 1)) + ": " + what);
}

json_values read_json(std::istream& in, const std::string& file) {
    json::parse_options relaxed;
    relaxed.allow_comments = true;
    json::basic_parser<collector> parser(relaxed);
    collector& seen = parser.handler();
    std::string text;
    error_code error;
    while (!error && std::getline(in, text)) {
        ++seen.line;
        text += '\n';
        const std::size_t used = parser.write_some(true, text.data(), text.size(), error);
        if (!error && used < text.size() && text.find_first_not_of(" \t\r\n", used) != text.npos)
            error = json::error::extra_data;
    }
    if (!error && !parser.done()) parser.write_some(false, "", 0, error);
    if (error) fail_in(file, seen.line, seen.problem.empty() ? "no JSON: " + error.message() : seen.problem);
    return std::move(seen.found);
}

}  // namespace gateway
