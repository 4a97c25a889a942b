//! Tars, in pieces of any size, and the tree made of them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imgfs_fuzz::tar(data));
