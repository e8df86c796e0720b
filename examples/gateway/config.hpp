// SPDX-License-Identifier: MIT
#pragma once

// The configuration file of the gateway. All of it may be left out:
//
//     {
//         "listen": "127.0.0.1:8080",                // as the options of the command line, which win over the file
//         "upstream": "127.0.0.1:9000",              // or a list, as below
//         "deadline_ms": 1000,                       // 1 to 600000: of a request, with all attempts
//         "attempt_ms": 500,                         // 1 to 600000: of one of them. The breaker counts those that take
//                                                    // longer, but none that the deadline of the request ends first
//         "retry": {                                 // of GET, HEAD, PUT and DELETE
//             "attempts": 3,                         // 1 to 10, the first one included
//             "backoff_ms": 10,                      // 1 to 60000: the first wait at most; they grow to ten times that
//             "budget_ratio": 0.2                    // 0 to 1: retries for each request, besides ten per second
//         },
//         "breaker": {                               // one for each upstream
//             "window": 100,                         // 1 to 65536 calls, over which failures are counted
//             "min_calls": 20,                       // 1 to 65536, at most the window
//             "failure_rate": 0.5,                   // 0.001 to 1: at that it opens
//             "open_for_ms": 5000                    // 1 to 3600000
//         },
//         "bulkhead": {
//             "concurrent": 256,                     // 1 to 1000000 calls at a time
//             "waiting": 256                         // 0 to 1000000 more that wait
//         },
//         "hedge": {                                 // of GET and HEAD, only if it is there: a second copy of a call
//             "percentile": 0.95                     // that takes longer than that share of the last, 0.5 to 0.999; or
//         },                                         // longer than "delay_ms", 1 to 600000. The first answer counts,
//                                                    // the other call is stopped. The budget is that of "retry"
//         "routes": {                                // by the beginning of the path; the longest that fits counts
//             "/reports": {                          // and what is below it: /reports/5, but not /reports5
//                 "upstream": "127.0.0.1:9001",      // the only thing that has to be said. Guards are of this route
//                 "deadline_ms": 3000,               // alone; what is not said is as above
//                 "bulkhead": { "concurrent": 16 },
//                 "retry": false
//             },
//             "/items": {
//                 "upstream": [                      // 1 to 64 that do the same: calls go to them in turn, a retry or
//                     "127.0.0.1:9002",              // a copy to another than the attempt before it, and none to
//                     "127.0.0.1:9003"               // one whose breaker refuses, unless all do. The other guards
//                 ]                                  // are those of the route
//             },
//             "/prices": {
//                 "upstream": "127.0.0.1:6379",
//                 "redis": {                         // the upstream is one: GET and HEAD have the value of the key
//                     "connections": 8,              // that the path is. 1 to 10000 of each thread
//                     "keep_ms": 1000,               // 1 to 3600000: how long a value is kept, and that there is none
//                     "stale_ms": 0                  // 0 to 3600000: how long after that it answers if redis does not
//                 }                                  // One upstream, and no "hedge"
//             }
//         },
//         "requests": {                              // of all routes together: passed on at a time, their bodies in
//             "concurrent": 256,                     // memory. As "bulkhead"; if it is left out there is no bound but
//             "waiting": 256                         // --max-connections
//         },
//         "shedder": {                               // only beside "requests", and only if it is there: when none of
//             "target_ms": 5,                        // them got its place within the target, 1 to 60000, for a whole
//             "interval_ms": 100                     // interval, above the target and up to 60000, those are refused
//         },                                         // that have waited for more than twice the target
//         "client": {                                // no limit if there is no per_second
//             "per_second": 100,                     // 1 to 1000000 requests of one client
//             "burst": 20,                           // 1 to 1000000 at once
//             "header": "x-api-key"                  // whose value, up to 128 bytes, says who it is; else the address.
//                                                    // Only for headers that can be trusted
//         }
//     }
//
// `false` in the place of attempt_ms, retry, breaker, bulkhead, hedge, requests, shedder or redis: there is none. What
// no route takes is for the "upstream" at the top; if that is not there, it is answered 404. Paths are compared as
// they are written, without decoding: routes are no access control. Comments are allowed.
//
// SIGHUP reads it again: all but `listen` changes for the requests that come from then on; nothing, if the limit of
// open files leaves no room for the connections to redis servers. What guards know goes on, with the new numbers:
// budgets, the times of a hedge, values of a redis, and calls under way, as long as a route keeps one of its upstreams;
// and what clients have used. Three cannot take all numbers: with another rate or burst all clients begin anew, with
// another `waiting` the count of calls does, and a breaker with other numbers knows only whether it is open.

#include "options.hpp"

#include <istream>
#include <string>

namespace gateway {

/// Reads what `in` says into `into`; what it does not say stays as it is.
/// Errors:        `std::invalid_argument`, "FILE:LINE: FIELD is VALUE, allowed is ..."
void read_config(std::istream& in, const std::string& file, options& into);

/// Returns:       what the command line says, and for what it does not, the file that it names
/// Errors:        as `read_config` and `parse`; also if there is no such file
options configured(int argc, char** argv);

}  // namespace gateway
