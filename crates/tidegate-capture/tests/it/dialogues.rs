//! Requests and their answers: which belong together, and how long they took.

use tidegate_capture::{MessageReport, Options, Protocol, ProtocolChoice, analyse_from};

use crate::capture::{Tcp, client, handshake, pcap, server, told};

fn messages(packets: Vec<(u64, Tcp)>) -> Vec<MessageReport> {
    told(packets).0.messages
}

/// What was asked for, how often, and in microseconds the middle times to first and last byte and of the server.
fn row(message: &MessageReport) -> (&str, u64, u64, u64, Option<u64>) {
    let us = |ns| ns / 1_000;
    let (first, last) = (&message.to_first_byte, &message.to_last_byte);
    let thinking = message.thinking.map(|thinking| us(thinking.p50_ns));
    (&message.what, first.count, us(first.p50_ns), us(last.p50_ns), thinking)
}

/// One side after the other, each with its text, 100 us apart unless a text tells another time: all in order.
fn talk(words: &[(u64, char, &[u8])]) -> Vec<(u64, Tcp)> {
    let (mut of_client, mut of_server) = (1, 1);
    let packet = |(us, who, text): &(u64, char, &[u8])| {
        let len = u32::try_from(text.len()).unwrap();
        let (seq, ack) = if *who == 'c' { (of_client, of_server) } else { (of_server, of_client) };
        if *who == 'c' {
            of_client += len;
            (*us, client(seq, ack).data(text))
        } else {
            of_server += len;
            (*us, server(seq, ack).data(text))
        }
    };
    words.iter().map(packet).collect()
}

const GET: &[u8] = b"GET /hello?x=1 HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const PING: &[u8] = &[0, 8, 0, 0, 0, 0, 0, 0];

#[test]
fn thinking_is_what_the_network_did_not_take() {
    // The handshake has told that the way to the server and back takes 400 us.
    let told = messages(talk(&[(1_000, 'c', GET), (3_400, 's', &OK[..30]), (3_900, 's', &OK[30..])]));
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].protocol, row(&told[0])),
        (Protocol::Http, ("GET /hello", 1, 2_400, 2_900, Some(2_000)))
    );
}

#[test]
fn where_something_was_sent_again_nothing_is_said_of_thinking() {
    let mut packets = talk(&[(1_000, 'c', GET), (203_400, 's', OK)]);
    packets.insert(1, (201_000, client(1, 1).data(GET)));
    assert_eq!(row(&messages(packets)[0]), ("GET /hello", 1, 202_400, 202_400, None));
}

#[test]
fn without_a_handshake_the_answer_itself_tells_nothing_of_the_network() {
    let file = pcap(&talk(&[(1_000, 'c', GET), (3_400, 's', OK)]));
    let report = analyse_from(&file[..], &Options::default(), &mut |_, _| {}).unwrap();
    assert_eq!(row(&report.messages[0]), ("GET /hello", 1, 2_400, 2_400, None));
}

#[test]
fn answers_belong_to_requests_in_their_order() {
    let both = [GET, b"HEAD /other HTTP/1.1\r\n\r\n"].concat();
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let told = messages(talk(&[
        (1_000, 'c', &both),
        (1_500, 's', &[OK, head].concat()),
        (1_900, 'c', GET),
        (2_400, 's', OK),
    ]));
    let rows: Vec<_> = told.iter().map(row).collect();
    assert_eq!(rows, [("GET /hello", 2, 500, 500, Some(100)), ("HEAD /other", 1, 500, 500, Some(100))]);
}

#[test]
fn bodies_end_as_their_heads_say() {
    let post = b"POST /up HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let words: &[(u64, char, &[u8])] = &[
        (1_000, 'c', &post[..41]),
        (1_100, 'c', &post[41..]),
        (2_000, 's', b"HTTP/1.1 100 Continue\r\n\r\n"),
        (2_100, 's', &chunked[..50]),
        (2_300, 's', &chunked[50..]),
        (3_000, 'c', GET),
        (3_700, 's', b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
        (4_000, 'c', GET),
        (4_700, 's', OK),
    ];
    let told = messages(talk(words));
    let rows: Vec<_> = told.iter().map(row).collect();
    assert_eq!(rows, [("GET /hello", 2, 700, 700, Some(300)), ("POST /up", 1, 1_000, 1_200, Some(600))]);
}

#[test]
fn an_answer_without_a_length_ends_with_the_connection() {
    let mut packets =
        talk(&[(1_000, 'c', GET), (1_500, 's', b"HTTP/1.0 200 OK\r\n\r\nsome"), (1_600, 's', b"more")]);
    let len = u32::try_from(b"HTTP/1.0 200 OK\r\n\r\nsomemore".len()).unwrap();
    packets.push((2_000, server(1 + len, 1 + u32::try_from(GET.len()).unwrap()).flags("F")));
    assert_eq!(row(&messages(packets)[0]), ("GET /hello", 1, 500, 1_000, Some(100)));
}

#[test]
fn frames_are_told_by_their_codes() {
    let other = &[0, 8, 0, 77, 0, 0, 0, 0][..];
    let words: &[(u64, char, &[u8])] = &[
        (1_000, 'c', PING),
        (1_500, 's', PING),
        (2_000, 'c', &[PING, &other[..3]].concat()),
        (2_100, 'c', &other[3..]),
        (2_700, 's', &[PING, other].concat()),
    ];
    let told = messages(talk(words));
    let rows: Vec<_> = told.iter().map(row).collect();
    assert_eq!(told[0].protocol, Protocol::Frame);
    assert_eq!(rows, [("0 ping", 2, 500, 500, Some(100)), ("77", 1, 600, 600, Some(200))]);
}

#[test]
fn a_body_that_was_not_captured_is_still_as_long_as_its_head_says() {
    let long = [b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n", &[b'x'; 300][..]].concat();
    let packets = talk(&[(1_000, 'c', GET), (1_500, 's', &long), (2_000, 'c', GET), (2_600, 's', OK)]);
    let cut: Vec<_> = handshake()
        .into_iter()
        .chain(packets)
        .map(|(us, tcp)| {
            let packet = tcp.ip();
            let len = packet.len().min(100);
            (us, packet[..len].to_vec())
        })
        .collect();
    let report = crate::capture::told_of(&crate::capture::pcap_of(101, &cut)).0;
    assert_eq!(row(&report.messages[0]), ("GET /hello", 2, 500, 500, Some(100)));
}

#[test]
fn data_out_of_order_is_put_in_order() {
    let mut packets = talk(&[
        (1_000, 'c', &GET[..10]),
        (1_100, 'c', &GET[10..20]),
        (1_200, 'c', &GET[20..]),
        (2_000, 's', OK),
    ]);
    packets[1].0 = 1_300;
    packets.swap(1, 2);
    // The request is whole when its last missing piece is there, and was held up meanwhile.
    assert_eq!(row(&messages(packets)[0]), ("GET /hello", 1, 700, 700, None));
}

#[test]
fn what_is_lost_to_the_capture_loses_one_request_and_no_more() {
    let mut packets = talk(&[
        (1_000, 'c', GET),
        (1_500, 's', OK),
        (2_000, 'c', GET),
        (2_500, 's', OK),
        (3_000, 'c', GET),
        (3_500, 's', OK),
    ]);
    packets.remove(2);
    assert_eq!(row(&messages(packets.clone())[0]), ("GET /hello", 2, 500, 500, Some(100)));
    // The first of the client, or of the server.
    packets = talk(&[(1_000, 'c', GET), (1_500, 's', OK), (2_000, 'c', GET), (2_700, 's', OK)]);
    packets.remove(0);
    assert_eq!(row(&messages(packets.clone())[0]), ("GET /hello", 1, 700, 700, Some(300)));
    packets = talk(&[(1_000, 'c', GET), (1_500, 's', OK), (2_000, 'c', GET), (2_700, 's', OK)]);
    packets.remove(1);
    assert_eq!(row(&messages(packets.clone())[0]), ("GET /hello", 1, 700, 700, Some(300)));
    // A request together with its answer: the one behind it may have been asked before that answer.
    let mut packets = talk(&[
        (1_000, 'c', GET),
        (1_500, 's', OK),
        (2_000, 'c', GET),
        (2_500, 's', OK),
        (3_000, 'c', GET),
        (3_700, 's', OK),
        (4_000, 'c', GET),
        (4_700, 's', OK),
    ]);
    packets.drain(2..4);
    let told = messages(packets);
    assert_eq!((told[0].to_first_byte.count, told[0].to_first_byte.max_ns), (2, 700_000));
}

#[test]
fn a_body_with_a_hole_is_still_as_long_as_its_head_says() {
    let long = [b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n", &[b'x'; 30][..]].concat();
    let mut packets = talk(&[
        (1_000, 'c', GET),
        (1_500, 's', &long[..50]),
        (1_600, 's', &long[50..60]),
        (1_700, 's', &long[60..]),
        (2_000, 'c', GET),
        (2_500, 's', OK),
    ]);
    packets.remove(2);
    // It ends when the client has said that it has all, as the last packet waits for that.
    assert_eq!(row(&messages(packets)[0]), ("GET /hello", 2, 500, 500, Some(100)));
}

#[test]
fn after_a_loss_nothing_is_paired_that_may_not_belong_together() {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    // An answer loses a chunk, and the client, that does not wait, asks before the rest has come.
    let both = [GET, GET].concat();
    let mut packets = talk(&[
        (1_000, 'c', &both),
        (1_500, 's', chunked),
        (1_600, 's', b"5\r\nhello\r\n0\r\n\r\n"),
        (1_800, 's', OK),
        (2_000, 'c', GET),
        (2_500, 's', OK),
    ]);
    packets.remove(2);
    assert!(messages(packets).is_empty(), "it did not wait before");
    let mut packets = talk(&[
        (1_000, 'c', GET),
        (1_500, 's', OK),
        (2_000, 'c', GET),
        (2_100, 'c', GET),
        (2_200, 'c', GET),
        (2_500, 's', &[OK, OK, OK].concat()),
        (3_000, 'c', GET),
        (3_500, 's', OK),
    ]);
    packets.remove(2);
    assert_eq!(messages(packets)[0].to_first_byte.count, 1, "it does not wait now");
    // Data that the client sends is not taken for a request just because it looks like one.
    let mut packets = talk(&[
        (1_000, 'c', b"POST / HTTP/1.1\r\nContent-Length: 999\r\n\r\n"),
        (1_100, 'c', GET),
        (1_200, 'c', b"GET /hel"),
        (2_000, 's', OK),
        (2_500, 'c', b"lo HTTP/1.1\r\n\r\n"),
        (3_000, 's', OK),
    ]);
    packets.remove(0);
    let told = messages(packets);
    assert!(told.iter().all(|told| told.what != "POST /"), "{told:?}");
}

#[test]
fn frames_are_not_found_again() {
    let other = &[0, 8, 0, 77, 0, 0, 0, 0][..];
    let words: &[(u64, char, &[u8])] = &[
        (1_000, 'c', PING),
        (1_500, 's', PING),
        (2_000, 'c', other),
        (2_500, 's', other),
        (3_000, 'c', PING),
        (3_500, 's', PING),
    ];
    let mut packets = talk(words);
    packets.remove(2);
    let told = messages(packets);
    assert_eq!((told.len(), row(&told[0])), (1, ("0 ping", 1, 500, 500, Some(100))));
}

#[test]
fn a_capture_that_begins_within_an_answer_finds_the_next_request() {
    let words: &[(u64, char, &[u8])] = &[
        (900, 's', b"the rest of an answer"),
        (1_000, 'c', GET),
        (1_500, 's', OK),
        (2_000, 'c', GET),
        (2_600, 's', OK),
    ];
    let report = analyse_from(&pcap(&talk(words))[..], &Options::default(), &mut |_, _| {}).unwrap();
    assert_eq!(report.messages[0].protocol, Protocol::Http);
    assert_eq!(row(&report.messages[0]), ("GET /hello", 2, 500, 500, None));
}

#[test]
fn any_other_protocol_is_taken_for_turns() {
    let words: &[(u64, char, &[u8])] = &[
        (900, 's', b"220 ready\r\n"),
        (1_000, 'c', b"HEL"),
        (1_100, 'c', b"O a\r\n"),
        (1_600, 's', b"250-a\r\n"),
        (1_700, 's', b"250 b\r\n"),
        (2_000, 'c', b"QUIT\r\n"),
        (2_500, 's', b"221 bye\r\n"),
        (3_000, 'c', b"\r\n"),
    ];
    let told = messages(talk(words));
    assert_eq!((told.len(), told[0].protocol), (1, Protocol::Turns));
    assert_eq!(row(&told[0]), ("", 2, 500, 500, Some(100)));
    assert_eq!(told[0].to_last_byte.max_ns, 600_000);
}

#[test]
fn the_protocol_can_be_chosen() {
    let frame = [&[0, 108, 0, 99, 1, 2, 3, 4][..], &[0; 100]].concat();
    let all: Vec<_> = handshake()
        .into_iter()
        .chain(talk(&[(1_000, 'c', &frame[..60]), (1_100, 'c', &frame[60..]), (1_500, 's', PING)]))
        .collect();
    let file = pcap(&all);
    let told = |protocol| {
        let options = Options { protocol, ..Options::default() };
        analyse_from(&file[..], &options, &mut |_, _| {}).unwrap().messages
    };
    assert_eq!(told(ProtocolChoice::Auto)[0].protocol, Protocol::Turns);
    assert_eq!(
        (&*told(ProtocolChoice::Frame)[0].what, told(ProtocolChoice::Frame)[0].protocol),
        ("99", Protocol::Frame)
    );
    assert!(told(ProtocolChoice::None).is_empty());
    assert!(told(ProtocolChoice::Http).is_empty());
}
