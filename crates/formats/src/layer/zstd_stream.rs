//! zstd with its memory bounded.

/// Largest zstd window accepted, as a power of two: 128 MiB, zstd's own limit without `--long=31`.
pub(super) const ZSTD_WINDOW_LOG: u32 = 27;

/// A zstd decoder with the window limited.
pub(super) fn zstd_decoder() -> std::io::Result<zstd::stream::raw::Decoder<'static>> {
    let mut decoder = zstd::stream::raw::Decoder::new()?;
    decoder.set_parameter(zstd::stream::raw::DParameter::WindowLogMax(ZSTD_WINDOW_LOG))?;
    Ok(decoder)
}
