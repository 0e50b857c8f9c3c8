//! `Callback`: which of a service's methods a loop is in, so that one that does not return is known by name.

/// The callbacks of a service, as [`ProcessMetrics::running_callback`](super::ProcessMetrics::running_callback) names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Callback {
    Open = 0,
    Message = 1,
    Note = 2,
    Timer = 3,
    Drained = 4,
    Deadline = 5,
    Eof = 6,
    Retire = 7,
    Close = 8,
    ConnectFailed = 9,
    Datagram = 10,
    Sent = 11,
}

impl Callback {
    /// The name of the trait's method.
    pub(crate) const fn name(self) -> &'static str {
        NAMES[self as usize]
    }
}

pub(super) const NAMES: [&str; 12] = [
    "on_open",
    "decode or on_message",
    "on_note",
    "on_timer",
    "on_drained",
    "on_deadline",
    "on_eof",
    "on_retire",
    "on_close",
    "on_connect_failed",
    "on_datagram",
    "on_sent",
];

/// What a loop is in, as another thread or process sees it: only roughly the same moment for all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningCallback {
    /// The number of the listener, in the order in which they were given to the builder.
    pub listener: usize,
    /// The method of its service.
    pub callback: &'static str,
    /// The slot and the generation of the connection.
    pub conn: (u32, u32),
}
