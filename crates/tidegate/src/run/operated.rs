//! What a server with a data folder has besides: a lock on it, and the log socket.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, lchown};
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate_process::PidFile;
use tidegate_sys::process::Credentials;

use super::master::listen_log;
use crate::config::Config;
use crate::{Error, ServerBuilder};

/// A data folder that is this server's alone.
pub(crate) struct Locked {
    /// Held for as long as the server runs.
    pub(crate) pid_file: PidFile,
    /// How long a taken address is tried again: the children of a master that was killed hear of it within moments, and
    /// let go of their listening sockets.
    pub(crate) patience: Duration,
}

/// What the children of a killed master are given to let go of their sockets.
const AFTER_A_KILL: Duration = Duration::from_secs(2);

/// Makes the data folder and locks the pid file: one server for each folder.
pub(crate) fn lock_data_dir(server: &ServerBuilder) -> Result<Locked, Error> {
    let config = &server.config;
    make_folder("data folder", &config.data_dir)?;
    for path in [config.pid_file(), config.control_socket(), config.log_socket()] {
        if let Some(folder) = path.parent() {
            make_folder("folder of", folder)?;
        }
    }
    let path = config.pid_file();
    // An orderly end removes the file, so one that nobody has locked was left by a master that was killed.
    let was_left = path.exists();
    let pid_file = PidFile::lock(&path)?;
    if was_left {
        // Or this process would log to the log server of the killed master, and keep that from its end.
        let path = config.log_socket();
        remove_left_socket(&path).map_err(|source| Error::File { what: "removing", path, source })?;
    }
    if let Some(user) = &server.credentials {
        make_folder("log folder", &config.log_dir())?;
        hand_to_user(&config.data_dir, user)?;
        hand_to_user(&config.log_dir(), user)?;
    }
    Ok(Locked { pid_file, patience: if was_left { AFTER_A_KILL } else { Duration::ZERO } })
}

/// Makes a folder the user's with whose rights the children work, and the files and folders in it, two levels deep: what is
/// kept there, and the files of the log. No link is followed, and what is neither a file nor a folder is left alone.
fn hand_to_user(folder: &Path, user: &Credentials) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { what: "making the children's user the owner of", path, source }
    };
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((path, depth)) = folders.pop() {
        lchown(&path, Some(user.uid()), Some(user.gid())).map_err(failed(&path))?;
        for entry in std::fs::read_dir(&path).map_err(failed(&path))? {
            let entry = entry.map_err(failed(&path))?;
            let (kind, inner) = (entry.file_type().map_err(failed(&entry.path()))?, entry.path());
            if kind.is_dir() && depth < 2 {
                folders.push((inner, depth + 1));
            } else if kind.is_file() {
                lchown(&inner, Some(user.uid()), Some(user.gid())).map_err(failed(&inner))?;
            }
        }
    }
    Ok(())
}

/// Removes the file of a socket, and nothing else.
fn remove_left_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is not a socket stands there"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn make_folder(what: &'static str, path: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(0o750).create(path);
    made.map_err(|source| Error::File { what, path: path.to_owned(), source })
}

/// Listens at the log socket.
pub(crate) fn bind_log_socket(server: &ServerBuilder) -> Result<OwnedFd, Error> {
    let path = server.config.log_socket();
    // The pid file is locked, so what listens there is the log server of a master that was killed, about to end: its
    // socket file makes room for ours.
    let taken = match listen_log(&path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_left_socket(&path).and_then(|()| listen_log(&path))
        }
        other => other,
    };
    let failed = |what, source| Error::File { what, path: path.clone(), source };
    let socket = taken.map_err(|source| failed("listening at", source))?;
    if let Some(user) = &server.credentials {
        lchown(&path, Some(user.uid()), Some(user.gid()))
            .map_err(|source| failed("making the children's user the owner of", source))?;
    }
    Ok(socket)
}

pub(crate) fn remove_log_socket(config: &Config) {
    let path = config.log_socket();
    if let Err(error) = std::fs::remove_file(&path) {
        tracing::warn!(path = %path.display(), %error, "socket file not removed");
    }
}

/// Raises the limit of open files, for this process and all it starts, as the configuration says.
pub(crate) fn raise_open_files(config: &Config) -> Result<(), Error> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = match config.process.max_open_files {
        0 => limit.maximum,
        n => Some(n),
    };
    let maximum = match (limit.maximum, wanted) {
        (Some(hard), Some(n)) if n > hard => {
            return Err(Error::Service(
                format!(
                    "process.max_open_files = {n} is above the hard limit of {hard}; raise it with ulimit -Hn"
                )
                .into(),
            ));
        }
        (hard, _) => hard,
    };
    if limit.current == wanted {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum })
        .map_err(|errno| Error::System { what: "raising the limit of open files", source: errno.into() })
}
