// SPDX-License-Identifier: MIT

//! Rows in Rust, under the names of the figures of C++ that do the same; tools/bench/peer_rows.py says how they are asked
//! for. Times are taken as those of C++: of the processor where one thread runs, by the wall where two meet.

mod governor_rows;

use std::sync::Barrier;
use std::time::{Duration, Instant};

/// What one thread of a row does so many times; it is told which thread it is.
type Work = Box<dyn Fn(usize, u64) + Sync>;

struct Row {
    name: String,
    threads: usize,
    work: fn() -> Work,
}

impl Row {
    fn new(name: &str, work: fn() -> Work) -> Row {
        let threads = if name.contains("_2_threads/") { 2 } else { 1 };
        Row { name: name.to_string(), threads, work }
    }
}

/// How the work is to be done from now on: the row with its state, and how often.
struct Ready<'a> {
    row: &'a Row,
    work: Work,
    times: u64,
}

impl<'a> Ready<'a> {
    /// Made so that a repetition takes that long, or once if that is nothing.
    fn new(row: &'a Row, min_time: Duration) -> Ready<'a> {
        let mut ready = Ready { row, work: (row.work)(), times: 1 };
        while !min_time.is_zero() {
            let took = ready.run();
            if took >= min_time / 4 {
                let more = min_time.as_secs_f64() / took.as_secs_f64();
                ready.times = (ready.times as f64 * more) as u64 + 1;
                break;
            }
            ready.times *= 2;
        }
        ready
    }

    fn run(&self) -> Duration {
        if self.row.threads == 1 {
            let from = processor_time();
            (self.work)(0, self.times);
            return processor_time() - from;
        }
        let begin = Barrier::new(self.row.threads);
        let spans: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
            let one = |thread| {
                begin.wait();
                let from = Instant::now();
                (self.work)(thread, self.times);
                (from, Instant::now())
            };
            let threads: Vec<_> = (0..self.row.threads).map(|i| scope.spawn(move || one(i))).collect();
            threads.into_iter().map(|thread| thread.join().expect("the row failed")).collect()
        });
        let first = spans.iter().map(|span| span.0).min().unwrap();
        let last = spans.iter().map(|span| span.1).max().unwrap();
        last - first
    }

    /// Of one operation; of all threads together.
    fn nanoseconds(&self) -> f64 {
        self.run().as_nanos() as f64 / self.times as f64 / self.row.threads as f64
    }
}

/// What this thread has used.
fn processor_time() -> Duration {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes to `t` alone.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) };
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

fn value<T: std::str::FromStr>(options: &[String], name: &str) -> T {
    let at = options.iter().position(|option| option == name);
    let text = at.and_then(|i| options.get(i + 1)).unwrap_or_else(|| panic!("{name} is missing"));
    text.parse().unwrap_or_else(|_| panic!("{name} {text} is not understood"))
}

fn main() {
    let options: Vec<String> = std::env::args().skip(1).collect();
    let rows = governor_rows::all();
    if options.iter().any(|option| option == "--list") {
        rows.iter().for_each(|row| println!("{}", row.name));
        return;
    }
    let wanted: String = value(&options, "--run");
    let min_time = Duration::from_secs_f64(value(&options, "--min-time"));
    let ready: Vec<Ready> = rows
        .iter()
        .filter(|row| row.name == wanted || row.name.starts_with(&format!("{wanted}/")))
        .map(|row| Ready::new(row, min_time))
        .collect();
    for _ in 0..value(&options, "--repetitions") {
        for row in &ready {
            let (_, name) = row.row.name.split_once('/').unwrap();
            println!("{name} {}", row.nanoseconds());
        }
    }
}
