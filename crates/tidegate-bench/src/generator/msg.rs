//! `Msg`: frames of the message protocol that are answered by frames of the same code.
//!
//! Invariant: a frame of another code or with a wrong checksum is no answer. What stands in the body of an answer is looked
//! at for logins only; of other codes nothing is known.

use tidegate_frame::{Decoder, LOGIN, LoginReply, Status, Step, encode};

use super::ask::Login;
use super::dialogue::{Answers, Dialogue, Heard};
use super::spec::SpecError;

/// The dialogue with a message gateway.
#[derive(Debug)]
pub(crate) struct Msg {
    code: u16,
    request: Vec<u8>,
    greeting: Option<Vec<u8>>,
}

impl Msg {
    /// Frames of this code, whose body has `size` bytes.
    pub(crate) fn new(code: u16, size: usize, login: Option<&Login>) -> Result<Self, SpecError> {
        let login = login.map(Login::encode).transpose()?;
        let body = match (&login, code) {
            (Some(body), LOGIN) => body.to_vec(),
            _ => (0..=250_u8).cycle().take(size).collect(),
        };
        let request = frame(code, &body)?;
        // Who measures logins logs in with the first of them.
        let greeting = login.filter(|_| code != LOGIN).map(|body| frame(LOGIN, &body)).transpose()?;
        Ok(Self { code, request, greeting })
    }
}

impl Dialogue for Msg {
    type State = ();

    fn begin(&self, _: u32) {}

    fn greeting(&self) -> Option<&[u8]> {
        self.greeting.as_deref()
    }

    fn hear_greeting(&self, input: &[u8]) -> Heard {
        match Decoder::new().decode(input) {
            Ok(Step::Need(n)) => Heard::Need(n),
            Ok(Step::Frame { len, header }) if header.code == LOGIN => match login_status(&input[..len]) {
                Ok(Status::Done) => {
                    Heard::Answers { len, answers: Answers { count: 1, ..Answers::default() } }
                }
                Ok(status) => Heard::Wrong(format!("the login was refused: {status}")),
                Err(text) => Heard::Wrong(text),
            },
            Ok(Step::Frame { header, .. }) => other_code(header.code, LOGIN),
            Err(error) => Heard::Wrong(error.to_string()),
        }
    }

    #[inline]
    fn ask<'a>(&'a self, (): &'a mut ()) -> [&'a [u8]; 2] {
        [&self.request, &[]]
    }

    #[inline]
    fn hear(&self, (): &mut (), input: &[u8]) -> Heard {
        let mut answers = Answers::default();
        let mut at = 0;
        while at < input.len() {
            let (len, header) = match Decoder::new().decode(&input[at..]) {
                Ok(Step::Frame { len, header }) => (len, header),
                Ok(Step::Need(n)) if at == 0 => return Heard::Need(n),
                Ok(Step::Need(_)) => break,
                Err(error) => return Heard::Wrong(error.to_string()),
            };
            if header.code != self.code {
                return other_code(header.code, self.code);
            }
            if header.code == LOGIN {
                match login_status(&input[at..at + len]) {
                    Ok(Status::Done) => {}
                    Ok(status) => {
                        answers.refused += 1;
                        answers.status = status.number();
                    }
                    Err(text) => return Heard::Wrong(text),
                }
            }
            answers.count += 1;
            at += len;
        }
        Heard::Answers { len: at, answers }
    }
}

fn frame(code: u16, body: &[u8]) -> Result<Vec<u8>, SpecError> {
    let mut wire = Vec::new();
    let most = tidegate_frame::MAX_BODY as u64;
    encode(code, body, &mut wire).map_err(|error| {
        let found = error.0.to_string();
        SpecError::Bounds { what: "the size of a body", least: 0, most, found }
    })?;
    Ok(wire)
}

fn login_status(frame: &[u8]) -> Result<Status, String> {
    let reply = LoginReply::parse(&frame[tidegate_frame::HEADER..]).map_err(|error| error.to_string())?;
    Ok(reply.status)
}

fn other_code(found: u16, expected: u16) -> Heard {
    Heard::Wrong(format!("a frame with code {found} came where one with {expected} was due"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(heard: &Heard) -> (usize, u32, u32) {
        let Heard::Answers { len, answers } = heard else { panic!("{heard:?}") };
        (*len, answers.count, answers.refused)
    }

    fn reply(status: Status) -> Vec<u8> {
        frame(LOGIN, &LoginReply { username: b"u", status }.encode().unwrap()).unwrap()
    }

    #[test]
    fn whole_frames_are_counted_and_a_part_waits() {
        let msg = Msg::new(7, 100, None).unwrap();
        let mut wire = msg.ask(&mut ()).concat().repeat(3);
        assert_eq!(count(&msg.hear(&mut (), &wire)), (324, 3, 0));
        wire.truncate(300);
        assert_eq!(count(&msg.hear(&mut (), &wire)), (216, 2, 0));
        assert_eq!(msg.hear(&mut (), &wire[216..]), Heard::Need(108));
    }

    #[test]
    fn damage_and_other_codes_are_wrong() {
        let msg = Msg::new(7, 4, None).unwrap();
        let mut wire = msg.ask(&mut ()).concat();
        wire[11] ^= 1;
        assert!(matches!(msg.hear(&mut (), &wire), Heard::Wrong(text) if text.contains("checksum")));
        let other = frame(8, b"").unwrap();
        assert!(matches!(msg.hear(&mut (), &other), Heard::Wrong(text) if text.contains("code 8")));
    }

    #[test]
    fn a_login_comes_first_unless_logins_are_what_is_asked() {
        let login = Login { user: "u".to_owned(), password: b"p".to_vec() };
        let ping = Msg::new(0, 0, Some(&login)).unwrap();
        assert_eq!(ping.greeting().map(<[u8]>::len), Some(104));
        assert_eq!(count(&ping.hear_greeting(&reply(Status::Done))), (104, 1, 0));
        let refused = ping.hear_greeting(&reply(Status::from(2)));
        assert!(matches!(refused, Heard::Wrong(text) if text.starts_with("the login was refused")));
        let logins = Msg::new(LOGIN, 0, Some(&login)).unwrap();
        assert_eq!(logins.greeting(), None);
        assert_eq!(logins.ask(&mut ()).concat(), ping.greeting().unwrap());
        let both = [reply(Status::Done), reply(Status::from(2))].concat();
        assert_eq!(count(&logins.hear(&mut (), &both)), (208, 2, 1));
    }
}
