//! Channels for descriptors: what arrives, and that nothing stays open when something goes wrong.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;

use proptest::prelude::*;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate_sys::fd_channel::{FdChannel, Received, check_connection};

const ALONE: &str = "TIDEGATE_TEST_ALONE";

/// Runs a test in a process of its own, where nobody else opens and closes descriptors.
fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// How many descriptors this process has.
fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs something that must leave as many descriptors open as there were.
fn leaves_nothing_open(what: &str, body: impl FnOnce()) {
    let before = open_fds();
    body();
    assert_eq!(open_fds(), before, "{what}");
}

fn null() -> File {
    File::open("/dev/null").unwrap()
}

fn received(channel: &FdChannel) -> (Vec<u8>, Vec<OwnedFd>) {
    let (mut bytes, mut fds) = (vec![0; 4096], Vec::new());
    let Received::Message { len } = channel.recv(&mut bytes, &mut fds).unwrap() else { panic!("no message") };
    bytes.truncate(len);
    (bytes, fds)
}

fn refused(channel: &FdChannel, room: usize) -> String {
    let mut fds = vec![null().into()];
    let error = channel.recv(&mut vec![0; room], &mut fds).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    assert_eq!(fds.len(), 1, "what the caller had is still there, and nothing else");
    error.to_string()
}

#[test]
fn descriptors_arrive_in_order_and_are_closed_at_an_exec() {
    let (here, there) = FdChannel::pair().unwrap();
    let pipes: Vec<_> = (0..FdChannel::MAX_FDS).map(|_| io::pipe().unwrap()).collect();
    let fds: Vec<BorrowedFd<'_>> = pipes.iter().map(|(_, writer)| writer.as_fd()).collect();
    here.send(b"all of them", &fds).unwrap();
    let (bytes, fds) = received(&there);
    assert_eq!(bytes, b"all of them");
    assert_eq!(fds.len(), pipes.len());
    for (number, (fd, (mut reader, writer))) in fds.into_iter().zip(pipes).enumerate() {
        assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        drop(writer);
        write!(File::from(fd), "{number}").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, number.to_string());
    }
}

#[test]
fn both_ends_send_and_each_message_keeps_its_bounds() {
    let (one, other) = FdChannel::pair().unwrap();
    for (from, to) in [(&one, &other), (&other, &one)] {
        from.send(b"first", &[]).unwrap();
        from.send(b"second", &[null().as_fd()]).unwrap();
        assert_eq!(received(to).0, b"first");
        let (bytes, fds) = received(to);
        assert_eq!((bytes.as_slice(), fds.len()), (b"second".as_slice(), 1));
        assert_eq!(to.recv(&mut [0; 8], &mut Vec::new()).unwrap(), Received::Empty);
    }
}

#[test]
fn what_was_sent_before_the_end_is_received_before_it() {
    let (here, there) = FdChannel::pair().unwrap();
    here.send(b"last words", &[]).unwrap();
    drop(here);
    assert_eq!(received(&there).0, b"last words");
    for _ in 0..2 {
        assert_eq!(there.recv(&mut [0; 8], &mut Vec::new()).unwrap(), Received::Closed);
    }
    assert_eq!(there.send(b"anybody?", &[]).unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_full_channel_refuses_and_takes_again_when_somebody_has_received() {
    let (here, there) = FdChannel::pair().unwrap();
    let file = null();
    let mut sent = 0;
    let error = loop {
        match here.send(&[7; 64], &[file.as_fd()]) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(sent > 16, "{sent}");
    for _ in 0..sent {
        assert_eq!(received(&there).1.len(), 1);
    }
    here.send(b"again", &[file.as_fd()]).unwrap();
    assert_eq!(received(&there).0, b"again");
}

#[test]
fn what_no_message_can_be_is_not_sent() {
    let (here, there) = FdChannel::pair().unwrap();
    let file = null();
    let too_many = [file.as_fd(); FdChannel::MAX_FDS + 1];
    assert_eq!(here.send(b"", &[]).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(here.send(b"x", &too_many).unwrap_err().kind(), ErrorKind::InvalidInput);
    let too_long = vec![0; 16 << 20];
    assert_eq!(
        here.send(&too_long, &[]).unwrap_err().raw_os_error(),
        Some(rustix::io::Errno::MSGSIZE.raw_os_error())
    );
    assert_eq!(there.recv(&mut [0; 8], &mut Vec::new()).unwrap(), Received::Empty);
}

#[test]
fn only_a_socket_of_sequenced_packets_is_a_channel() {
    let (stream, _other) = UnixStream::pair().unwrap();
    assert_eq!(FdChannel::from_fd(stream.into()).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(FdChannel::from_fd(null().into()).is_err());
    let (one, other) = FdChannel::pair().unwrap();
    let one = FdChannel::from_fd(one.into()).unwrap();
    one.try_clone().unwrap().send(b"by a copy", &[]).unwrap();
    assert_eq!(received(&other).0, b"by a copy");
}

#[test]
fn a_message_that_fails_leaves_nothing_open() {
    alone("a_message_that_fails_leaves_nothing_open", || {
        let file = null();
        let three = [file.as_fd(); 3];
        leaves_nothing_open("a message that is longer than the buffer", || {
            let (here, there) = FdChannel::pair().unwrap();
            here.send(b"too long", &three).unwrap();
            here.send(b"fits", &three).unwrap();
            assert_eq!(refused(&there, 7), "a message was longer than the buffer of 7 bytes");
            assert_eq!(received(&there).1.len(), 3, "the next one is not affected");
        });
        leaves_nothing_open("a message without bytes", || {
            let (here, there) = FdChannel::pair().unwrap();
            send_nothing(&here, &three);
            send_nothing(&here, &[]);
            here.send(b"behind", &[]).unwrap();
            assert_eq!(refused(&there, 8), "a message has no bytes");
            assert_eq!(refused(&there, 8), "a message has no bytes");
            assert_eq!(received(&there).0, b"behind");
        });
        leaves_nothing_open("credentials beside descriptors", || {
            let (here, there) = FdChannel::pair().unwrap();
            sockopt::set_socket_passcred(&there, true).unwrap();
            here.send(b"who am I", &three).unwrap();
            here.send(b"who am I", &[]).unwrap();
            for _ in 0..2 {
                assert_eq!(refused(&there, 64), "a message carries control data other than descriptors");
            }
        });
        leaves_nothing_open("messages that nobody receives", || {
            let (here, there) = FdChannel::pair().unwrap();
            here.send(b"lost", &three).unwrap();
            drop(here);
            drop(there);
        });
        leaves_nothing_open("a message to nobody", || {
            let (here, there) = FdChannel::pair().unwrap();
            drop(there);
            assert_eq!(here.send(b"lost", &three).unwrap_err().kind(), ErrorKind::BrokenPipe);
        });
    });
}

/// What `FdChannel::send` refuses to send.
fn send_nothing(channel: &FdChannel, fds: &[BorrowedFd<'_>]) {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || control.push(rustix::net::SendAncillaryMessage::ScmRights(fds)));
    rustix::net::sendmsg(channel, &[], &mut control, rustix::net::SendFlags::NOSIGNAL).unwrap();
}

#[test]
fn a_receiver_without_descriptors_loses_the_message_and_nothing_else() {
    alone("a_receiver_without_descriptors_loses_the_message_and_nothing_else", || {
        let (here, there) = FdChannel::pair().unwrap();
        let file = null();
        here.send(b"first", &[file.as_fd(); 8]).unwrap();
        here.send(b"second", &[file.as_fd(); 8]).unwrap();
        let limit = getrlimit(Resource::Nofile);
        let before = open_fds();
        // Counting takes one, and `refused` another: two or three of the eight find room.
        let room = u64::try_from(before).unwrap() + 3;
        setrlimit(Resource::Nofile, Rlimit { current: Some(room), ..limit }).unwrap();
        let error = refused(&there, 64);
        setrlimit(Resource::Nofile, limit).unwrap();
        assert!(error.starts_with("not all descriptors"), "{error}");
        assert_eq!(open_fds(), before);
        let (bytes, fds) = received(&there);
        assert_eq!((bytes.as_slice(), fds.len()), (b"second".as_slice(), 8));
    });
}

#[test]
fn a_connection_is_told_from_what_is_none() {
    let kind = |fd: BorrowedFd<'_>| check_connection(fd).map_err(|error| error.kind());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert_eq!(kind(client.as_fd()), Ok(()));
    client.shutdown(std::net::Shutdown::Both).unwrap();
    drop(client);
    assert_eq!(kind(accepted.as_fd()), Ok(()), "what a peer has said before it went is still to be read");
    let (stream, other) = UnixStream::pair().unwrap();
    drop(other);
    assert_eq!(kind(stream.as_fd()), Ok(()));
    assert_eq!(kind(listener.as_fd()), Err(ErrorKind::NotConnected));
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    assert_eq!(kind(udp.as_fd()), Err(ErrorKind::InvalidInput));
    let packets = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    assert_eq!(kind(packets.0.as_fd()), Err(ErrorKind::InvalidInput));
    assert!(check_connection(null()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is sent arrives, message by message and descriptor by descriptor, however sends and receives alternate.
    #[test]
    fn every_batch_arrives_as_it_was_sent(
        batches in prop::collection::vec((1usize..300, 0usize..=24, any::<bool>()), 1..40),
    ) {
        let (here, there) = FdChannel::pair().unwrap();
        let mut sent = std::collections::VecDeque::new();
        let check = |(bytes, inodes): (Vec<u8>, Vec<u64>)| {
            let (got, fds) = received(&there);
            assert_eq!(got, bytes);
            let found: Vec<u64> = fds.iter().map(|fd| rustix::fs::fstat(fd).unwrap().st_ino).collect();
            assert_eq!(found, inodes);
        };
        for (number, (len, count, receive)) in batches.into_iter().enumerate() {
            let files: Vec<_> = (0..count).map(|_| io::pipe().unwrap().0).collect();
            let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            let bytes = vec![u8::try_from(number).unwrap(); len];
            here.send(&bytes, &fds).unwrap();
            let inodes = files.iter().map(|file| rustix::fs::fstat(file).unwrap().st_ino).collect();
            sent.push_back((bytes, inodes));
            if receive {
                check(sent.pop_front().unwrap());
            }
        }
        sent.into_iter().for_each(check);
        prop_assert_eq!(there.recv(&mut [0; 8], &mut Vec::new()).unwrap(), Received::Empty);
    }
}
