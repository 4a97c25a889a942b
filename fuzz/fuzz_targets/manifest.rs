//! Manifests, image indexes and configs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imgfs_fuzz::manifest(data));
