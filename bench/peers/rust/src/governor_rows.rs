// SPDX-License-Identifier: MIT

//! governor, with the clock that it takes by itself, which reads the processor's time-stamp counter, and with the clock
//! of the standard library, which is that of cordon.

use crate::{Row, Work};
use governor::clock::{Clock, MonotonicClock, QuantaClock};
use governor::{Quota, RateLimiter};
use std::hash::Hash;
use std::hint::black_box;
use std::num::NonZeroU32;

const KEYS: u64 = 100_000;
const SPENT: u64 = 1_000;
const ASKED: usize = 1 << 18;

pub fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    for threads in ["", "_2_threads"] {
        let mut add = |figure: &str, row: &str, work: fn() -> Work| {
            rows.push(Row::new(&format!("{figure}{threads}/{row}"), work));
        };
        add("token_bucket_accept", "rust_governor", || accept(QuantaClock::default()));
        add("token_bucket_accept", "rust_governor_steady_clock", || accept(MonotonicClock));
        add("token_bucket_refuse", "rust_governor", || refuse(QuantaClock::default()));
        add("token_bucket_refuse", "rust_governor_steady_clock", || refuse(MonotonicClock));
        add("keyed_limiter_integers", "rust_governor", || keyed(QuantaClock::default(), integer));
        add("keyed_limiter_integers", "rust_governor_steady_clock", || keyed(MonotonicClock, integer));
        add("keyed_limiter_refuse", "rust_governor", || keyed_refuse(QuantaClock::default()));
        add("keyed_limiter_refuse", "rust_governor_steady_clock", || keyed_refuse(MonotonicClock));
    }
    rows.push(Row::new("keyed_limiter_strings/rust_governor", || keyed(QuantaClock::default(), text)));
    rows.push(Row::new("keyed_limiter_strings/rust_governor_steady_clock", || keyed(MonotonicClock, text)));
    rows
}

/// A token each nanosecond, and a burst of a billion, which is more than a thread can ask for.
fn plenty() -> Quota {
    let billion = NonZeroU32::new(1_000_000_000).unwrap();
    Quota::per_second(billion).allow_burst(billion)
}

fn one_an_hour() -> Quota {
    Quota::per_hour(NonZeroU32::new(1).unwrap())
}

fn accept<C: Clock + Sync + 'static>(clock: C) -> Work {
    let limiter = RateLimiter::direct_with_clock(plenty(), clock);
    Box::new(move |_, times| {
        for _ in 0..times {
            assert!(black_box(&limiter).check().is_ok(), "no token");
        }
    })
}

fn refuse<C: Clock + Sync + 'static>(clock: C) -> Work {
    let limiter = RateLimiter::direct_with_clock(one_an_hour(), clock);
    let _ = limiter.check();
    Box::new(move |_, times| {
        for _ in 0..times {
            assert!(black_box(&limiter).check().is_err(), "a token");
        }
    })
}

fn integer(n: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn text(n: u64) -> String {
    format!("10.{}.{}", n / 256, n % 256)
}

/// Keys at random, as the rows of C++ have them; two threads begin at different ones.
fn keyed<C, K>(clock: C, key: fn(u64) -> K) -> Work
where
    C: Clock + Sync + 'static,
    C::Instant: Sync,
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    let limiter = RateLimiter::dashmap_with_clock(plenty(), clock);
    let mut state = 1;
    let mut random = || {
        state = integer(state) ^ (state >> 29);
        state >> 20
    };
    let asked: Vec<K> = (0..ASKED).map(|_| key(random() % KEYS)).collect();
    Box::new(move |thread, times| {
        let mut i = thread * (ASKED / 2);
        for _ in 0..times {
            assert!(limiter.check_key(black_box(&asked[i])).is_ok(), "no token");
            i = (i + 1) & (ASKED - 1);
        }
    })
}

fn keyed_refuse<C: Clock + Sync + 'static>(clock: C) -> Work {
    let limiter = RateLimiter::dashmap_with_clock(one_an_hour(), clock);
    (0..SPENT).for_each(|key| {
        let _ = limiter.check_key(&key);
    });
    Box::new(move |_, times| {
        for i in 0..times {
            assert!(limiter.check_key(black_box(&(i % SPENT))).is_err(), "a token");
        }
    })
}
