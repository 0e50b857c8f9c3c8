//! Waiting for descriptors that are no connections.

use std::io::{Read, Write};
use std::time::Duration;

use tidegate_reactor::{Watch, Watched};

use crate::support::PATIENCE;

/// What one wait brings, in which something is expected.
fn brought(watch: &mut Watch) -> Vec<Watched> {
    let deadline = watch.now() + PATIENCE;
    watch.wait(Some(deadline)).unwrap();
    std::iter::from_fn(|| watch.next_event()).collect()
}

fn expect_nothing(watch: &mut Watch) {
    let deadline = watch.now() + Duration::from_millis(20);
    watch.wait(Some(deadline)).unwrap();
    assert_eq!(watch.next_event(), None);
    assert!(watch.now() >= deadline);
}

#[test]
fn what_is_readable_is_reported_until_it_was_read() {
    let mut watch = Watch::new().unwrap();
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    watch.add(&reader, 7).unwrap();
    expect_nothing(&mut watch);
    writer.write_all(b"x").unwrap();
    for _ in 0..2 {
        assert_eq!(brought(&mut watch), [Watched::Readable(7)]);
    }
    reader.read_exact(&mut [0]).unwrap();
    expect_nothing(&mut watch);
    drop(writer);
    assert_eq!(brought(&mut watch), [Watched::Readable(7)], "the end is something to read");
}

#[test]
fn what_was_removed_is_not_reported_though_a_copy_is_open() {
    let mut watch = Watch::new().unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let copy = reader.try_clone().unwrap();
    watch.add(&reader, 1).unwrap();
    writer.write_all(b"x").unwrap();
    assert_eq!(brought(&mut watch), [Watched::Readable(1)]);
    watch.remove(&reader);
    drop(reader);
    expect_nothing(&mut watch);
    watch.add(&copy, 2).unwrap();
    assert_eq!(brought(&mut watch), [Watched::Readable(2)]);
}

#[test]
fn each_wake_ends_one_wait() {
    let mut watch = Watch::new().unwrap();
    let waker = watch.waker();
    for _ in 0..3 {
        waker.wake();
        assert_eq!(brought(&mut watch), [Watched::Woken]);
        expect_nothing(&mut watch);
    }
    std::thread::spawn(move || waker.wake());
    assert_eq!(brought(&mut watch), [Watched::Woken]);
}
