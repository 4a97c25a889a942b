//! Tables of contents of eStargz and zstd:chunked, behind the digest that vouches for them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imgfs_fuzz::contents(data));
