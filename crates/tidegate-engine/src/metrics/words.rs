//! The names of the words that every process and every listener has.
//!
//! Invariant: a name keeps its place, since processes of several versions read the same words while one replaces the other.

use super::MORE_AT;

/// Words of a process that belong to no listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum ProcessWord {
    /// Process id; 0: the place is free.
    Pid = 0,
    /// 0 master, 1 log server, 2 worker, 3 acceptor, 4 process of the program's own.
    Role = 1,
    /// The number of a worker.
    Index = 2,
    /// The configuration's generation.
    Generation = 3,
    /// 0 starting, 1 ready, 2 retiring, 3 ended.
    State = 4,
    /// Start, in seconds since 1970.
    StartedUnix = 5,
    /// Turns of the event loop.
    LoopTurns = 6,
    /// Work for connections that were gone, dropped by generation.
    StaleHandles = 7,
    /// Times that accepting failed for want of descriptors or memory.
    AcceptExhausted = 8,
    /// Panics caught in callbacks.
    Panics = 9,
    /// Log records dropped by this process's log client.
    LogDropped = 10,
    /// How often the process in this place was started again.
    Restarts = 11,
    /// When the present turn of the loop began, in nanoseconds of the monotonic clock; 0 while it waits.
    TurnSince = 12,
    /// The callback that runs: the listener's number and one in the upper half, the callback's in the lower; 0 for none.
    Callback = 13,
    /// The connection that it runs for: generation in the upper half, slot in the lower.
    CallbackConn = 14,
    /// Turns that took longer than `engine.stall_after`, entered by whoever watches the loop.
    Stalls = 15,
    /// Bytes of the stack of the thread that runs the loop.
    ThreadStack = 16,
    /// The number of that thread in /proc/PID/task; 0 before it is known.
    Tid = 17,
    /// Bytes that the connections of the loop hold in memory: see [`Budget`](crate::Budget).
    BufferBytes = 18,
    /// Times that accepting was stopped because these came near a limit.
    AcceptsHeld = 19,
    /// 0, or 1 for a worker that replaces another which still drains.
    Seat = 20,
    /// Twice how often the master has moved what ended processes had counted elsewhere; odd while it does.
    Moves = 21,
    /// Messages and descriptors that were handed over and are no connections.
    HandoverErrors = 24,
}

/// General words of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum ListenerWord {
    /// Connections accepted.
    Accepted = 0,
    /// Connections open now.
    Open = 1,
    /// Bytes received.
    BytesIn = 2,
    /// Bytes that the kernel took for sending.
    BytesOut = 3,
    /// Complete messages handled.
    Messages = 4,
    /// Peers refused for want of descriptors.
    Overloaded = 5,
    /// Connections lost while they waited to be accepted.
    AcceptLost = 6,
    /// Connections whose peer ended first: its FIN or its reset was seen before the server had ended its side.
    ClosedByPeer = 7,
    /// Connections that the server ended first.
    ClosedByServer = 8,
    /// Outgoing connections that were asked for.
    Connects = 9,
    /// Those of them that could not be had.
    ConnectFailures = 10,
    /// Handshakes of TLS that were done. Those that were not are closes for a reason of theirs.
    Handshakes = 11,
    /// Datagrams handled.
    DatagramsIn = 12,
    /// Datagrams that the kernel took for sending.
    DatagramsOut = 13,
    /// Datagrams that were to be sent and were not: there was no room, or the kernel refused them.
    DatagramsDropped = 14,
    /// Datagrams that were longer than what is received of one, and thrown away.
    DatagramsTruncated = 15,
    /// Handshakes of TLS that went on from an earlier connection.
    HandshakesResumed = MORE_AT,
}
