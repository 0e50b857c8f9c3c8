//! Any bytes as a capture file: it must not panic, and what it tells must add up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_capture::{Options, analyse_from};

fuzz_target!(|input: &[u8]| {
    if let Ok(report) = analyse_from(input, &Options::default(), &mut |_, _| {}) {
        let file = &report.file;
        let left_out = file.other_protocols + file.fragments + file.broken + file.unknown_links;
        assert_eq!(file.packets, file.segments + left_out);
        assert!(report.total.connections <= file.segments);
    }
});
