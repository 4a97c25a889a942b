//! Index files whose checksums are right.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imgfs_fuzz::index(data));
