//! What is sent again, lost, late, doubled, or cannot be taken.

use tidegate_capture::{Counts, End, Finding, Trigger};

use crate::capture::{Tcp, client, last, server, told};

fn again(trigger: Trigger, was_seen: bool, is_needless: bool) -> Finding {
    Finding::Retransmission { trigger, was_seen, is_needless }
}

/// Four bytes of the server, beginning with the `nth` four.
fn data(nth: u32) -> Tcp {
    server(1 + 4 * nth, 1).data("abcd")
}

/// The client has so many four bytes.
fn ack(nth: u32) -> Tcp {
    client(1, 1 + 4 * nth)
}

fn from_server(packets: Vec<(u64, Tcp)>) -> Counts {
    told(packets).0.total.from_servers
}

#[test]
fn sent_again_after_a_long_silence_is_by_timeout() {
    let packets = vec![(1_000, data(0)), (201_000, data(0)), (201_200, ack(1))];
    assert_eq!(told(packets.clone()).1[1], [again(Trigger::Timeout, true, false)]);
    let counts = from_server(packets);
    assert_eq!(
        (counts.retransmissions, counts.by_timeout, counts.lost, counts.lost_before_capture),
        (1, 1, 1, 0)
    );
}

#[test]
fn sent_again_after_repeated_acknowledgements_is_fast() {
    let packets = vec![
        (1_000, data(0)),
        (1_010, data(1)),
        (1_020, data(2)),
        (1_400, ack(1)),
        (1_410, data(3)),
        (1_420, ack(1).sack(9, 13)),
        (1_500, data(1)),
    ];
    let (_, found) = told(packets);
    assert_eq!(found[5], [Finding::DuplicateAck]);
    assert_eq!(found[6], [again(Trigger::Fast, true, false)]);
}

#[test]
fn an_acknowledgement_is_repeated_only_by_nothing_but_itself() {
    let begin = || vec![(1_000, data(0)), (1_100, ack(1)), (1_200, data(1))];
    let then = |packet: Tcp| {
        let mut packets = begin();
        packets.push((1_300, packet));
        last(packets)
    };
    assert_eq!(then(ack(1)), [Finding::DuplicateAck]);
    assert!(then(ack(1).window(501)).is_empty(), "it tells of more room");
    assert!(then(ack(1).data("x")).is_empty(), "it has data");
    assert!(then(ack(1).flags("F")).is_empty());
    let packets = vec![(1_000, data(0)), (1_100, ack(1)), (1_300, ack(1))];
    assert!(last(packets).is_empty(), "everything has arrived");
}

#[test]
fn what_was_acknowledged_before_was_sent_again_in_vain() {
    let packets = vec![(1_000, data(0)), (1_500, ack(1)), (201_000, data(0)), (201_100, ack(1).sack(1, 5))];
    let (report, found) = told(packets);
    assert_eq!(found[2], [again(Trigger::Timeout, true, true)]);
    assert_eq!(found[3], [Finding::DuplicateSack { was_sent_again: false }]);
    let counts = report.total.from_servers;
    assert_eq!((counts.retransmissions, counts.needless, counts.lost), (1, 1, 0));
}

#[test]
fn what_the_receiver_says_has_come_twice_was_not_lost() {
    // Captured near the sender: the acknowledgement was on its way when the timer ran out.
    let packets = vec![(1_000, data(0)), (201_000, data(0)), (201_001, ack(1)), (201_500, ack(1).sack(1, 5))];
    let counts = from_server(packets);
    assert_eq!((counts.retransmissions, counts.needless, counts.lost), (1, 0, 0));
}

#[test]
fn what_the_network_has_doubled_says_nothing_of_what_was_sent_again() {
    // Captured near the sender: that the first four arrived twice is news, and the second four were lost.
    let packets = vec![
        (1_000, data(0)),
        (1_500, ack(1)),
        (1_600, ack(1).sack(1, 5)),
        (2_000, data(1)),
        (202_000, data(1)),
        (202_500, ack(2)),
    ];
    let (report, found) = told(packets);
    assert_eq!(found[2], [Finding::DuplicateSack { was_sent_again: false }]);
    let (servers, clients) = (report.total.from_servers, report.total.from_clients);
    assert_eq!((servers.retransmissions, servers.lost), (1, 1));
    assert_eq!((clients.duplicate_sacks, clients.duplicate_sacks_of_copies), (1, 0));
}

#[test]
fn a_gap_that_is_filled_at_once_was_reordered() {
    let packets = vec![(1_000, data(0)), (1_020, data(2)), (1_030, data(1)), (1_500, ack(3))];
    let (report, found) = told(packets);
    assert_eq!((&found[1][..], &found[2][..]), (&[Finding::Gap][..], &[Finding::Reordered][..]));
    let counts = report.total.from_servers;
    assert_eq!((counts.gaps, counts.reordered, counts.retransmissions, counts.lost), (1, 1, 0, 0));
}

#[test]
fn a_gap_that_is_filled_after_a_round_trip_was_lost_before_the_capture() {
    let packets = vec![(1_000, data(0)), (1_020, data(2)), (1_040, ack(1)), (1_700, data(1))];
    let (report, found) = told(packets);
    assert_eq!(found[3], [again(Trigger::Timeout, false, false)]);
    let counts = report.total.from_servers;
    assert_eq!((counts.lost, counts.lost_before_capture, counts.reordered), (1, 1, 0));
}

#[test]
fn the_clock_of_the_sender_decides_where_it_has_moved() {
    let begin = || vec![(1_000, data(0).clock(7)), (1_020, data(2).clock(8))];
    let then = |us, clock| {
        let mut packets = begin();
        packets.push((us, data(1).clock(clock)));
        last(packets)
    };
    assert_eq!(then(90_000, 7), [Finding::Reordered], "sent before, however late");
    assert_eq!(then(1_030, 9), [again(Trigger::Timeout, false, false)], "sent later, however soon");
    assert_eq!(then(1_030, 8), [Finding::Reordered]);
    assert_eq!(then(90_000, 8), [again(Trigger::Timeout, false, false)]);
}

#[test]
fn the_same_packet_twice_is_a_duplicate_and_counts_for_nothing_else() {
    let packets =
        vec![(1_000, data(0).id(7)), (1_010, data(0).id(7)), (1_100, ack(1).id(3)), (1_110, ack(1).id(3))];
    let (report, found) = told(packets);
    assert_eq!((&found[1][..], &found[3][..]), (&[Finding::Duplicate][..], &[Finding::Duplicate][..]));
    let (servers, clients) = (report.total.from_servers, report.total.from_clients);
    assert_eq!((servers.duplicates, servers.retransmissions, clients.duplicates), (1, 0, 1));
    // With another identification it was sent twice.
    let packets = vec![(1_000, data(0).id(7)), (1_010, data(0).id(8))];
    assert_eq!(last(packets), [again(Trigger::Timeout, true, false)]);
}

#[test]
fn data_that_only_the_receiver_has_seen_was_not_captured() {
    let (report, found) = told(vec![(1_000, data(0)), (1_020, data(2)), (1_400, ack(3)), (1_500, ack(5))]);
    assert_eq!(found[2], [Finding::Uncaptured, Finding::Ambiguous]);
    assert_eq!(found[3], [Finding::Uncaptured]);
    assert_eq!((report.total.from_servers.uncaptured, report.total.from_clients.uncaptured), (2, 0));
}

#[test]
fn data_that_was_captured_behind_its_acknowledgement_was_not_sent_again() {
    let (report, found) =
        told(vec![(1_000, data(0)), (1_400, ack(2)), (1_410, data(1)), (1_500, data(2)), (1_900, ack(3))]);
    assert_eq!(
        (&found[2], &found[4]),
        (&vec![Finding::CapturedLate], &vec![crate::capture::round_trip(400)])
    );
    let counts = report.total.from_servers;
    assert_eq!((counts.captured_late, counts.retransmissions, counts.uncaptured), (1, 0, 1));
}

#[test]
fn a_packet_without_data_tells_of_a_gap_too() {
    let (report, found) =
        told(vec![(1_000, data(0)), (1_020, server(9, 1)), (1_030, data(1)), (1_400, ack(2))]);
    assert_eq!((&found[1], &found[2]), (&vec![Finding::Gap], &vec![Finding::Reordered]));
    assert_eq!((report.total.from_servers.gaps, report.total.from_servers.uncaptured), (1, 0));
}

#[test]
fn half_of_a_gap_can_be_filled() {
    let packets = vec![
        (1_000, data(0)),
        (1_020, data(3)),
        (1_030, data(1)),
        (1_040, data(2)),
        (1_400, ack(4)),
        (1_500, data(4)),
        (1_900, ack(5)),
    ];
    let (report, found) = told(packets);
    assert_eq!((&found[2], &found[3]), (&vec![Finding::Reordered], &vec![Finding::Reordered]));
    assert_eq!(report.total.from_servers.uncaptured, 0);
    assert_eq!(found[6], [crate::capture::round_trip(400)]);
}

#[test]
fn no_room_is_counted_and_timed() {
    let (report, found) = told(vec![
        (1_000, data(0)),
        (1_100, ack(1).window(0)),
        (2_100, ack(1).window(0)),
        (5_100, ack(1).window(500)),
        (6_000, data(1)),
        (6_100, ack(2).window(0)),
        (6_200, ack(2).flags("R").window(0)),
    ]);
    assert_eq!(found[2], [Finding::ZeroWindow]);
    let counts = report.total.from_clients;
    assert_eq!((counts.zero_windows, counts.zero_window_ns), (3, 4_100_000));
    assert_eq!(report.connections[0].end, End::Reset);
}

#[test]
fn signs_of_life_are_not_sent_again() {
    let packets = vec![
        (1_000, data(0)),
        (1_100, ack(1)),
        (9_000_000, server(4, 1)),
        (9_000_100, ack(1)),
        (18_000_000, server(4, 1).data("d")),
        (18_000_100, ack(1)),
    ];
    let (report, found) = told(packets);
    assert_eq!((&found[2], &found[4]), (&vec![Finding::KeepAlive], &vec![Finding::KeepAlive]));
    assert!(found[3].is_empty() && found[5].is_empty(), "{found:?}");
    assert_eq!(report.total.from_servers.retransmissions, 0);
}

#[test]
fn another_connection_between_the_same_ends_is_another_one() {
    let (report, _) = told(vec![
        (1_000, client(1, 1).flags("F")),
        (1_100, server(1, 2).flags("F")),
        (1_200, client(2, 2)),
        (9_000, client(77, 0).flags("S").without_ack()),
    ]);
    let ends: Vec<_> = report.connections.iter().map(|connection| connection.end).collect();
    assert_eq!(ends, [End::Closed, End::Open]);
}
