//! The same packets behind other headers and in other files, which tell the same.
//!
//! Tags and "cooked" headers are put in here, since no program of Debian does; raw IP and files of several interfaces are made
//! by editcap and mergecap.

use std::path::{Path, PathBuf};
use std::process::Command;

use tidegate_capture::{Options, Report, analyse};

use crate::support::output_of;
use crate::tshark::compare;

/// Writes these packets, captured on Ethernet, in every other way, and checks that each tells as much, to tshark as well.
pub(crate) fn check_links(capture: &Path, dir: &Path) {
    let told = told_without_format(capture);
    assert!(told.file.segments > 0);
    let tagged = |frame: &[u8]| [&frame[..12], &[0x81, 0, 0, 42], &frame[12..]].concat();
    let tagged_twice =
        |frame: &[u8]| [&frame[..12], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 42], &frame[12..]].concat();
    let cooked =
        |frame: &[u8]| [&[0, 0, 0, 1, 0, 6], &frame[6..12], &[0, 0], &frame[12..14], &frame[14..]].concat();
    let cooked_2 = |frame: &[u8]| {
        [&frame[12..14], &[0, 0, 0, 0, 0, 2, 0, 1, 0, 6], &frame[6..12], &[0, 0], &frame[14..]].concat()
    };
    type Wrap<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let wraps: [(&str, u32, Wrap<'_>); 4] =
        [("vlan", 1, &tagged), ("qinq", 1, &tagged_twice), ("sll", 113, &cooked), ("sll2", 276, &cooked_2)];
    let mut files: Vec<PathBuf> =
        wraps.into_iter().map(|(name, link, wrap)| wrapped(capture, dir, (name, link), wrap)).collect();
    let raw = dir.join("raw.pcap");
    run(Command::new("editcap").args(["-F", "nsecpcap", "-C", "14", "-T", "rawip"]).arg(capture).arg(&raw));
    files.push(raw.clone());
    files.push(of_two_interfaces(capture, &raw, dir));
    for file in files {
        let same = told_without_format(&file);
        assert_eq!(same.file, told.file, "{}", file.display());
        assert_eq!(same, told, "{}", file.display());
        compare(&file);
    }
}

/// IPv4 of one interface, and IPv6 of another one that has no Ethernet.
fn of_two_interfaces(ethernet: &Path, raw: &Path, dir: &Path) -> PathBuf {
    let merged = dir.join("merged.pcapng");
    let parts = [("ip", ethernet), ("ipv6", raw)].map(|(filter, from)| {
        let part = dir.join(format!("{filter}.pcapng"));
        run(Command::new("tshark").arg("-r").arg(from).args(["-Y", filter, "-w"]).arg(&part));
        part
    });
    run(Command::new("mergecap").args(["-I", "none", "-w"]).arg(&merged).args(parts));
    merged
}

/// A pcap file with the packets of another one, each wrapped anew.
fn wrapped(from: &Path, dir: &Path, (name, link): (&str, u32), wrap: &dyn Fn(&[u8]) -> Vec<u8>) -> PathBuf {
    let path = dir.join(format!("{name}.pcap"));
    let bytes = std::fs::read(from).unwrap();
    let (mut file, mut rest) = (bytes[..20].to_vec(), &bytes[24..]);
    file.extend(link.to_le_bytes());
    while let Some((head, behind)) = rest.split_at_checked(16) {
        let len = u32::from_le_bytes(head[8..12].try_into().unwrap());
        let (frame, behind) = behind.split_at(usize::try_from(len).unwrap());
        let frame = wrap(frame);
        let len = u32::try_from(frame.len()).unwrap().to_le_bytes();
        file.extend([&head[..8], &len, &len, &frame].concat());
        rest = behind;
    }
    std::fs::write(&path, file).unwrap();
    path
}

pub(crate) fn told_without_format(path: &Path) -> Report {
    let mut report = analyse(path, &Options::default()).unwrap();
    report.file.format = "";
    report
}

fn run(command: &mut Command) {
    let output = output_of(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
}
