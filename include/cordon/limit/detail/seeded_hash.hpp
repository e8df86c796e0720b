// SPDX-License-Identifier: MIT
#pragma once

// A hash of strings for tables whose keys strangers choose: who does not know its key cannot make two strings collide,
// so nobody can fill a chain, or choose beside whom his key lies.
// Source: SipHash-1-3: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012, with the rounds that the tables
// of Rust and Ruby use.

#include <cordon/core/detail/config.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>

namespace cordon::inline CORDON_ABI {
namespace detail {

class seeded_hash {
public:
    constexpr seeded_hash(std::uint64_t k0, std::uint64_t k1) noexcept : k0_(k0), k1_(k1) {}

    /// The same on all machines.
    [[nodiscard]] std::uint64_t operator()(const void* data, std::size_t size) const noexcept {
        const auto* p = static_cast<const unsigned char*>(data);
        state s{k0_ ^ 0x736f6d6570736575u, k1_ ^ 0x646f72616e646f6du, k0_ ^ 0x6c7967656e657261u,
                k1_ ^ 0x7465646279746573u};
        for (std::size_t left = size / 8; left != 0; --left, p += 8) s.add(word(p));
        s.add(rest(p, size % 8) | static_cast<std::uint64_t>(size) << 56);
        s.v2 ^= 0xff;
        for (int i = 0; i < 3; ++i) s.round();
        return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
    }

private:
    struct state {
        std::uint64_t v0, v1, v2, v3;

        void round() noexcept {
            v0 += v1, v2 += v3;
            v1 = std::rotl(v1, 13) ^ v0, v3 = std::rotl(v3, 16) ^ v2;
            v0 = std::rotl(v0, 32);
            v2 += v1, v0 += v3;
            v1 = std::rotl(v1, 17) ^ v2, v3 = std::rotl(v3, 21) ^ v0;
            v2 = std::rotl(v2, 32);
        }
        void add(std::uint64_t m) noexcept {
            v3 ^= m;
            round();
            v0 ^= m;
        }
    };
    static std::uint64_t half(const unsigned char* p) noexcept {
        return std::uint64_t{p[0]} | std::uint64_t{p[1]} << 8 | std::uint64_t{p[2]} << 16 | std::uint64_t{p[3]} << 24;
    }
    static std::uint64_t word(const unsigned char* p) noexcept { return half(p) | half(p + 4) << 32; }
    /// Less than a word.
    static std::uint64_t rest(const unsigned char* p, std::size_t n) noexcept {
        if (n >= 4) return half(p) | half(p + n - 4) << (8 * (n - 4));  // a byte that is in both is the same in both
        std::uint64_t w = 0;
        for (std::size_t i = 0; i < n; ++i) w |= std::uint64_t{p[i]} << (8 * i);
        return w;
    }

    std::uint64_t k0_, k1_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
