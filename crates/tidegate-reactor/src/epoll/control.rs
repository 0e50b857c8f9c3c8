//! epoll_ctl(2), at the one place where tests let it fail.

use std::os::fd::AsFd;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

pub(super) fn add(epoll: impl AsFd, fd: impl AsFd, data: EventData, flags: EventFlags) -> Result<(), Errno> {
    fault()?;
    epoll::add(epoll, fd, data, flags)
}

pub(super) fn modify(
    epoll: impl AsFd,
    fd: impl AsFd,
    data: EventData,
    flags: EventFlags,
) -> Result<(), Errno> {
    fault()?;
    epoll::modify(epoll, fd, data, flags)
}

pub(super) fn delete(epoll: impl AsFd, fd: impl AsFd) -> Result<(), Errno> {
    epoll::delete(epoll, fd)
}

#[cfg(not(test))]
#[inline]
fn fault() -> Result<(), Errno> {
    Ok(())
}

#[cfg(test)]
fn fault() -> Result<(), Errno> {
    tests::FAULT.take().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::{Completion, Epoll, Reactor, Token, Trigger};

    thread_local! {
        /// What the next call on this thread answers, in place of the kernel.
        pub(super) static FAULT: Cell<Option<Errno>> = const { Cell::new(None) };
    }

    const FAULTS: [Errno; 4] = [Errno::NOENT, Errno::EXIST, Errno::NOSPC, Errno::NOMEM];
    const TRIGGERS: [Trigger; 3] = [Trigger::Level, Trigger::Edge, Trigger::Oneshot];
    const TOKEN: Token = Token { slot: 0, generation: 1 };

    fn rests(reactor: &mut Epoll) {
        let now = reactor.now();
        reactor.wait(Some(now)).unwrap();
        let told = reactor.next();
        assert!(told.is_none(), "{told:?}");
    }

    #[test]
    fn a_connection_that_is_not_watched_is_closed_and_its_slot_is_free() {
        for (trigger, errno) in TRIGGERS.into_iter().flat_map(|t| FAULTS.map(|errno| (t, errno))) {
            let mut reactor = Epoll::new(trigger).unwrap();
            let (mut peer, socket) = UnixStream::pair().unwrap();
            FAULT.set(Some(errno));
            assert_eq!(reactor.open(TOKEN, socket.into()), Err(errno));
            assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "it was closed");
            rests(&mut reactor);
            let (mut peer, socket) = UnixStream::pair().unwrap();
            reactor.open(TOKEN, socket.into()).unwrap();
            peer.write_all(b"heard").unwrap();
            reactor.wait(None).unwrap();
            assert!(matches!(reactor.next(), Some(Completion::Received(TOKEN))));
            assert_eq!(reactor.received(), b"heard");
        }
    }

    #[test]
    fn what_cannot_be_polled_is_an_error_by_the_kernel_itself() {
        let mut reactor = Epoll::new(Trigger::Level).unwrap();
        assert_eq!(reactor.open(TOKEN, File::open("/dev/null").unwrap().into()), Err(Errno::PERM));
        rests(&mut reactor);
    }

    #[test]
    fn a_connection_that_is_not_watched_any_more_fails_once() {
        for (trigger, errno) in TRIGGERS.into_iter().flat_map(|t| FAULTS.map(|errno| (t, errno))) {
            let mut reactor = Epoll::new(trigger).unwrap();
            let (_peer, socket) = UnixStream::pair().unwrap();
            reactor.open(TOKEN, socket.into()).unwrap();
            reactor.await_writable(TOKEN);
            FAULT.set(Some(errno));
            reactor.wait(None).unwrap();
            let told = reactor.next();
            assert!(matches!(told, Some(Completion::Failed(TOKEN, e)) if e == errno), "{told:?}");
            assert!(reactor.next().is_none());
            assert!(FAULT.take().is_none(), "it was not tried");
            rests(&mut reactor);
        }
    }

    #[test]
    fn a_listener_that_is_not_watched_stays_paused_until_it_is() {
        for errno in FAULTS {
            let mut reactor = Epoll::new(Trigger::Level).unwrap();
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let address = socket.local_addr().unwrap();
            FAULT.set(Some(errno));
            assert_eq!(reactor.listen(socket.try_clone().unwrap().into(), true), Err(errno));
            let listener = reactor.listen(socket.into(), true).unwrap();
            reactor.pause_accept(listener);
            let _peer = std::net::TcpStream::connect(address).unwrap();
            FAULT.set(Some(errno));
            assert_eq!(reactor.resume_accept(listener), Err(errno));
            rests(&mut reactor);
            reactor.resume_accept(listener).unwrap();
            reactor.wait(None).unwrap();
            assert!(matches!(reactor.next(), Some(Completion::Accepted { .. })));
        }
    }
}
