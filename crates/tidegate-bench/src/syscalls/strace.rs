//! `Strace`: `strace -c -f`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{ChildStderr, Command, Stdio};

use super::{CountError, CountingTool, SyscallCounts, ToolProcess};

const TOOL: CountingTool = CountingTool::Strace;

#[derive(Debug)]
pub(super) struct Strace {
    process: ToolProcess,
    output: BufReader<ChildStderr>,
}

impl Strace {
    pub(super) fn attach(pids: &str) -> Result<Self, CountError> {
        let mut command = Command::new("strace");
        command.args(["-c", "-f", "-p", pids]).env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| CountError::Run { tool: TOOL, source })?;
        let stderr = child.stderr.take();
        let process = ToolProcess(child);
        let mut output = BufReader::new(stderr.ok_or(CountError::Silent(TOOL))?);
        let mut line = String::new();
        output.read_line(&mut line).map_err(|source| CountError::Run { tool: TOOL, source })?;
        // "strace: Process 12 attached with 2 threads"
        if line.contains(" attached") {
            return Ok(Self { process, output });
        }
        Err(CountError::Attach { tool: TOOL, said: line.trim().to_owned() })
    }

    pub(super) fn finish(mut self) -> Result<SyscallCounts, CountError> {
        self.process.interrupt();
        let mut text = String::new();
        self.output.read_to_string(&mut text).map_err(|source| CountError::Run { tool: TOOL, source })?;
        parse(&text).ok_or(CountError::Silent(TOOL))
    }
}

/// Reads the table that `strace -c` prints.
fn parse(text: &str) -> Option<SyscallCounts> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("% time")).skip(2);
    let mut by_name = BTreeMap::new();
    loop {
        let line = lines.next()?;
        if line.starts_with("------") {
            return Some(SyscallCounts { tool: TOOL, total: by_name.values().sum(), by_name });
        }
        // % time, seconds, usecs/call, calls, errors (may be empty), syscall
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (calls, name) = (fields.get(3)?, fields.get(4..)?.last()?);
        by_name.insert((*name).to_owned(), calls.parse().ok()?);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "strace: Process 7 attached\nstrace: Process 7 detached\n\
        % time     seconds  usecs/call     calls    errors syscall\n\
        ------ ----------- ----------- --------- --------- ----------------\n \
         60.00    0.000060           0       600           sendto\n \
         30.00    0.000030           0       610        10 recvfrom\n \
         10.00    0.000010           0        12           epoll_wait\n\
        ------ ----------- ----------- --------- --------- ----------------\n\
        100.00    0.000100           0      1222        10 total\n";

    #[test]
    fn the_table_is_read() {
        let counts = parse(TABLE).unwrap();
        assert_eq!(counts.by_name.len(), 3);
        assert_eq!(counts.by_name["recvfrom"], 610);
        assert_eq!((counts.total, counts.poller()), (1222, 12));
    }

    #[test]
    fn a_table_that_is_cut_off_is_none() {
        for end in 0..=TABLE.rfind("\n------").unwrap() {
            assert_eq!(parse(&TABLE[..end]), None, "{end}");
        }
        assert_eq!(parse("strace: command not found"), None);
    }
}
