//! Which acknowledgements tell a round trip, and which do not.

use tidegate_capture::{Finding, Side};

use crate::capture::{client, handshake, last, pcap, round_trip, server, told, told_of};

#[test]
fn a_handshake_is_told_as_a_whole_and_by_halves() {
    let (report, found) = told_of(&pcap(&handshake()));
    assert_eq!(found[1], [Finding::HalfHandshake { rtt_ns: 400_000 }]);
    let both = [Finding::Handshake { rtt_ns: 500_000 }, Finding::HalfHandshake { rtt_ns: 100_000 }];
    assert_eq!(found[2], both);
    assert_eq!(report.connections[0].handshake_ns, Some(500_000));
    assert_eq!(report.total.handshake.unwrap().p50_ns, 500_000);
}

#[test]
fn a_handshake_of_which_something_was_sent_twice_is_none() {
    let mut packets = handshake();
    packets.insert(1, (200, client(0, 0).flags("S").without_ack()));
    let (report, found) = told_of(&pcap(&packets));
    assert_eq!(found[2], [Finding::Ambiguous]);
    assert_eq!(found[3], [Finding::HalfHandshake { rtt_ns: 100_000 }]);
    assert_eq!((report.connections[0].handshake_ns, report.total.handshake), (None, None));
    assert_eq!(report.total.from_clients.retransmissions, 1);
}

#[test]
fn data_and_its_acknowledgement_are_a_round_trip_to_the_receiver() {
    let (report, found) = told(vec![
        (1_000, client(1, 1).data("abc")),
        (1_300, server(1, 4)),
        (2_000, server(1, 4).data("de")),
        (2_050, client(4, 3)),
    ]);
    assert_eq!(found, [vec![], vec![round_trip(300)], vec![], vec![round_trip(50)]]);
    let connection = &report.connections[0];
    let times = |side: Side| match side {
        Side::Client => connection.rtt_to_client.as_ref().unwrap().times,
        Side::Server => connection.rtt_to_server.as_ref().unwrap().times,
    };
    assert_eq!((times(Side::Server).p50_ns, times(Side::Client).p50_ns), (300_000, 50_000));
    assert_eq!((report.course_to_server.len(), report.course_to_client[0].ns), (1, 50_000));
}

#[test]
fn one_acknowledgement_of_several_segments_belongs_to_the_last_of_them() {
    let data = |us, seq| (us, client(seq, 1).data("abcd"));
    assert_eq!(
        last(vec![data(1_000, 1), data(1_010, 5), data(1_020, 9), (1_320, server(1, 9))]),
        [round_trip(310)]
    );
    // In the midst of a segment, as of one that the network card cuts in pieces.
    assert_eq!(last(vec![data(1_000, 1), data(1_010, 5), (1_320, server(1, 7))]), [round_trip(310)]);
}

#[test]
fn what_was_sent_twice_tells_none() {
    let data = |us| (us, client(1, 1).data("abcd"));
    assert_eq!(last(vec![data(1_000), data(210_000), (210_300, server(1, 5))]), [Finding::Ambiguous]);
    // Nor does it when the acknowledgement is one of later data too.
    let later = (210_100, client(5, 1).data("ef"));
    assert_eq!(last(vec![data(1_000), data(210_000), later, (210_300, server(1, 7))]), [Finding::Ambiguous]);
    // What comes after tells again.
    let packets = vec![
        data(1_000),
        data(210_000),
        (210_300, server(1, 5)),
        (210_400, client(5, 1).data("ef")),
        (210_700, server(1, 7)),
    ];
    assert_eq!(last(packets), [round_trip(300)]);
}

#[test]
fn what_filled_a_gap_tells_none() {
    let packets =
        vec![(1_000, client(5, 1).data("efgh")), (1_100, client(1, 1).data("abcd")), (1_300, server(1, 9))];
    assert_eq!(last(packets), [Finding::Ambiguous]);
}

#[test]
fn numbers_wrap_around() {
    let near_end = u32::MAX - 1_000 - 2;
    let packets = vec![
        (0, client(near_end, 0).flags("S").without_ack()),
        (400, server(0, near_end.wrapping_add(1)).flags("S")),
        (500, client(near_end.wrapping_add(1), 1)),
        (600, client(near_end.wrapping_add(1), 1).data("abcdefgh")),
        (700, server(1, near_end.wrapping_add(9))),
        (800, client(near_end.wrapping_add(9), 1).data("ij")),
        (950, server(1, near_end.wrapping_add(11))),
    ];
    let (report, found) = told_of(&pcap(&packets));
    assert_eq!((&found[4][..], &found[6][..]), (&[round_trip(100)][..], &[round_trip(150)][..]));
    assert_eq!((report.total.from_clients.gaps, report.total.from_clients.retransmissions), (0, 0));
}

#[test]
fn a_capture_that_begins_in_the_middle_tells_what_is_in_it() {
    let packets = [
        (0, server(900, 300).data("xyz")),
        (100, client(300, 903)),
        (200, client(300, 903).data("ab")),
        (500, server(903, 302)),
    ];
    let (report, found) = told_of(&pcap(&packets));
    assert_eq!((&found[1][..], &found[3][..]), (&[round_trip(100)][..], &[round_trip(300)][..]));
    let connection = &report.connections[0];
    assert_eq!((connection.has_begin, connection.handshake_ns), (false, None));
    assert_eq!((&*connection.client, &*connection.server), ("10.0.0.1:40000", "10.0.0.2:80"));
}
