//! How a request about accounts went, as the replies tell it.

use core::fmt;

/// The `status` of a register or login reply. 0 is success; every other number says why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// 0: done.
    Done,
    /// 1: there is no such user, or the password is another one; which of the two is not told.
    Refused,
    /// 2: somebody has this name already.
    NameTaken,
    /// 3: the name or the password breaks the rules for names and passwords.
    Invalid,
    /// 4: too many such requests wait; try later.
    Busy,
    /// 5: the server failed; its log says how.
    Internal,
    /// A number that this version of the protocol does not define.
    Other(i32),
}

impl Status {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::NameTaken => 2,
            Self::Invalid => 3,
            Self::Busy => 4,
            Self::Internal => 5,
            Self::Other(number) => number,
        }
    }
}

impl From<i32> for Status {
    fn from(number: i32) -> Self {
        match number {
            0 => Self::Done,
            1 => Self::Refused,
            2 => Self::NameTaken,
            3 => Self::Invalid,
            4 => Self::Busy,
            5 => Self::Internal,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Refused => f.write_str("unknown user or wrong password"),
            Self::NameTaken => f.write_str("name taken"),
            Self::Invalid => f.write_str("invalid name or password"),
            Self::Busy => f.write_str("busy, try later"),
            Self::Internal => f.write_str("internal error of the server"),
            Self::Other(number) => write!(f, "status {number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_survives_the_round_trip() {
        for number in [0, 1, 2, 3, 4, 5, 6, -1, i32::MAX, i32::MIN] {
            assert_eq!(Status::from(number).number(), number);
        }
        assert_eq!(Status::from(2), Status::NameTaken);
        assert_eq!(Status::from(6).to_string(), "status 6");
    }
}
