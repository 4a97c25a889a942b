//! References: what is printed is read back as the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imgfs_fuzz::reference(data));
