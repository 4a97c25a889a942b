//! Blobs: plain, gzip, zstd; each span must decode to what the forward pass saw.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imgfs_fuzz::layer(data));
