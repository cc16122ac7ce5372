//! `mysup_fuzz::manifest` as libFuzzer's target.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mysup_fuzz::manifest(bytes));
