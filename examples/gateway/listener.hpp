// SPDX-License-Identifier: MIT
#pragma once

// The door: a socket that listens, alone or beside those of other threads, and lets nobody new in before it closes.

#include "options.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/socket_base.hpp>

#if defined(__linux__)
#include <linux/filter.h>
#endif
#include <sys/socket.h>

#include <iterator>

namespace gateway {

/// With several of them at one address the kernel spreads the connections; one alone is nobody else's to share.
inline tcp::acceptor listen_at(asio::io_context& io, const tcp::endpoint& address, bool shared) {
    using reuse_port = asio::detail::socket_option::boolean<SOL_SOCKET, SO_REUSEPORT>;
    tcp::acceptor made(io, address.protocol());
    made.set_option(asio::socket_base::reuse_address(true));
    if (shared) made.set_option(reuse_port(true));
    made.bind(address);
    made.listen();
    made.non_blocking(true);
    return made;
}

/// Has the kernel drop what asks for a new connection. Who asked tries again a second later, and is refused or finds a
/// successor; who had connected by now can still be accepted. A listener that is only closed resets those who connect
/// between its last accept and the close, as it still does where there are no such filters.
inline void admit_no_more([[maybe_unused]] tcp::acceptor& door) {
#if defined(__linux__)
    constexpr unsigned flags = 13, syn = 0x02;  // of the TCP header
    constexpr unsigned nothing = 0, all = 0xffff;  // bytes that pass
    sock_filter unless_syn[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, flags),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, syn, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, nothing),
        BPF_STMT(BPF_RET | BPF_K, all),
    };
    const sock_fprog program{static_cast<unsigned short>(std::size(unless_syn)), unless_syn};
    (void)::setsockopt(door.native_handle(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
#endif
}

}  // namespace gateway
