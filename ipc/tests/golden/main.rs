//! The bytes of every release: what an old shim, record or journal says must be understood for ever.
//!
//! Each file has one line for each variant of every message and record: its label, and its frame in hexadecimal. A new
//! variant does not compile here before `named.rs` names it, and fails before `samples.rs` has one and its bytes are kept:
//! `MYSUP_GOLDEN=add cargo test -p mysup-ipc` adds lines that are missing, and never changes one. The release that appends
//! a field begins a new file at the head of `RELEASES`; the old ones stay.

mod commits;
mod named;
mod registry;
mod samples;
mod storage;

use std::{collections::BTreeMap, fmt::Write as _};

use mysup_ipc::{
    codec::Message,
    frame::{self, Decoder, FrameError, HEADER},
};
use named::Named;
use samples::Sample;

/// The newest first: its bytes are also what is sent today.
const RELEASES: [(&str, &str); 2] = [("0.2", include_str!("0.2.txt")), ("0.1", include_str!("0.1.txt"))];

fn frame_of(bytes: &[u8]) -> frame::Frame {
    let mut decoder = Decoder::new();
    decoder.push(bytes);
    let frame = decoder.next_frame().expect("a frame").expect("a whole one");
    assert!(!decoder.has_partial());
    frame
}

fn from_hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digit).collect()
}

fn kept(text: &'static str) -> BTreeMap<&'static str, Vec<u8>> {
    let line = |line: &'static str| line.split_once(' ').map(|(label, hex)| (label, from_hex(hex)));
    let lines: BTreeMap<_, _> = text.lines().filter_map(line).collect();
    assert_eq!(lines.len(), text.lines().count(), "a label came twice, or a line has none");
    lines
}

#[test]
fn every_variant_has_a_sample() {
    for (type_name, all, found) in samples::names() {
        let missing: Vec<_> = all.iter().filter(|name| !found.contains(name)).collect();
        assert!(missing.is_empty(), "{type_name} without a sample in samples.rs: {missing:?}");
    }
}

#[test]
fn todays_bytes_are_the_newest_release() {
    let (version, text) = RELEASES[0];
    let kept = kept(text);
    let mut missing = String::new();
    for Sample { label, bytes, .. } in samples::all() {
        match kept.get(label.as_str()) {
            Some(found) => assert_eq!(*found, bytes, "the bytes of {label} have changed since {version}"),
            None => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                writeln!(missing, "{label} {hex}").expect("a text takes all");
            }
        }
    }
    if !missing.is_empty() && std::env::var("MYSUP_GOLDEN").as_deref() == Ok("add") {
        let path = format!("{}/tests/golden/{version}.txt", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(&path, format!("{text}{missing}")).expect("the checkout is writable");
        panic!("lines were added to {path}: look at them and run this again");
    }
    assert!(missing.is_empty(), "not in {version}.txt:\n{missing}");
}

#[test]
fn every_release_is_understood() {
    let samples = samples::all();
    for (version, text) in RELEASES {
        for (label, bytes) in kept(text) {
            let sample = samples.iter().find(|sample| sample.label == label);
            let sample = sample.unwrap_or_else(|| panic!("{label} of {version} has no sample any more"));
            let understood = (sample.understands)(&frame_of(&bytes), version == RELEASES[0].0);
            understood.unwrap_or_else(|error| panic!("{label} of {version}: {error}"));
        }
    }
}

#[test]
fn what_is_appended_to_a_message_changes_nothing() {
    for Sample { label, bytes, understands } in samples::all() {
        let mut frame = frame_of(&bytes);
        frame.payload.extend([0x5a; 21]);
        understands(&frame, true).unwrap_or_else(|error| panic!("{label}: {error}"));
    }
}

#[test]
fn another_version_of_the_frame_is_refused_by_its_number() {
    for Sample { mut bytes, .. } in samples::all() {
        bytes[4] = 2;
        let mut decoder = Decoder::new();
        decoder.push(&bytes[..HEADER]);
        assert_eq!(decoder.next_frame(), Err(FrameError::Version(2)));
    }
}

#[test]
fn noise_behind_a_good_checksum_is_no_panic() {
    // A step of a linear congruence: the same noise each time.
    let mut state = 1_u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    for Sample { label, bytes, understands } in samples::all() {
        for _ in 0..50 {
            let mut frame = frame_of(&bytes);
            for _ in 0..=next() % 4 {
                let at = usize::from(next()) % frame.payload.len().max(1);
                if let Some(byte) = frame.payload.get_mut(at) {
                    *byte = next();
                }
            }
            frame.payload.truncate(frame.payload.len() - usize::from(next()) % frame.payload.len().max(1));
            // An error, something unknown, or another value; all but a panic and a huge allocation.
            let _ = (label.len(), understands(&frame, false));
        }
    }
}

fn label<M: Named>(type_name: &str, value: &M, count: usize) -> String {
    format!("{type_name}.{}.{count}", value.name())
}

fn sample<M: Message + Named + PartialEq + std::fmt::Debug + 'static>(label: String, value: M) -> Sample {
    let bytes = value.to_frame().expect("short");
    let understands = move |frame: &frame::Frame, exactly: bool| match M::from_frame(frame) {
        Err(error) => Err(format!("{error:?}")),
        Ok(found) if exactly && found != value => Err(format!("{found:?} instead of {value:?}")),
        Ok(found) if M::UNKNOWN.is_some_and(|unknown| unknown == found) => Err("unknown".to_owned()),
        Ok(_) => Ok(()),
    };
    Sample { label, bytes, understands: Box::new(understands) }
}
