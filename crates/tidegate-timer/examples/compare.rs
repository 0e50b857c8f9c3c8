//! Compares the timer queues, and prints a Markdown table of nanoseconds for each operation.
//!
//! ```text
//! cargo run --release -p tidegate-timer --example compare
//! ```
//!
//! Each figure is the median of several runs. The queues take turns, so that what else the machine does meets them all;
//! a queue has held as many timers before, so that its memory has grown; all get the same deadlines, which are random,
//! within 60 s.
//!
//! * insert: all timers, into an empty queue.
//! * cancel: all timers, in random order.
//! * expire: all timers, by a loop that sleeps until the next deadline, rounded up to a millisecond as by
//!   `epoll_wait(2)`, and pops what has expired.
//! * re-arm: cancel a random one of all timers and insert it again, due 60 s from then, as for an idle time-out that
//!   every message puts off. The clock moves on by 1 µs each time.
//!
//! A list has 10,000 timers at most, because it takes a time in proportion to insert one with a random deadline.

use core::time::Duration;
use std::hint::black_box;
use tidegate_timer::{AnyQueue, Instant, Kind, TimerKey, TimerQueue, Wheel};

fn main() {
    let mut table = String::from(
        "| queue | timers | insert (ns) | cancel (ns) | expire (ns) | re-arm (ns) |\n|---|---:|---:|---:|---:|---:|\n",
    );
    for count in COUNTS {
        let mut queues: Vec<_> = Kind::ALL
            .into_iter()
            .filter(|&kind| kind != Kind::List || count <= LIST_MAX)
            .map(|kind| Contender::new(AnyQueue::new(kind, START), count))
            .collect();
        // What the choice at run time costs.
        let mut direct = Contender::new(Wheel::new(START), count);
        // The first run is for the memory to grow.
        for run in 0..=if count > LIST_MAX { 7 } else { 21 } {
            for contender in &mut queues {
                contender.run(run > 0);
            }
            direct.run(run > 0);
        }
        for contender in queues {
            contender.figures.print(&mut table, contender.queue.kind().as_str(), count);
        }
        direct.figures.print(&mut table, "wheel, not by `AnyQueue`", count);
    }
    #[expect(clippy::print_stdout, reason = "the table is what the example is for")]
    {
        print!("{table}");
    }
}

/// A queue that is measured.
struct Contender<Q> {
    queue: Q,
    count: usize,
    random: Random,
    now: Instant,
    figures: Figures,
}

impl<Q: TimerQueue<u64>> Contender<Q> {
    fn new(queue: Q, count: usize) -> Self {
        let random = Random(0x9e37_79b9_7f4a_7c15);
        Self { queue, count, random, now: START, figures: Figures::default() }
    }

    /// Does each operation with all timers. It begins and ends with an empty queue.
    fn run(&mut self, counts: bool) {
        let (insert, keys) = self.fill();
        let cancel = self.cancel(keys);
        self.fill();
        let expire = self.expire();
        let rearm = self.rearm();
        if counts {
            self.figures.insert.push(insert);
            self.figures.cancel.push(cancel);
            self.figures.expire.push(expire);
            self.figures.rearm.push(rearm);
        }
    }

    fn fill(&mut self) -> (f64, Vec<TimerKey>) {
        let deadlines: Vec<_> = (0..self.count).map(|_| self.now + self.random.span()).collect();
        let mut keys = Vec::with_capacity(self.count);
        let insert = per_operation(self.count, || {
            for (deadline, value) in deadlines.into_iter().zip(0..) {
                keys.push(self.queue.insert(deadline, value));
            }
        });
        (insert, keys)
    }

    fn cancel(&mut self, mut keys: Vec<TimerKey>) -> f64 {
        self.random.shuffle(&mut keys);
        per_operation(self.count, || {
            for key in keys {
                black_box(self.queue.cancel(key).expect("it was inserted and has not expired"));
            }
        })
    }

    fn expire(&mut self) -> f64 {
        per_operation(self.count, || {
            while let Some(next) = self.queue.next_deadline() {
                self.now = self.now.max(round_up(next));
                while let Some(value) = self.queue.pop_expired(self.now) {
                    black_box(value);
                }
            }
        })
    }

    fn rearm(&mut self) -> f64 {
        let mut keys = Vec::with_capacity(self.count);
        for (_, value) in (0..self.count).zip(0..) {
            self.now += STEP;
            keys.push(self.queue.insert(self.now + SPAN, value));
        }
        let picks: Vec<_> = (0..self.count).map(|_| self.random.below(self.count)).collect();
        let rearm = per_operation(self.count, || {
            for pick in picks {
                self.now += STEP;
                let value = self.queue.cancel(keys[pick]).expect("none expires within 60 s");
                keys[pick] = self.queue.insert(self.now + SPAN, value);
            }
        });
        for key in keys {
            self.queue.cancel(key).expect("none has expired");
        }
        rearm
    }
}

/// Nanoseconds for one operation, of each run.
#[derive(Default)]
struct Figures {
    insert: Vec<f64>,
    cancel: Vec<f64>,
    expire: Vec<f64>,
    rearm: Vec<f64>,
}

impl Figures {
    fn print(mut self, table: &mut String, name: &str, count: usize) {
        let cells = [&mut self.insert, &mut self.cancel, &mut self.expire, &mut self.rearm]
            .map(|runs| format!("{:.0}", median(runs)))
            .join(" | ");
        table.push_str(&format!("| {name} | {count} | {cells} |\n"));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count is at most a million")]
fn per_operation(count: usize, work: impl FnOnce()) -> f64 {
    let start = std::time::Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e9 / count as f64
}

fn median(runs: &mut [f64]) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

/// When a loop wakes that sleeps for whole milliseconds.
fn round_up(instant: Instant) -> Instant {
    Instant::from_nanos(instant.as_nanos().next_multiple_of(1_000_000))
}

/// Marsaglia, "Xorshift RNGs" (2003): the same deadlines in every run of the program.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("it is less than a usize")
    }

    fn span(&mut self) -> Duration {
        let limit = u64::try_from(SPAN.as_nanos()).expect("60 s are few nanoseconds");
        Duration::from_nanos(self.next() % limit)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

const COUNTS: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
const LIST_MAX: usize = 10_000;
const START: Instant = Instant::from_nanos(1_000_000_000);
const SPAN: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_micros(1);
