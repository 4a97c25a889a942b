//! `WWW-Authenticate` headers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imgfs_fuzz::challenge(data));
