//! The calling thread: which processors it may use, how nice it is, how large its stack is.
//!
//! On Linux, affinity and niceness belong to a thread and are passed on to the threads that it starts (sched(7)). What is
//! read here is what the kernel has, which need not be what was asked for.

use std::io;

use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Processors that can be named: `CPU_SETSIZE` of sched_setaffinity(2).
pub const MAX_CPUS: u16 = 1024;

/// Lets the thread run on these processors only. Those that the process may not use (cpuset(7)) are left out silently, so
/// that whoever cares reads [`affinity`] afterwards.
///
/// # Errors
///
/// `InvalidInput` for a number of [`MAX_CPUS`] or more, and what sched_setaffinity(2) answered: `EINVAL` when none of them
/// is one that the process may use.
pub fn set_affinity(cpus: impl IntoIterator<Item = u16>) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        if cpu >= MAX_CPUS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("processor {cpu}")));
        }
        set.set(cpu.into());
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// The processors that the thread may run on, in rising order.
///
/// # Errors
///
/// What sched_getaffinity(2) answered: `EINVAL` on a machine with more than [`MAX_CPUS`] processors.
pub fn affinity() -> io::Result<Vec<u16>> {
    let set = sched_getaffinity(None)?;
    Ok((0..MAX_CPUS).filter(|cpu| set.is_set(usize::from(*cpu))).collect())
}

/// Sets the niceness of the thread, -20 (first) to 19 (last).
///
/// # Errors
///
/// What setpriority(2) answered: `EACCES` when it is lowered beyond what `RLIMIT_NICE` allows without `CAP_SYS_NICE`.
pub fn set_nice(nice: i32) -> io::Result<()> {
    // A process id of 0 stands for the calling thread, whatever POSIX says of processes (setpriority(2), "C library/kernel
    // differences").
    Ok(setpriority_process(None, nice)?)
}

/// The niceness of the thread.
///
/// # Errors
///
/// What getpriority(2) answered.
pub fn nice() -> io::Result<i32> {
    Ok(getpriority_process(None)?)
}

/// Bytes of the thread's stack, as the C library made it.
///
/// # Errors
///
/// What pthread_getattr_np(3) answered.
pub fn stack_size() -> io::Result<usize> {
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: pthread_self(3) has no preconditions.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: the thread runs, since it is the calling one, and the pointer is to memory for one `pthread_attr_t`.
    check(unsafe { libc::pthread_getattr_np(this, attributes.as_mut_ptr()) })?;
    // SAFETY: the call above succeeded, and so has initialised it.
    let mut attributes = unsafe { attributes.assume_init() };
    let mut bytes = 0;
    // SAFETY: both pointers are to initialised values of this function.
    let read = check(unsafe { libc::pthread_attr_getstacksize(&raw const attributes, &raw mut bytes) });
    // SAFETY: it was initialised, and is not used afterwards.
    let freed = check(unsafe { libc::pthread_attr_destroy(&raw mut attributes) });
    read.and(freed)?;
    Ok(bytes)
}

/// The functions of pthreads(7) return an error number in place of setting `errno`.
fn check(error: libc::c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs on a thread of its own, which has not yet been changed by anybody.
    fn on_a_thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(run).join().unwrap()
    }

    #[test]
    fn a_thread_keeps_to_its_processor_and_the_others_do_not() {
        let before = affinity().unwrap();
        let last = *before.last().unwrap();
        let bound = on_a_thread(move || {
            set_affinity([last]).unwrap();
            affinity().unwrap()
        });
        assert_eq!((bound, affinity().unwrap()), (vec![last], before));
    }

    #[test]
    fn processors_that_are_not_there_are_refused() {
        let none = on_a_thread(|| set_affinity([MAX_CPUS - 1]).unwrap_err());
        assert_eq!(none.raw_os_error(), Some(libc::EINVAL));
        let beyond = on_a_thread(|| set_affinity([MAX_CPUS]).unwrap_err());
        assert_eq!(beyond.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_thread_is_nicer_than_its_process() {
        let before = nice().unwrap();
        let changed = on_a_thread(|| {
            set_nice(19).unwrap();
            nice().unwrap()
        });
        assert_eq!((changed, nice().unwrap()), (19, before));
    }

    #[test]
    fn a_stack_has_at_least_the_size_that_was_asked_for() {
        let asked = 3 << 20;
        let thread = std::thread::Builder::new().stack_size(asked).spawn(|| stack_size().unwrap()).unwrap();
        let size = thread.join().unwrap();
        assert!((asked..2 * asked).contains(&size), "{size}");
    }
}
