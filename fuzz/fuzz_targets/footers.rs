//! The ends of blobs, annotations and compressed tables, before any digest has vouched for them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imgfs_fuzz::footers(data));
