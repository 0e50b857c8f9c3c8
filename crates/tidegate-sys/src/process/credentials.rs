//! The user that a child becomes before its program begins.
//!
//! The one invariant: the names are looked up here, in the parent, where that may allocate, lock and wait (a name service can
//! do all three); behind the fork stand bare calls with numbers only. This process itself never changes.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use rustix::io::Errno;
use rustix::process::{Gid, Uid, getgroups};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::spawn::Step;

/// A user with a group and all further groups.
///
/// A child that becomes it has no capabilities left, in none of the five sets (`capabilities(7)`), and `no_new_privs`, so it
/// gets none by executing anything either.
///
/// That needs a master that is root, or one with `CAP_SETUID`, `CAP_SETGID` and `CAP_SETPCAP`, and with `CAP_KILL` to send
/// such a child signals. A master that is this user already needs nothing: its children give up the same, but for the
/// bounding set, which it takes `CAP_SETPCAP` to shrink; with `no_new_privs` that set is of no use to anybody. Any other
/// master cannot start a child so, and is told which step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    uid: Uid,
    gid: Gid,
    /// The supplementary groups.
    groups: Vec<Gid>,
}

/// Why a user cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// There is no such user.
    #[error("there is no user {0:?}")]
    NoUser(String),
    /// There is no such group.
    #[error("there is no group {0:?}")]
    NoGroup(String),
    /// The number is nobody's, so the group is not known.
    #[error("no user has the number {0}, so its group must be given, as {0}:GROUP")]
    GroupMissing(u32),
    /// The name service failed.
    #[error("looking up {name:?}")]
    Lookup {
        /// The name.
        name: String,
        /// The error of the system.
        source: io::Error,
    },
}

impl Credentials {
    /// The user `name`, or a number, with its own group or that of `name:group`, where the group is a name or a number too.
    /// Asks the name service of the system (`getpwnam_r(3)`, `getgrouplist(3)`), so it may wait.
    ///
    /// ```
    /// use tidegate_sys::process::Credentials;
    ///
    /// let user = Credentials::of_user("0:7")?;
    /// assert_eq!((user.uid(), user.gid()), (0, 7));
    /// assert!(Credentials::of_user("no such user").is_err());
    /// # Ok::<(), tidegate_sys::process::CredentialsError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [`CredentialsError`].
    pub fn of_user(text: &str) -> Result<Self, CredentialsError> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let group = group.map(group_number).transpose()?;
        let Some(entry) = User::find(user)? else {
            return match (parse_id(user), group) {
                (Some(uid), Some(gid)) => Ok(Self::new(uid, gid, &[gid])),
                (Some(uid), None) => Err(CredentialsError::GroupMissing(uid)),
                (None, _) => Err(CredentialsError::NoUser(user.to_owned())),
            };
        };
        let gid = group.unwrap_or(entry.gid);
        Ok(Self::new(entry.uid, gid, &groups_of(&entry.name, gid)))
    }

    /// The user and the groups of these numbers, whoever they are.
    #[must_use]
    pub fn from_parts(uid: u32, gid: u32, groups: &[u32]) -> Self {
        Self::new(uid, gid, groups)
    }

    fn new(uid: u32, gid: u32, groups: &[u32]) -> Self {
        let groups = groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
        Self { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups }
    }

    /// The number of the user.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    /// The number of the group.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.gid.as_raw()
    }

    /// The numbers of all the groups that the user is in.
    pub fn groups(&self) -> impl Iterator<Item = u32> {
        self.groups.iter().map(|gid| gid.as_raw())
    }

    /// Whether this process is this user already, with these groups and no way back to another one.
    ///
    /// # Errors
    ///
    /// The error of `getgroups(2)`; none is known.
    pub fn is_current(&self) -> io::Result<bool> {
        let (mut uids, mut gids) = ([0; 3], [0; 3]);
        let [real, effective, saved] = &mut uids;
        // SAFETY: three places of our own to write to.
        unsafe { libc::getresuid(real, effective, saved) };
        let [real, effective, saved] = &mut gids;
        // SAFETY: three places of our own to write to.
        unsafe { libc::getresgid(real, effective, saved) };
        // Whether the group itself stands in the list of further ones makes no difference.
        let further = |groups: &[Gid]| {
            let mut groups: Vec<u32> = groups.iter().map(|gid| gid.as_raw()).collect();
            groups.retain(|&gid| gid != self.gid());
            groups.sort_unstable();
            groups.dedup();
            groups
        };
        let is_same = uids == [self.uid(); 3] && gids == [self.gid(); 3];
        Ok(is_same && further(&getgroups()?) == further(&self.groups))
    }

    /// What a child of this process has to do.
    pub(super) fn change(&self) -> io::Result<Change> {
        let ids = if self.is_current()? { None } else { Some(self.clone()) };
        let drops_bounding = capabilities(None)?.effective.contains(CapabilitySet::SETPCAP);
        Ok(Change { ids, drops_bounding })
    }
}

/// The steps of a child on its way to be a user.
#[derive(Debug)]
pub(super) struct Change {
    /// None when it is that user already.
    ids: Option<Credentials>,
    drops_bounding: bool,
}

impl Change {
    /// Makes the calling thread that user. Async-signal-safe: bare calls of the system (that of a thread, and not those of
    /// the C library, which make all threads follow), in the order in which none takes away what the next one needs.
    pub(super) fn make(&self) -> Result<(), (Step, Errno)> {
        let failed = |step| move |errno| (step, errno);
        if self.drops_bounding {
            drop_bounding_set().map_err(failed(Step::Bounding))?;
        }
        clear_ambient_capability_set().map_err(failed(Step::Ambient))?;
        if let Some(Credentials { uid, gid, groups }) = &self.ids {
            set_thread_groups(groups).map_err(failed(Step::Groups))?;
            set_thread_res_gid(*gid, *gid, *gid).map_err(failed(Step::GroupId))?;
            set_thread_res_uid(*uid, *uid, *uid).map_err(failed(Step::UserId))?;
        }
        let none = CapabilitySet::empty();
        let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_capabilities(None, none).map_err(failed(Step::Capabilities))?;
        set_no_new_privs(true).map_err(failed(Step::NoNewPrivs))
    }
}

/// Takes every capability that the kernel knows out of the bounding set.
fn drop_bounding_set() -> Result<(), Errno> {
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            // The numbers have no gap, and this one is behind the last.
            Err(Errno::INVAL) if number > 0 => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// An entry of the list of users.
struct User {
    name: CString,
    uid: u32,
    gid: u32,
}

impl User {
    /// By name, or else by number.
    fn find(text: &str) -> Result<Option<Self>, CredentialsError> {
        let Ok(name) = CString::new(text) else { return Ok(None) };
        let by_name = Self::look_up(text, |entry, buf, found| {
            // SAFETY: the name is zero-terminated, and the three places are as large as is said.
            unsafe { libc::getpwnam_r(name.as_ptr(), entry, buf.as_mut_ptr().cast(), buf.len(), found) }
        })?;
        match (by_name, parse_id(text)) {
            (None, Some(uid)) => Self::look_up(text, |entry, buf, found| {
                // SAFETY: the three places are as large as is said.
                unsafe { libc::getpwuid_r(uid, entry, buf.as_mut_ptr().cast(), buf.len(), found) }
            }),
            (by_name, _) => Ok(by_name),
        }
    }

    fn look_up(
        text: &str,
        call: impl Fn(*mut libc::passwd, &mut [u8], *mut *mut libc::passwd) -> libc::c_int,
    ) -> Result<Option<Self>, CredentialsError> {
        look_up(text, |buf| {
            let (mut entry, mut found) = (MaybeUninit::uninit(), ptr::null_mut());
            let error = call(entry.as_mut_ptr(), buf, &raw mut found);
            if error != 0 || found.is_null() {
                return (error, None);
            }
            // SAFETY: no error and a result: the entry is filled in.
            let entry = unsafe { entry.assume_init() };
            // SAFETY: the name of an entry is a zero-terminated string in the buffer, which is still there.
            let name = unsafe { CStr::from_ptr(entry.pw_name) };
            (0, Some(Self { name: name.to_owned(), uid: entry.pw_uid, gid: entry.pw_gid }))
        })
    }
}

/// The number of a group by its name, or by itself.
fn group_number(text: &str) -> Result<u32, CredentialsError> {
    let no_group = || CredentialsError::NoGroup(text.to_owned());
    let name = CString::new(text).map_err(|_| no_group())?;
    let found = look_up(text, |buf| {
        let (mut entry, mut found) = (MaybeUninit::uninit(), ptr::null_mut());
        let (place, bytes) = (buf.as_mut_ptr().cast(), buf.len());
        // SAFETY: the name is zero-terminated, and the three places are as large as is said.
        let error =
            unsafe { libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), place, bytes, &raw mut found) };
        if error != 0 || found.is_null() {
            return (error, None);
        }
        // SAFETY: no error and a result: the entry is filled in.
        (0, Some(unsafe { entry.assume_init() }.gr_gid))
    })?;
    found.or_else(|| parse_id(text)).ok_or_else(no_group)
}

/// Asks the name service with as large a buffer as it wants. `ask` returns the error and what was found.
fn look_up<T>(
    name: &str,
    ask: impl Fn(&mut [u8]) -> (libc::c_int, Option<T>),
) -> Result<Option<T>, CredentialsError> {
    let mut buf = vec![0; FIRST_BUF_BYTES];
    loop {
        match ask(&mut buf) {
            (libc::ERANGE, _) if buf.len() < MAX_BUF_BYTES => buf.resize(buf.len() * 2, 0),
            (libc::EINTR, _) => {}
            // What one that is not there is answered with (getpwnam_r(3) lists them).
            (0 | libc::ENOENT | libc::ESRCH, found) => return Ok(found),
            (error, _) => {
                let source = io::Error::from_raw_os_error(error);
                return Err(CredentialsError::Lookup { name: name.to_owned(), source });
            }
        }
    }
}

/// All groups of a user, the given one among them.
fn groups_of(name: &CStr, gid: u32) -> Vec<u32> {
    let mut groups = vec![gid; 64];
    loop {
        let mut count = libc::c_int::try_from(groups.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the name is zero-terminated, and there is room for as many groups as is said.
        let result = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        if result >= 0 || groups.len() >= MAX_GROUPS {
            groups.truncate(count);
            return groups;
        }
        // Not every C library says how many there are.
        groups.resize(count.max(groups.len() * 2).min(MAX_GROUPS), gid);
    }
}

/// A number of a user or group; the highest one means "unchanged" to the kernel, and is none.
fn parse_id(text: &str) -> Option<u32> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
        .filter(|&id| id != u32::MAX)
}

const FIRST_BUF_BYTES: usize = 1024;
/// More than the entry of any user or group that a name service is known to give.
const MAX_BUF_BYTES: usize = 16 << 20;
/// `NGROUPS_MAX`, see getgroups(2).
const MAX_GROUPS: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_number() {
        let root = Credentials::of_user("root").unwrap();
        assert_eq!((root.uid(), root.gid()), (0, 0));
        assert!(root.groups().any(|gid| gid == 0));
        assert_eq!(Credentials::of_user("0").unwrap(), root);
        let other = Credentials::of_user("root:1234567").unwrap();
        assert_eq!((other.uid(), other.gid()), (0, 1_234_567));
        let nobody_s = Credentials::of_user("1234567:0").unwrap();
        assert_eq!((nobody_s.uid(), nobody_s.gid()), (1_234_567, 0));
        assert_eq!(nobody_s.groups().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn the_unknown_is_an_error_that_says_what() {
        let error = |text: &str| Credentials::of_user(text).unwrap_err().to_string();
        assert_eq!(error("no-such-user"), "there is no user \"no-such-user\"");
        assert_eq!(error("root:no-such-group"), "there is no group \"no-such-group\"");
        assert_eq!(
            error("1234567"),
            "no user has the number 1234567, so its group must be given, as 1234567:GROUP"
        );
        for text in ["", ":", "root:", "a\0b", "root:a\0b", "-1", "+0", "4294967295:0", "0:4294967295"] {
            assert!(Credentials::of_user(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn this_process_is_one_user_and_not_another() {
        let own = Credentials::of_user(&rustix::process::getuid().as_raw().to_string());
        let own = Credentials { groups: getgroups().unwrap(), ..own.unwrap() };
        let gid = rustix::process::getgid();
        assert!(Credentials { gid, ..own.clone() }.is_current().unwrap());
        let other = Credentials { uid: Uid::from_raw(own.uid() + 1), gid, ..own };
        assert!(!other.is_current().unwrap());
    }
}
