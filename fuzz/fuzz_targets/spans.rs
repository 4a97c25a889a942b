//! Blobs made by real compressors in odd ways; each span must decode to what went in.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imgfs_fuzz::spans(data));
