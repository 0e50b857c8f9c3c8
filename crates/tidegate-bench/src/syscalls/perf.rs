//! `Perf`: `perf stat` of the kernel's tracepoints, switched on through a pipe, so that it is known when counting begins
//! (perf-stat(1), `--control`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{ChildStderr, Command, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};

use super::{CountError, CountingTool, SyscallCounts, ToolProcess};

const TOOL: CountingTool = CountingTool::Perf;
const ALL_CALLS: &str = "raw_syscalls:sys_enter";
const ONE_CALL: &str = "syscalls:sys_enter_";
/// The calls that are counted by name as well. Each costs a descriptor for each thread.
const NAMED: [&str; 14] = [
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "poll",
    "ppoll",
    "io_uring_enter",
    "epoll_ctl",
    "futex",
    "recvfrom",
    "read",
    "sendto",
    "sendmsg",
    "write",
    "writev",
];

#[derive(Debug)]
pub(super) struct Perf {
    process: ToolProcess,
    output: BufReader<ChildStderr>,
}

impl Perf {
    pub(super) fn attach(pids: &str) -> Result<Self, CountError> {
        let run = |source: io::Error| CountError::Run { tool: TOOL, source };
        let (orders, give_orders) = pipe().map_err(run)?;
        let (hear_answers, answers) = pipe().map_err(run)?;
        // These two ends, and no others, are perf's.
        for end in [&orders, &answers] {
            fcntl_setfd(end, FdFlags::empty()).map_err(|errno| run(errno.into()))?;
        }
        let control = format!("fd:{},{}", orders.as_raw_fd(), answers.as_raw_fd());
        let events: String = NAMED.iter().map(|name| format!(",{ONE_CALL}{name}")).collect();
        let mut command = Command::new("perf");
        command.args([
            "stat",
            "-D",
            "-1",
            "--control",
            &control,
            "-x",
            ",",
            "-e",
            &format!("{ALL_CALLS}{events}"),
        ]);
        command.args(["-p", pids]).env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(run)?;
        let stderr = child.stderr.take();
        let process = ToolProcess(child);
        // Closed here, so that a perf that ends is the end of the pipe.
        drop((orders, answers));
        let mut output = BufReader::new(stderr.ok_or(CountError::Silent(TOOL))?);
        // When perf has ended already, the missing answer tells.
        let _ = File::from(give_orders).write_all(b"enable\n");
        let mut answer = String::new();
        BufReader::new(File::from(hear_answers)).read_line(&mut answer).map_err(run)?;
        if answer.starts_with("ack") {
            return Ok(Self { process, output });
        }
        let mut said = String::new();
        output.read_to_string(&mut said).map_err(run)?;
        let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned();
        Err(CountError::Attach { tool: TOOL, said })
    }

    pub(super) fn finish(mut self) -> Result<SyscallCounts, CountError> {
        self.process.interrupt();
        let mut text = String::new();
        self.output.read_to_string(&mut text).map_err(|source| CountError::Run { tool: TOOL, source })?;
        parse(&text).ok_or(CountError::Silent(TOOL))
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

/// Reads lines of `COUNT,UNIT,EVENT,…`; everything else, as what could not be counted, is passed over.
fn parse(text: &str) -> Option<SyscallCounts> {
    let mut total = None;
    let mut by_name = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(',');
        let Some(count) = fields.next().and_then(|count| count.parse::<u64>().ok()) else { continue };
        let Some(event) = fields.nth(1) else { continue };
        if event == ALL_CALLS {
            total = Some(count);
        } else if let Some(name) = event.strip_prefix(ONE_CALL).filter(|_| count > 0) {
            by_name.insert(name.to_owned(), count);
        }
    }
    Some(SyscallCounts { tool: TOOL, total: total?, by_name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_read() {
        let text = "Events disabled\nEvents enabled\n103239,,raw_syscalls:sys_enter,237109413,100.00,,\n\
            0,,syscalls:sys_enter_poll,236949268,100.00,,\n<not counted>,,syscalls:sys_enter_read,0,0.00,,\n\
            33167,,syscalls:sys_enter_futex,236356545,100.00,,\n12,,syscalls:sys_enter_epoll_pwait,1,100.00,,\n\n";
        let counts = parse(text).unwrap();
        assert_eq!((counts.total, counts.poller()), (103_239, 12));
        assert_eq!(counts.by_name.keys().collect::<Vec<_>>(), ["epoll_pwait", "futex"]);
    }

    #[test]
    fn without_the_total_there_is_nothing() {
        assert_eq!(parse("<not supported>,,raw_syscalls:sys_enter,0\n5,,syscalls:sys_enter_read,1\n"), None);
        assert_eq!(parse(""), None);
        assert_eq!(parse(",,,\n7\n7,\n"), None);
    }
}
