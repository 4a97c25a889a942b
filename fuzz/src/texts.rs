//! What comes as text: documents, references, platforms, headers.

use crate::oci::{Document, ImageConfig, Platform, PlatformMatcher, Reference};
use crate::source_challenge::parse_challenges;

/// The first byte chooses what is announced.
pub fn manifest(data: &[u8]) {
    let (declared, body) = data.split_first().unwrap_or((&0, &[]));
    let declared = match declared % 4 {
        0 => None,
        1 => Some("application/vnd.oci.image.index.v1+json"),
        2 => Some("application/vnd.oci.image.manifest.v1+json"),
        _ => Some("text/plain"),
    };
    if let Ok(Document::Index(index)) = Document::parse(body, declared) {
        let host = Platform::host("linux", "x86_64", "");
        let _ = PlatformMatcher::new(&host).order(&index.manifests);
    }
    for layers in 0..3 {
        if let Ok(config) = ImageConfig::parse(body, layers) {
            assert_eq!(config.rootfs.diff_ids.len(), layers);
        }
    }
}

/// What is printed is read back as the same.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(reference) = text.parse::<Reference>() else {
        return;
    };
    let printed = reference.to_string();
    let again = printed.parse::<Reference>();
    assert_eq!(
        again.as_ref(),
        Ok(&reference),
        "{text:?} is printed as {printed:?}"
    );
    let _ = reference.short();
}

/// Likewise; and each fits itself.
pub fn platform(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let host = Platform::host("linux", "aarch64", text);
    let Ok(platform) = Platform::parse(text, &host) else {
        return;
    };
    let printed = platform.to_string();
    let again = Platform::parse(&printed, &host).expect("what is printed can be read");
    assert_eq!(again, platform, "{text:?} is printed as {printed:?}");
    let normalised = platform.normalised();
    assert_eq!(normalised.normalised(), normalised);
    assert!(
        PlatformMatcher::new(&platform).fit(&platform).is_some(),
        "{platform} fits itself"
    );
}

/// Whatever the header, names are not empty.
pub fn challenge(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for challenge in parse_challenges(text) {
        assert!(!challenge.scheme.is_empty());
        assert!(challenge.parameters.keys().all(|name| !name.is_empty()));
    }
}
