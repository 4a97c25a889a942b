//! zTOCs of SOCI.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imgfs_fuzz::ztoc(data));
