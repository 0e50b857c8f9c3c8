//! The gateway's own counters, as `/metrics` names them.
//!
//! A counter's place in the table is its index in [`Io::count`](tidegate_engine::Io::count).

use tidegate_engine::CounterDef;

macro_rules! counters {
    ($($constant:ident = $index:literal, $name:literal, $help:literal;)*) => {
        $(pub(crate) const $constant: usize = $index;)*

        /// All of them, in the order of their indices.
        pub(crate) const ALL: &[CounterDef] = &[$(CounterDef { name: $name, help: $help }),*];
    };
}

counters! {
    PINGS = 0, "pings", "Pings answered.";
    REGISTERS = 1, "registers", "Requests to make an account.";
    LOGINS = 2, "logins", "Requests to log in.";
    OTHER_FRAMES = 3, "other_frames", "Frames given to the program's own handlers.";
    BAD_LENGTH = 4, "bad_length", "Connections closed for a length outside the limits.";
    BAD_CHECKSUM = 5, "bad_checksum", "Connections closed for a checksum that does not match.";
    BAD_BODY_SIZE = 6, "bad_body_size", "Connections closed for a body of the wrong size.";
    UNKNOWN_CODE = 7, "unknown_code", "Frames whose code has no handler.";
    HEARTBEAT_TIMEOUTS = 8, "heartbeat_timeouts", "Connections closed for want of a heartbeat.";
    OUTPUT_OVERFLOWS = 9, "output_overflows", "Connections closed because too many frames waited for them.";
    FLOODS = 10, "floods", "Connections closed for too many frames a second.";
    STALE_RESULTS = 11, "stale_results", "Answers about accounts whose connection had gone.";
    ACCOUNTS_REFUSED = 12, "accounts_refused", "Requests about accounts that were refused.";
    ACCOUNTS_BUSY = 13, "accounts_busy", "Requests about accounts for which there was no room.";
    ACCOUNTS_FAILED = 14, "accounts_failed", "Requests about accounts that failed in the server.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_a_place_in_the_table() {
        for (index, name) in [
            (PINGS, "pings"),
            (BAD_CHECKSUM, "bad_checksum"),
            (STALE_RESULTS, "stale_results"),
            (ACCOUNTS_FAILED, "accounts_failed"),
        ] {
            assert_eq!(ALL[index].name, name);
        }
        assert!(ALL.len() <= tidegate_engine::MAX_SERVICE_COUNTERS);
    }
}
