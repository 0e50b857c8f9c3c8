//! Tickets: how a session goes on in another connection, whichever worker that comes to.
//!
//! A ticket is the state of a session, sealed with a key that all workers of a server have. The keys follow from one secret
//! and from time: every [`PERIOD_SECONDS`] of the machine's clock each worker derives the next secret from its own and forgets
//! the one before. So all have the same keys without a word between them, and who takes a secret cannot read what was sealed
//! more than two periods before.
//!
//! ```text
//!   secret 7 ──▶ secret 8 ──▶ secret 9          (one way: HKDF)
//!      └▶ keys      └▶ keys      └▶ keys         tickets are sealed with the last, and opened with the last two
//! ```
//!
//! Invariant: a secret is of the period before the present one or of an earlier one, so that the keys of both can be had.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use rustix::time::{ClockId, clock_gettime};
use rustls::server::ProducesTickets;

/// What the keys of tickets follow from: to be given to all who are to understand each other's tickets.
///
/// ```
/// use tidegate_tls::TicketSecret;
///
/// let secret = TicketSecret::generate()?;
/// let (period, bytes) = secret.to_parts();
/// let same = TicketSecret::from_parts(period, bytes);
/// # Ok::<(), tidegate_tls::TlsError>(())
/// ```
#[derive(Clone)]
pub struct TicketSecret {
    /// Counted since the machine was started.
    period: u64,
    bytes: [u8; 32],
}

/// How long tickets are sealed with the same key; they are understood for at most twice as long.
pub(crate) const PERIOD_SECONDS: u32 = 6 * 3600;

impl TicketSecret {
    /// A new secret, which nobody else has.
    ///
    /// # Errors
    ///
    /// [`TlsError::Random`](crate::TlsError::Random): the system has no random bytes.
    pub fn generate() -> Result<Self, crate::TlsError> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| crate::TlsError::Random)?;
        Ok(Self { period: present().saturating_sub(1), bytes })
    }

    /// The secret as another process may be given it: what is older is forgotten first. The numbers mean the same for all
    /// processes of the machine until it is started anew.
    #[must_use]
    pub fn to_parts(&self) -> (u64, [u8; 32]) {
        let mut now = self.clone();
        now.advance(present().saturating_sub(1));
        (now.period, now.bytes)
    }

    /// The secret that [`to_parts`](Self::to_parts) took apart.
    #[must_use]
    pub fn from_parts(period: u64, bytes: [u8; 32]) -> Self {
        Self { period, bytes }
    }

    /// Forgets what is older than `period`.
    pub(crate) fn advance(&mut self, period: u64) {
        // A process that slept for a long time catches up; each step costs a microsecond.
        let steps = period.saturating_sub(self.period).min(MAX_STEPS);
        for _ in 0..steps {
            self.bytes = derive(&self.bytes, b"tidegate next ticket secret");
        }
        self.period = self.period.max(period);
    }

    /// The key of this secret's period, for tickets of `context` alone.
    fn key(&self, context: &[u8]) -> LessSafeKey {
        let bytes = derive(&derive(&self.bytes, b"tidegate ticket key"), context);
        let key = UnboundKey::new(&AES_256_GCM, &bytes).expect("AES-256 has keys of 32 bytes");
        LessSafeKey::new(key)
    }
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketSecret(of period {})", self.period)
    }
}

/// Years of periods; a secret that is older is of no use to anybody.
const MAX_STEPS: u64 = 1 << 16;

/// HKDF of one step, RFC 5869.
fn derive(secret: &[u8; 32], info: &[u8]) -> [u8; 32] {
    let prk: Prk = Salt::new(HKDF_SHA256, b"tidegate").extract(secret);
    let mut bytes = [0; 32];
    prk.expand(&[info], Bytes32)
        .and_then(|okm| okm.fill(&mut bytes))
        .expect("HKDF gives 255 times as many bytes");
    bytes
}

#[derive(Clone, Copy)]
struct Bytes32;

impl KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

/// The period that the machine is in, by the clock that goes on while it sleeps and that nobody sets.
fn present() -> u64 {
    let since_boot = clock_gettime(ClockId::Boottime).tv_sec;
    u64::try_from(since_boot).unwrap_or(0) / u64::from(PERIOD_SECONDS)
}

/// Seals and opens the tickets of a listener.
pub(crate) struct Tickets {
    context: Vec<u8>,
    keys: Mutex<Keys>,
    random: SystemRandom,
}

struct Keys {
    /// Of the period before the present one.
    secret: TicketSecret,
    /// Of the present period; the key that tickets are sealed with.
    present: LessSafeKey,
    before: LessSafeKey,
}

impl Keys {
    fn of(mut secret: TicketSecret, present: u64, context: &[u8]) -> Self {
        secret.advance(present.saturating_sub(1));
        let mut next = secret.clone();
        next.advance(secret.period + 1);
        Self { before: secret.key(context), present: next.key(context), secret }
    }
}

impl Tickets {
    /// Tickets that are understood only where the context is the same.
    pub(crate) fn new(secret: &TicketSecret, context: &str) -> Self {
        let context = context.as_bytes().to_vec();
        let keys = Keys::of(secret.clone(), present(), &context);
        Self { context, keys: Mutex::new(keys), random: SystemRandom::new() }
    }

    /// The keys of the present period.
    fn keys(&self) -> MutexGuard<'_, Keys> {
        // A panic while the lock is held leaves whole keys: they are replaced at once.
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let present = present();
        if keys.secret.period + 1 < present {
            *keys = Keys::of(keys.secret.clone(), present, &self.context);
        }
        keys
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        PERIOD_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = &mut ticket[NONCE_LEN..];
        let tag = self.keys().present.seal_in_place_separate_tag(nonce, Aad::empty(), sealed).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.keys();
        let open = |key: &LessSafeKey| {
            let mut plain = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let len = key.open_in_place(nonce, Aad::empty(), &mut plain).ok()?.len();
            plain.truncate(len);
            Some(plain)
        };
        open(&keys.present).or_else(|| open(&keys.before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secret: &TicketSecret, period: u64) -> Keys {
        Keys::of(secret.clone(), period, b"web")
    }

    #[test]
    fn whoever_has_the_secret_understands_tickets_of_the_same_context() {
        let secret = TicketSecret::generate().unwrap();
        let (period, bytes) = secret.to_parts();
        let other = TicketSecret::from_parts(period, bytes);
        let ticket = Tickets::new(&secret, "web").encrypt(b"state").unwrap();
        assert_eq!(Tickets::new(&other, "web").decrypt(&ticket).as_deref(), Some(&b"state"[..]));
        assert_eq!(Tickets::new(&secret, "admin").decrypt(&ticket), None);
        assert_eq!(Tickets::new(&TicketSecret::generate().unwrap(), "web").decrypt(&ticket), None);
        for cut in 0..ticket.len() {
            assert_eq!(Tickets::new(&secret, "web").decrypt(&ticket[..cut]), None, "{cut}");
        }
        let mut changed = ticket;
        for at in 0..changed.len() {
            changed[at] ^= 1;
            assert_eq!(Tickets::new(&secret, "web").decrypt(&changed), None, "{at}");
            changed[at] ^= 1;
        }
    }

    #[test]
    fn keys_of_a_period_are_the_same_by_whatever_way_they_are_come_to() {
        let first = TicketSecret { period: 10, bytes: [7; 32] };
        let direct = at(&first, 15);
        let mut stepped = at(&first, 11);
        for period in 12..=15 {
            stepped = Keys::of(stepped.secret.clone(), period, b"web");
        }
        let seal = |keys: &Keys| {
            let mut text = *b"text";
            let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
            let tag = keys.present.seal_in_place_separate_tag(nonce, Aad::empty(), &mut text).unwrap();
            (text, tag.as_ref().to_vec())
        };
        assert_eq!(seal(&direct), seal(&stepped));
        assert_eq!(direct.secret.period, 14);
        // The present key of one period is the earlier key of the next.
        let next = at(&first, 16);
        let swapped = Keys { present: next.before, ..at(&first, 16) };
        assert_eq!(seal(&direct), seal(&swapped));
        assert_ne!(seal(&direct), seal(&next_present(&first)));
    }

    fn next_present(secret: &TicketSecret) -> Keys {
        at(secret, 16)
    }

    #[test]
    fn a_secret_never_goes_back() {
        let mut secret = TicketSecret { period: 5, bytes: [1; 32] };
        secret.advance(3);
        assert_eq!((secret.period, secret.bytes), (5, [1; 32]));
        secret.advance(6);
        assert_ne!(secret.bytes, [1; 32]);
    }
}
