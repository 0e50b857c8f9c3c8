//! What the children are made of: a plan for each generation, and one for those that live over generations.
//!
//! The one invariant: a plan holds every descriptor that its children inherit, so that a child can be started again, and
//! what waits in a socket or a channel outlives whoever reads it. Nothing is started here.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_sys::process::{Credentials, Exe};

use crate::role::Role;
use crate::supervisor::{Crew, Limits};

/// A child that the master keeps.
///
/// ```
/// use std::net::TcpListener;
/// use std::os::fd::OwnedFd;
/// use std::sync::Arc;
/// use tidegate_process::{ChildSpec, Plan, Role};
///
/// # fn main() -> std::io::Result<()> {
/// // Two workers with a socket each; the neighbour of one that is absent accepts from its socket, too.
/// let mut plan = Plan::default();
/// for index in 0..2 {
///     let socket: OwnedFd = TcpListener::bind("127.0.0.1:0")?.into();
///     plan.children.push(ChildSpec::new(Role::Worker(index)).covered_fd("listen", Arc::new(socket)));
/// }
/// assert_eq!(plan.children[1].covered, ["listen"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ChildSpec {
    /// What it is for.
    pub role: Role,
    /// Its name in the list of processes.
    pub title: String,
    /// What it inherits, by name: letters, digits, `:`, `.`, `-` and `_`; the name `control` is the master's own.
    pub fds: Vec<(String, Arc<OwnedFd>)>,
    /// The names of those that a neighbour accepts from while this child is absent; at most
    /// [`MAX_COVERED`](Self::MAX_COVERED), in the order of their weight.
    pub covered: Vec<String>,
    /// What is added to its environment.
    pub env: Vec<(OsString, OsString)>,
}

impl ChildSpec {
    /// How many descriptors a neighbour takes over.
    pub const MAX_COVERED: usize = 4096;

    /// A child with the title of its role, that inherits nothing.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self { role, title: role.title(), fds: Vec::new(), covered: Vec::new(), env: Vec::new() }
    }

    /// Adds a descriptor that the child inherits.
    #[must_use]
    pub fn fd(mut self, name: impl Into<String>, fd: Arc<OwnedFd>) -> Self {
        self.fds.push((name.into(), fd));
        self
    }

    /// Adds a descriptor that the child inherits, and that a neighbour accepts from while it is absent.
    #[must_use]
    pub fn covered_fd(mut self, name: impl Into<String>, fd: Arc<OwnedFd>) -> Self {
        let name = name.into();
        self.covered.push(name.clone());
        self.fd(name, fd)
    }

    /// The descriptors that a neighbour is handed.
    pub(crate) fn covered_fds(&self) -> impl Iterator<Item = &(String, Arc<OwnedFd>)> {
        self.fds.iter().filter(|(name, _)| self.covered.contains(name))
    }
}

/// The workers of a generation, and its acceptor if it has one.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Workers, numbered from 0 without a gap, and perhaps an acceptor.
    pub children: Vec<ChildSpec>,
    /// The times that all children are granted once this generation serves.
    pub limits: Limits,
    /// Who the children become; none: whoever the master is.
    pub user: Option<Credentials>,
}

impl Plan {
    /// What the supervisor has to know of it.
    pub(crate) fn crew(&self) -> Crew {
        let workers = self.children.iter().filter(|child| matches!(child.role, Role::Worker(_))).count();
        let acceptor = self.children.iter().any(|child| child.role == Role::Acceptor);
        Crew { workers: u32::try_from(workers).unwrap_or(u32::MAX), acceptor }
    }

    /// Keeps no more than what workers receive from: what an acceptor has left for one that does not read it is for a
    /// neighbour.
    pub(crate) fn keep_channels(&mut self) {
        self.children.retain(|child| child.role != Role::Acceptor);
        for child in &mut self.children {
            child.fds.retain(|(name, _)| child.covered.contains(name));
        }
    }

    pub(crate) fn spec(&self, role: Role) -> Option<&ChildSpec> {
        self.children.iter().find(|child| child.role == role)
    }
}

/// The program that the master and its children run.
#[derive(Clone, Debug)]
pub struct Program {
    /// The very binary, whatever stands at its path by now.
    pub exe: Arc<Exe>,
    /// Where it was found, and where an upgrade looks for the next one.
    pub path: PathBuf,
    /// Its name in the list of processes, and its arguments.
    pub title: OsString,
    /// Behind the title.
    pub args: Vec<OsString>,
    /// The arguments of the children: those of the master, so that `main` runs as before, or none.
    pub child_args: Vec<OsString>,
}

impl Program {
    /// The program that runs, with the arguments it was given.
    ///
    /// # Errors
    ///
    /// The error of opening the binary or of finding out where it is.
    pub fn of_self() -> io::Result<Self> {
        let mut args = std::env::args_os();
        let title = args.next().unwrap_or_default();
        let args: Vec<OsString> = args.collect();
        let exe = Arc::new(Exe::open_self()?);
        let path = match as_started(&title) {
            Some(path) => path,
            None => Exe::path_of_self()?,
        };
        Ok(Self { exe, path, title, child_args: args.clone(), args })
    }

    /// What stands now where this program was found.
    ///
    /// # Errors
    ///
    /// The error of opening it.
    pub(crate) fn next(&self) -> io::Result<Self> {
        Ok(Self { exe: Arc::new(Exe::open(&self.path)?), ..self.clone() })
    }
}

/// The path by which the program was started, with the links in it: an upgrade follows them anew.
fn as_started(title: &OsStr) -> Option<PathBuf> {
    let named = std::env::var_os(ENV_PROGRAM).unwrap_or_else(|| title.to_owned());
    let is_path = Path::new(&named).components().count() > 1;
    let path = std::path::absolute(named).ok().filter(|_| is_path)?;
    let identity = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let own = identity(Path::new("/proc/self/exe"));
    (own.is_some() && identity(&path) == own).then_some(path)
}

/// Where the program was started from, when the title does not say it.
pub const ENV_PROGRAM: &str = "TIDEGATE_UPGRADE_PATH";

/// A descriptor that a child of the generation that serves accepts from in addition, now and when it is started again: a
/// socket that was opened for the next generation, and is not to be without anybody until then.
#[derive(Clone, Debug)]
pub struct Amendment {
    /// Which child.
    pub role: Role,
    /// As it would be called if it had been inherited.
    pub name: String,
    /// The socket.
    pub fd: Arc<OwnedFd>,
}
