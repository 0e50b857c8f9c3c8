//! Tests of the queue: cursors, pressure and counts.

use super::*;
use proptest::prelude::*;

/// A line without its end, of exactly `bytes` bytes once it has one (for numbers of one digit).
fn record(bytes: usize) -> Vec<u8> {
    vec![b'x'; bytes - ",\"seq\":1}\n".len()]
}

fn queue(lines: usize, mode: StderrMode) -> Queue {
    let mut queue = Queue::new(lines * 100, mode);
    queue.set_away(false);
    queue
}

fn fill(queue: &mut Queue, lines: usize) {
    for _ in 0..lines {
        assert!(queue.offer(&record(100)));
    }
}

fn numbers(lines: &[u8]) -> Vec<u64> {
    let text = std::str::from_utf8(lines).unwrap();
    let seq = |line: &str| line.split("\"seq\":").nth(1).unwrap().trim_end_matches('}').parse().unwrap();
    text.lines().map(seq).collect()
}

fn take(queue: &mut Queue, to: To) -> Vec<u64> {
    let mut out = Vec::new();
    queue.take(to, usize::MAX, &mut out);
    numbers(&out)
}

#[test]
fn records_stay_until_they_are_acknowledged() {
    let mut queue = queue(4, StderrMode::Never);
    fill(&mut queue, 3);
    assert_eq!(take(&mut queue, To::Server), [1, 2, 3]);
    assert_eq!(take(&mut queue, To::Server), [0; 0]);
    assert!(queue.acknowledge(200));
    assert_eq!(queue.undelivered(queue.end()), 1);
    queue.rewind();
    assert_eq!(take(&mut queue, To::Server), [3]);
    assert!(!queue.acknowledge(101), "it was sent 100 bytes on this connection");
    assert!(queue.acknowledge(100));
    assert!(queue.is_done(To::Server, queue.end()));
}

#[test]
fn only_whole_lines_are_taken() {
    let mut queue = queue(4, StderrMode::Never);
    fill(&mut queue, 3);
    let mut out = Vec::new();
    assert_eq!(queue.take(To::Server, 250, &mut out), 200);
    assert_eq!(numbers(&out), [1, 2]);
}

#[test]
fn a_full_queue_drops_what_is_new_and_counts_it() {
    let mut queue = queue(4, StderrMode::Never);
    fill(&mut queue, 4);
    assert!(!queue.offer(&record(100)));
    assert!(!queue.offer(&record(100)));
    assert_eq!(queue.lost(), Lost { unreported: 2, total: 2, unshown: 0 });
    assert_eq!(queue.report_due(), None, "there is no room for the report");
    take(&mut queue, To::Server);
    assert!(queue.acknowledge(100));
    assert_eq!(queue.report_due(), Some(2));
    assert!(queue.offer(&record(100)));
    queue.reported(2);
    assert_eq!(queue.report_due(), None);
    assert_eq!(take(&mut queue, To::Server), [7], "the gap in the numbers shows what is missing");
    assert_eq!(queue.lost().total, 2);
}

#[test]
fn a_stuck_screen_does_not_keep_records_from_the_server() {
    let mut queue = queue(8, StderrMode::Always);
    for _ in 0..9 {
        fill(&mut queue, 1);
        take(&mut queue, To::Server);
        let end = queue.end();
        queue.done(To::Server, end);
    }
    assert_eq!(queue.lost(), Lost { unreported: 0, total: 0, unshown: 1 });
    assert_eq!(queue.take_unshown(), 1);
    assert_eq!(take(&mut queue, To::Screen), [2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn while_the_server_is_away_the_screen_goes_on_and_the_oldest_are_given_up() {
    let mut queue = queue(8, StderrMode::WhenAway);
    fill(&mut queue, 2);
    assert_eq!(take(&mut queue, To::Screen), [0; 0], "the server is there");
    queue.set_away(true);
    assert_eq!(take(&mut queue, To::Screen), [1, 2], "what it has not acknowledged is shown");
    queue.done(To::Screen, queue.end());
    for seq in 3..=9 {
        fill(&mut queue, 1);
        assert_eq!(take(&mut queue, To::Screen), [seq]);
        queue.done(To::Screen, queue.end());
    }
    assert_eq!(queue.lost(), Lost { unreported: 1, total: 1, unshown: 0 });
    queue.set_away(false);
    queue.rewind();
    assert_eq!(take(&mut queue, To::Server), [2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(queue.acknowledge(800));
    assert_eq!(queue.report_due(), Some(1));
}

#[test]
fn records_given_up_before_they_were_sent_do_not_shift_the_acknowledgements() {
    let mut queue = queue(8, StderrMode::WhenAway);
    fill(&mut queue, 1);
    assert_eq!(take(&mut queue, To::Server), [1]);
    queue.set_away(true);
    fill(&mut queue, 7);
    take(&mut queue, To::Screen);
    queue.done(To::Screen, queue.end());
    fill(&mut queue, 1);
    fill(&mut queue, 1);
    // The tenth record's number takes a byte more, and so two lines made room for it.
    assert_eq!(take(&mut queue, To::Server), [4, 5, 6, 7, 8, 9, 10]);
    assert!(queue.acknowledge(100), "the first, which was sent before the others were given up");
    assert_eq!(queue.undelivered(queue.end()), 7);
    assert!(queue.acknowledge(100 + 701));
    assert_eq!(queue.undelivered(queue.end()), 0);
    assert_eq!(queue.lost().total, 3);
}

#[test]
fn a_closed_queue_shows_everything_and_keeps_nothing() {
    let mut queue = queue(8, StderrMode::WhenAway);
    fill(&mut queue, 2);
    queue.close();
    assert_eq!(take(&mut queue, To::Server), [0; 0]);
    assert_eq!(take(&mut queue, To::Screen), [1, 2]);
    queue.done(To::Screen, queue.end());
    assert_eq!(queue.undelivered(queue.end()), 0);
    let mut silent = self::queue(2, StderrMode::Never);
    silent.close();
    fill(&mut silent, 100);
    assert_eq!(silent.lost(), Lost::default());
}

#[derive(Clone, Debug)]
enum Step {
    Offer(usize),
    Send(usize),
    Acknowledge(f64),
    Show(usize),
    Shown,
    Away(bool),
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (20usize..300).prop_map(Step::Offer),
        2 => (300usize..900).prop_map(Step::Send),
        2 => (0f64..=1.0).prop_map(Step::Acknowledge),
        1 => (300usize..900).prop_map(Step::Show),
        1 => Just(Step::Shown),
        1 => any::<bool>().prop_map(Step::Away),
        1 => Just(Step::Reconnect),
    ]
}

proptest! {
    /// Whatever happens, every record either reaches the server, in order, or is counted.
    #[test]
    fn nothing_is_lost_without_being_counted(
        steps in proptest::collection::vec(step(), 1..200),
        always in any::<bool>(),
    ) {
        let mode = if always { StderrMode::Always } else { StderrMode::WhenAway };
        let mut queue = Queue::new(1000, mode);
        // The bytes of each line on this connection, and the numbers the server has acknowledged in its life.
        let (mut sent, mut acknowledged) = (Vec::<(u64, u64)>::new(), std::collections::BTreeSet::new());
        let (mut position, mut offered) = (0u64, 0u64);
        for step in steps {
            match step {
                Step::Offer(bytes) => {
                    queue.offer(&record(bytes));
                    offered += 1;
                }
                Step::Send(max) => {
                    let mut out = Vec::new();
                    queue.take(To::Server, max, &mut out);
                    for line in out.split_inclusive(|&byte| byte == b'\n') {
                        position += line.len() as u64;
                        let number = numbers(line)[0];
                        prop_assert!(sent.last().is_none_or(|&(_, last)| last < number));
                        sent.push((position, number));
                    }
                }
                Step::Acknowledge(share) => {
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a small number")]
                    let count = (sent.len() as f64 * share) as usize;
                    if let Some(&(bytes, _)) = count.checked_sub(1).and_then(|index| sent.get(index)) {
                        prop_assert!(queue.acknowledge(bytes));
                        acknowledged.extend(sent[..count].iter().map(|&(_, number)| number));
                    }
                }
                Step::Show(max) => {
                    queue.take(To::Screen, max, &mut Vec::new());
                }
                Step::Shown => {
                    let taken = queue.taken(To::Screen);
                    queue.done(To::Screen, taken);
                }
                Step::Away(away) => queue.set_away(away),
                Step::Reconnect => {
                    queue.rewind();
                    sent.clear();
                    position = 0;
                }
            }
        }
        queue.rewind();
        let rest = take(&mut queue, To::Server);
        prop_assert!(rest.windows(2).all(|pair| pair[0] < pair[1]));
        acknowledged.extend(rest);
        // A record that was given up while it was on its way may have arrived all the same.
        let missing = offered - acknowledged.len() as u64;
        prop_assert!(missing <= queue.lost().total, "{missing} missing, {:?}", queue.lost());
    }
}

#[test]
fn a_screen_that_is_gone_holds_nothing_up() {
    let mut queue = queue(4, StderrMode::Always);
    fill(&mut queue, 4);
    assert_eq!(take(&mut queue, To::Server), [1, 2, 3, 4]);
    assert!(queue.acknowledge(300));
    assert!(queue.has_more(To::Screen));
    queue.close_screen();
    assert!(!queue.has_more(To::Screen) && queue.is_done(To::Screen, queue.end()));
    assert_eq!(queue.undelivered(queue.end()), 1, "the server still gets what it lacks");
    fill(&mut queue, 3);
    assert_eq!((queue.lost(), queue.take_unshown()), (Lost::default(), 0));
}
