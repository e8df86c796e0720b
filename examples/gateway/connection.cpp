// SPDX-License-Identifier: MIT
#include "connection.hpp"

#include "admission.hpp"
#include "guards.hpp"
#include "message.hpp"
#include "service.hpp"
#include "upstream_link.hpp"
#include "wire.hpp"

#include <cordon/cordon.hpp>
#include <cordon/interop/boost_asio.hpp>

#include <boost/beast/core/string.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

namespace gateway {
namespace {

class connection {
public:
    connection(service& shared, tcp::socket client)
        : shared_(shared), client_(std::move(client)), links_(client_.get_executor(), shared.most_links) {
        error_code ignored;
        client_.set_option(tcp::no_delay(true), ignored);
        peer_ = client_.remote_endpoint(ignored).address().to_string();
    }

    /// Serves the client until it leaves, is silent for too long, or the gateway drains.
    co::task<> run() {
        try {
            for (bool stays = true; stays;) {
                stays = co_await wait_for_request();
                if (stays) stays = co_await serve_request();
            }
            co_await close_gently();
        } catch (const system_error&) {
            // The client is gone: there is nobody to answer.
        }
    }

private:
    /// Waits for a request, or the first bytes of it. While the gateway drains each connection is given a last chance,
    /// for a time that differs, so that connections end one after the other.
    /// Returns:       false if none came in time
    co::task<bool> wait_for_request() {
        if (buffer_.size() != 0) co_return true;
        const bool fresh = served_ == 0;
        const std::chrono::milliseconds patience = fresh ? shared_.opts.header : shared_.opts.idle;
        const double share = fresh ? 1 : std::uniform_real_distribution<double>(0.5, 1)(shared_.random);
        auto wait = [this] { return client_.async_wait(tcp::socket::wait_read, co::use_cordon); };
        const co::outcome<void> came = co_await in_time(wait, patience, shared_.linger() * share);
        co_return came.has_value() || has_unread_bytes();
    }

    /// Awaits `attempt()` within `patience`; and when the gateway drains, or as soon as it does, within `linger`.
    template <class Attempt, class Duration>
    co::task<co::outcome<void>> in_time(Attempt attempt, std::chrono::milliseconds patience, Duration linger) {
        if (!shared_.is_draining()) {
            co::outcome<void> ended = co_await co::as_outcome(
                co::with(attempt(), co::within(patience), co::stop_on(shared_.draining.get_token())));
            if (!ended.is_stopped()) co_return ended;
        }
        co_return co_await co::as_outcome(co::with_timeout(linger, attempt()));
    }

    /// Reads a request and answers it.
    /// Returns:       whether another may follow on this connection
    /// Errors:        system_error if the client is gone
    co::task<bool> serve_request() {
        const co::clock::time_point began = co::clock::now();
        ++served_;
        request_parser parser;
        parser.header_limit(static_cast<std::uint32_t>(shared_.opts.max_header_bytes));
        parser.body_limit(shared_.opts.max_body_bytes);
        auto read = [&] { return read_header(client_, buffer_, parser); };
        const co::outcome<void> header = co_await in_time(read, shared_.opts.header, shared_.linger());
        if (!header.has_value()) {
            response reply = answer_to_broken_request(header.error());
            ++shared_.requests;
            co_return co_await send(parser, reply, began);
        }
        ++shared_.requests;
        request& asked = parser.get();
        std::optional<trace_parent> trace_in = parse_traceparent(sole(asked, "traceparent").value_or(""));
        if (!trace_in) {
            asked.erase("tracestate");
            trace_in.emplace();
            trace_in->trace_id = random_hex(shared_.random, 32);
        }
        trace_in->parent_id = random_hex(shared_.random, 16);
        std::string id(sole(asked, "x-request-id").value_or(""));
        if (!is_sane_request_id(id)) id = random_hex(shared_.random, 32);
        co_return co_await co::with(answer(parser, began), request_id(std::move(id)), trace(*std::move(trace_in)));
    }

    co::task<bool> answer(request_parser& parser, co::clock::time_point began) {
        response reply = co_await make_answer(parser);
        reply.set("x-request-id", *co_await co::this_task::get(request_id));
        co_return co_await send(parser, reply, began);
    }

    co::task<response> make_answer(request_parser& parser) {
        request& asked = parser.get();
        if (std::optional<response> reply = objection(asked)) co_return *std::move(reply);
        if (std::optional<response> reply = built_in_page(asked.target())) co_return *std::move(reply);

        const std::shared_ptr<guards> guard = shared_.common.guarded.get();  // the same until it is answered
        if (std::optional<response> reply = too_many_of(asked, *guard)) co_return *std::move(reply);
        route* const to = guard->route_of(asked.target());
        if (to == nullptr) co_return own_answer(http::status::not_found, "no route has this path");
        if (to->opts.redis && !is_read(asked.method())) co_return answer_of_a_reader();
        co_return co_await pass_on(parser, *guard, *to);
    }

    co::task<response> pass_on(request_parser& parser, guards& guard, route& to) {
        request& asked = parser.get();
        const co::clock::duration most = to.opts.deadline.value_or(guard.opts.deadline);
        const co::deadline due = co::deadline::after(time_limit(asked, most));
        request onward = passed_on(asked);  // before the body, whose trailers are no headers
        if (due.expired()) co_return answer_too_late();
        const co::clock::time_point came = co::clock::now();
        co::bulkhead::permit place;
        if (guard.opts.requests) {
            auto got = co_await co::as_outcome(co::with(guard.requests->acquire(), co::until(due)));
            if (got.is_rejected()) co_return answer_to(got.rejection());
            if (!got.has_value()) co_return answer_too_late();
            place = *std::move(got);
        }
        if (guard.opts.shedder && !guard.door->try_acquire(came))
            co_return answer_to(co::rejection(co::reject_reason::full, guard.door->name()));
        const co::outcome<void> body = co_await co::as_outcome(co::with(receive_body(parser), co::until(due)));
        if (!body.has_value()) co_return answer_to_broken_request(body.error());

        onward.body() = std::move(asked.body());
        onward.prepare_payload();
        if (due.expired()) co_return answer_too_late();
        if (to.opts.redis) co_return co_await look_up(onward, to, due);
        if (to.replicas.size() > 1) co_return co_await spread(onward, to, due);
        const tcp::endpoint where = to.replicas.front().where;
        auto attempt = [&] { return links_.to(where).exchange(onward, where); };
        if (!to.opts.has_guards()) {
            co::outcome<response> ended = co_await co::as_outcome(co::with(attempt(), co::until(due)));
            co_return answer_from(std::move(ended));
        }
        if (to.opts.hedge && is_read(onward.method())) {
            auto copy = [&] { return send_copy(onward, where); };
            co::outcome<response> ended = co_await co::as_outcome(co::with(to.hedged(copy), co::until(due)));
            co_return answer_from(std::move(ended));
        }
        const co::any_pipeline<response>& guarded = may_repeat(onward.method()) ? to.repeated : to.once;
        co::outcome<response> ended = co_await co::as_outcome(co::with(guarded(attempt), co::until(due)));
        co_return answer_from(std::move(ended));
    }

    /// The same of a route with several upstreams: each attempt and each copy goes to another than the one before.
    co::task<response> spread(request& onward, route& to, co::deadline due) {
        const bool has_copies = to.opts.hedge && is_read(onward.method());
        std::size_t turn = to.memory->turn.fetch_add(1, std::memory_order_relaxed);
        auto attempt = [&] {
            if (has_copies) return send_copy_to_next(onward, to, turn);
            return send_to_next(onward, to, turn);
        };
        const co::any_pipeline<response>* guarded = &to.once;
        if (may_repeat(onward.method())) guarded = &to.repeated;
        if (has_copies) guarded = &to.hedged;
        co_return answer_from(co_await co::as_outcome(co::with((*guarded)(attempt), co::until(due))));
    }
    /// To the upstream whose turn it is; past those whose breakers refuse, unless all do.
    co::task<response> send_to_next(request& onward, route& to, std::size_t& turn) {
        for (std::size_t left = to.replicas.size();; --left) {
            const replica& next = to.replicas[turn++ % to.replicas.size()];
            auto attempt = [&] { return links_.to(next.where).exchange(onward, next.where); };
            co::outcome<response> ended = co_await co::as_outcome(next.guarded(attempt));
            const bool refused = ended.is_rejected() && ended.rejection().reason == co::reject_reason::circuit_open;
            if (!refused || left == 1) co_return std::move(ended).value();
        }
    }
    co::task<response> send_copy_to_next(const request& onward, route& to, std::size_t& turn) {
        request own = onward;
        co_return co_await send_to_next(own, to, turn);
    }

    /// The value of the key that the path is.
    co::task<response> look_up(const request& asked, route& to, co::deadline due) {
        const std::shared_ptr<redis_links::pool> from = shared_.lookups.of(to.opts);
        const std::string key(path_of(asked.target()));
        const auto ask = [&] { return redis_links::look_up(*from, key); };
        const auto guarded = to.around_look_up(key);
        co::outcome<looked_up> ended = co_await co::as_outcome(co::with(guarded(ask), co::until(due)));
        if (ended.is_rejected()) co_return answer_to(ended.rejection());
        if (!ended.has_value()) co_return answer_without_upstream(ended.error());
        looked_up value = *std::move(ended);
        if (!value) co_return own_answer(http::status::not_found, "there is no such key");
        co_return answer_with(*std::move(value));
    }

    /// A call that may have another beside it: with a request and a link of its own.
    co::task<response> send_copy(const request& onward, tcp::endpoint where) {
        request own = onward;
        co_return co_await links_.to(where).exchange(own, where);
    }

    response answer_from(co::outcome<response> upstream) {
        if (upstream.has_value()) return *std::move(upstream);
        if (upstream.is_rejected()) return answer_to(upstream.rejection());
        return answer_without_upstream(upstream.error());
    }

    /// Returns: the answer to a client that asks too often; nothing if it does not.
    std::optional<response> too_many_of(const request& asked, guards& guard) const {
        if (guard.opts.client_rate.is_unlimited()) return std::nullopt;
        const std::string& header = guard.opts.client_header;
        const std::string_view said = header.empty() ? "" : sole(asked, header).value_or("");
        const bool is_name = !said.empty() && said.size() <= max_client_name;
        const std::string client = is_name ? header + ": " + std::string(said) : peer_;
        if (guard.clients->try_acquire(client)) return std::nullopt;
        return answer_to(co::rejection(co::reject_reason::rate_limited, guard.clients->name(),
                                       guard.clients->time_until(client)));
    }

    /// What the gateway says itself; nothing for what is passed on.
    std::optional<response> built_in_page(std::string_view target) const {
        if (target == "/healthz") return own_answer(http::status::ok, "alive");
        if (target == "/readyz" && shared_.is_draining())
            return own_answer(http::status::service_unavailable, "draining");
        if (target == "/readyz") return own_answer(http::status::ok, "ready");
        std::ostringstream text;
        if (target == "/metrics") {
            co::write_prometheus(text, shared_.common.metrics, {.tasks = true});
            response reply = own_answer(http::status::ok, text.str());
            reply.set(http::field::content_type, co::content_type(co::prometheus_format::text));
            return reply;
        }
        const bool json = target == "/debug/tasks?format=json";
        if (!json && target != "/debug/tasks") return std::nullopt;
        co::write_task_dump(text, {.format = json ? co::dump_format::json : co::dump_format::text});
        response reply = own_answer(http::status::ok, text.str());
        if (json) reply.set(http::field::content_type, "application/json");
        return reply;
    }

    co::task<> receive_body(request_parser& parser) {
        const http::response<http::empty_body> go_on(http::status::continue_, 11);
        const request& asked = parser.get();
        const bool waits = asked.version() == 11 && boost::beast::iequals(asked[http::field::expect], "100-continue");
        if (waits && !parser.is_done()) co_await http::async_write(client_, go_on, co::use_cordon);
        co_await read_body(client_, buffer_, parser);
    }

    /// Sends the answer and logs it.
    /// Returns:       whether another request may follow
    co::task<bool> send(const request_parser& parser, response& reply, co::clock::time_point began) {
        const request& asked = parser.get();
        const bool last = shared_.is_draining() && buffer_.size() == 0 && !has_unread_bytes();
        const bool keep = reply.keep_alive() && parser.is_done() && asked.keep_alive() && !last;
        reply.version(asked.version());
        reply.keep_alive(keep);
        if (asked.method() == http::verb::head) reply.body().clear();
        const co::outcome<void> sent = co_await co::as_outcome(write(reply));
        if (shared_.is_draining() && sent.has_value()) ++shared_.answered_while_draining;
        const bool has_header = parser.is_header_done();
        const std::string_view method = has_header ? std::string_view(asked.method_string()) : "-";
        const std::string_view target = has_header ? std::string_view(asked.target()) : "-";
        constexpr unsigned client_closed = 499;  // only in the log
        const unsigned status = sent.has_value() ? reply.result_int() : client_closed;
        if (sent.has_value()) shared_.common.count(status);
        co_await shared_.log.write(method, target, status, co::clock::now() - began);
        if (!sent.has_value()) throw system_error(asio::error::connection_reset);
        co_return keep;
    }

    co::task<> write(const response& reply) {
        co_await co::with_timeout(shared_.opts.idle, http::async_write(client_, reply, co::use_cordon));
    }

    /// What to say to a client whose request did not arrive whole. Errors: throws `why` if nobody is there to hear it.
    response answer_to_broken_request(const std::exception_ptr& why) {
        try {
            std::rethrow_exception(why);
        } catch (const co::timeout_error&) {
            return refusal(http::status::request_timeout, "the request took too long to arrive");
        } catch (const system_error& e) {
            const error_code code = e.code();
            if (code.category() != error_code(http::error::end_of_stream).category() ||
                code == http::error::end_of_stream)
                throw;
            ++shared_.malformed;
            if (code == http::error::header_limit)
                return refusal(http::status::request_header_fields_too_large, "the header is too large");
            if (code == http::error::body_limit)
                return refusal(http::status::payload_too_large, "the body is too large");
            return refusal(http::status::bad_request, "malformed: " + code.message());
        }
    }

    /// What to say if the upstream gave no answer.
    response answer_without_upstream(const std::exception_ptr& why) {
        try {
            std::rethrow_exception(why);
        } catch (const co::timeout_error&) {
            return answer_too_late();
        } catch (const system_error& e) {
            ++shared_.upstream_failures;
            return own_answer(http::status::bad_gateway, "no answer from the upstream: " + e.code().message());
        } catch (const redis::failure& e) {
            ++shared_.upstream_failures;
            return own_answer(http::status::bad_gateway, std::string("no answer from the upstream: ") + e.what());
        }
    }
    response answer_too_late() {
        ++shared_.deadline_hits;
        return own_answer(http::status::gateway_timeout, "the deadline passed before the upstream had answered");
    }

    /// Ends the connection so that the last answer arrives: a socket that is closed while there are bytes to be read
    /// resets the connection, and takes back what the client has not read yet.
    co::task<> close_gently() {
        error_code ignored;
        client_.shutdown(tcp::socket::shutdown_send, ignored);
        (void)co_await co::as_outcome(co::with_timeout(shared_.linger(), discard_rest()));
    }
    co::task<> discard_rest() {
        char bytes[4096];
        for (;;) co_await client_.async_read_some(asio::buffer(bytes), co::use_cordon);
    }

    [[nodiscard]] bool has_unread_bytes() {
        error_code ignored;
        return client_.available(ignored) != 0;
    }

    static constexpr std::size_t max_client_name = 128;  // longer ones would fill the memory of the limit

    service& shared_;
    tcp::socket client_;
    std::string peer_;  // its address
    flat_buffer buffer_;
    upstream_links links_;
    std::size_t served_ = 0;
};

}  // namespace

co::task<> serve_client(service& shared, tcp::socket client) {
    connection served(shared, std::move(client));
    co_await served.run();
}

}  // namespace gateway
