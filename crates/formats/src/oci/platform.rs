//! Platforms, and the choice of an index's entry for one.
//!
//! Names are Go's (`linux`, `amd64`), normalised as containerd does; the order of preference when the very
//! platform is missing is containerd's too: an arm64 host takes arm images, amd64 takes 386. Looking at an
//! image needs no CPU that can run it, so any platform may be asked for.

use std::cmp::Reverse;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::manifest::null_is_default;
use super::{Descriptor, MediaType};

/// `BuildKit`'s mark on attestations stored beside images.
const ATTESTATION: &str = "vnd.docker.reference.type";
/// SOCI's mark on its indexes of version 2 in a list, beside the artifact type: skopeo 1.9 drops
/// that when it copies a list.
const SOCI_INDEX: &str = "com.amazon.soci.image-manifest-digest";

/// Windows builds whose hosts run older containers too, from here on (Windows Server 2022 and
/// 2025).
const WINDOWS_LTSC_BUILDS: [u32; 2] = [20348, 26100];

/// Where an image can run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system.
    #[serde(default, deserialize_with = "null_is_default")]
    pub os: String,
    /// CPU architecture.
    #[serde(default, deserialize_with = "null_is_default")]
    pub architecture: String,
    /// CPU variant, e.g. `v7`; empty for none or the default one.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub variant: String,
    /// Windows build.
    #[serde(
        rename = "os.version",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// Required operating system features.
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
}

/// Why no image could be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// Not of the form `os[/arch[/variant]]`.
    #[error("{0:?} is no platform: write os/arch or os/arch/variant, as in linux/arm64")]
    Malformed(String),
    /// One word that is neither.
    #[error("{0:?} is no operating system or CPU known here: write os/arch, as in linux/arm64")]
    Unknown(String),
    /// Nothing fits.
    #[error("the image has nothing for {wanted}: it offers {}; choose one with --platform", list(.offered))]
    NoMatch {
        /// What was asked for.
        wanted: Box<Platform>,
        /// What there is.
        offered: Vec<Platform>,
    },
    /// An index without images.
    #[error("the index lists no image (only attestations, artifacts or nothing at all)")]
    NoImage,
}

impl Platform {
    /// Reads `os[(os.version[+feature]..)][/arch[/variant]]`. A single word is an operating system
    /// if it is a known one, else a CPU; what is not said is taken from `host`.
    pub fn parse(text: &str, host: &Self) -> Result<Self, PlatformError> {
        let malformed = || PlatformError::Malformed(text.to_owned());
        let is_word = |word: &&str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        };
        let (os_part, rest) = match text.split_once('/') {
            Some((os, rest)) => (os, Some(rest)),
            None => (text, None),
        };
        let (os, os_version, os_features) = match os_part.split_once('(') {
            Some((os, options)) => {
                let options = options.strip_suffix(')').ok_or_else(malformed)?;
                let mut options = options.split('+');
                let version = options.next().unwrap_or_default();
                let features = options
                    .map(|feature| Some(feature).filter(is_word).map(str::to_owned))
                    .collect::<Option<Vec<_>>>()
                    .ok_or_else(malformed)?;
                (os, version.to_owned(), features)
            }
            None => (os_part, String::new(), Vec::new()),
        };
        let words: Vec<&str> = rest.into_iter().flat_map(|rest| rest.split('/')).collect();
        if !is_word(&os) || !words.iter().all(is_word) {
            return Err(malformed());
        }
        let mut platform = Self {
            os: os.to_owned(),
            os_version,
            os_features,
            ..Self::default()
        };
        match words.as_slice() {
            [] if is_known_os(&normalise_os(os)) => {
                platform.architecture.clone_from(&host.architecture);
                platform.variant.clone_from(&host.variant);
            }
            [] => {
                platform.architecture = std::mem::replace(&mut platform.os, host.os.clone());
                platform = platform.normalised();
                if !is_known_architecture(&platform.architecture) {
                    return Err(PlatformError::Unknown(text.to_owned()));
                }
            }
            [architecture] => platform.architecture.push_str(architecture),
            [architecture, variant] => {
                platform.architecture.push_str(architecture);
                platform.variant.push_str(variant);
            }
            _ => return Err(malformed()),
        }
        Ok(platform.normalised())
    }

    /// The platform of this machine from Rust's names for it (`std::env::consts`) and the text of
    /// `/proc/cpuinfo`, which tells 32-bit arm CPUs apart (empty if unknown: v7 then).
    pub fn host(os: &str, architecture: &str, cpuinfo: &str) -> Self {
        let little_endian = cfg!(target_endian = "little");
        let (architecture, variant) = match architecture {
            "x86" => ("386", ""),
            "powerpc64" if little_endian => ("ppc64le", ""),
            "powerpc64" => ("ppc64", ""),
            "mips64" if little_endian => ("mips64le", ""),
            "mips" if little_endian => ("mipsle", ""),
            "loongarch64" => ("loong64", ""),
            "arm" => ("arm", arm_variant(cpuinfo)),
            other => (other, ""),
        };
        Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            ..Self::default()
        }
        .normalised()
    }

    /// The same platform in the one spelling that is compared.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let architecture = self.architecture.to_ascii_lowercase();
        let variant = self.variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            (architecture, variant) => (architecture, variant),
        };
        Self {
            os: normalise_os(&self.os),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
        }
    }
}

impl Platform {
    /// Whether its operating system is one that Go knows.
    pub(super) fn has_known_os(&self) -> bool {
        is_known_os(&self.os)
    }

    /// The same of the architecture.
    pub(super) fn has_known_architecture(&self) -> bool {
        is_known_architecture(&self.architecture)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if !self.os_version.is_empty() || !self.os_features.is_empty() {
            write!(f, "({}", self.os_version)?;
            for feature in &self.os_features {
                write!(f, "+{feature}")?;
            }
            f.write_str(")")?;
        }
        write!(f, "/{}", self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// Chooses among an index's entries for one platform.
#[derive(Debug, Clone)]
pub struct PlatformMatcher {
    wanted: Platform,
    /// (architecture, variant), best first.
    preference: Vec<(String, String)>,
}

/// How well an image fits; smaller is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fit {
    position: usize,
    windows_build: Reverse<u32>,
    shared_features: Reverse<usize>,
    unknown_features: usize,
}

impl PlatformMatcher {
    /// A matcher for `wanted`.
    pub fn new(wanted: &Platform) -> Self {
        let wanted = wanted.normalised();
        let preference = preference(&wanted.architecture, &wanted.variant);
        Self { wanted, preference }
    }

    /// What is wanted, normalised.
    pub fn wanted(&self) -> &Platform {
        &self.wanted
    }

    /// How well `offered` fits, if at all.
    pub fn fit(&self, offered: &Platform) -> Option<Fit> {
        let offered = offered.normalised();
        if offered.os != self.wanted.os {
            return None;
        }
        let position = self.preference.iter().position(|(architecture, variant)| {
            *architecture == offered.architecture && *variant == offered.variant
        })?;
        let mut build = 0;
        if offered.os == "windows" && !self.wanted.os_version.is_empty() {
            if !windows_runs(&self.wanted.os_version, &offered.os_version) {
                return None;
            }
            build = windows_version(&offered.os_version).map_or(0, |(_, build)| build);
        }
        let features = || {
            offered
                .os_features
                .iter()
                .filter(|feature| *feature != "win32k")
        };
        let shared = features()
            .filter(|feature| self.wanted.os_features.contains(feature))
            .count();
        Some(Fit {
            position,
            windows_build: Reverse(build),
            shared_features: Reverse(shared),
            unknown_features: features().count() - shared,
        })
    }

    /// The images among `listed` that may be meant, best first: those that fit, in order of
    /// preference and then of the list, then those that do not say their platform (their config
    /// decides). Never empty.
    pub fn order<'a>(
        &self,
        listed: &'a [Descriptor],
    ) -> Result<Vec<&'a Descriptor>, PlatformError> {
        let mut fitting = Vec::new();
        let mut undeclared = Vec::new();
        let mut offered = Vec::new();
        for descriptor in listed.iter().filter(|descriptor| may_be_image(descriptor)) {
            match &descriptor.platform {
                Some(platform) if *platform != Platform::default() => {
                    offered.push(platform.normalised());
                    fitting.extend(self.fit(platform).map(|fit| (fit, descriptor)));
                }
                _ => undeclared.push(descriptor),
            }
        }
        if fitting.is_empty() && undeclared.is_empty() {
            return Err(self.no_match(offered));
        }
        fitting.sort_by_key(|(fit, _)| *fit);
        Ok(fitting
            .into_iter()
            .map(|(_, descriptor)| descriptor)
            .chain(undeclared)
            .collect())
    }

    /// The error that lists what there is.
    pub fn no_match(&self, mut offered: Vec<Platform>) -> PlatformError {
        if offered.is_empty() {
            return PlatformError::NoImage;
        }
        offered.sort_by_key(Platform::to_string);
        offered.dedup();
        PlatformError::NoMatch {
            wanted: Box::new(self.wanted.clone()),
            offered,
        }
    }
}

/// Whether an index's entry can be an image or a further index: not an attestation, not an
/// artifact. SOCI v2 indexes carry a real platform, so only the artifact type and an annotation
/// tell them apart.
pub fn may_be_image(descriptor: &Descriptor) -> bool {
    let unknown = descriptor
        .platform
        .as_ref()
        .is_some_and(|platform| platform.os == "unknown" || platform.architecture == "unknown");
    let kind = descriptor.kind();
    !unknown
        && descriptor.artifact_type.is_empty()
        && ![ATTESTATION, SOCI_INDEX]
            .iter()
            .any(|mark| descriptor.annotations.contains_key(*mark))
        && (descriptor.media_type.is_empty()
            || matches!(
                kind,
                MediaType::Manifest | MediaType::ImageIndex | MediaType::Schema1
            ))
}

/// containerd's platform vectors: which (architecture, variant) serve a wanted one, best first.
fn preference(architecture: &str, variant: &str) -> Vec<(String, String)> {
    let pair = |architecture: &str, variant: String| (architecture.to_owned(), variant);
    let mut list = vec![pair(architecture, variant.to_owned())];
    let level: Option<u32> = variant
        .strip_prefix('v')
        .and_then(|number| number.parse().ok());
    match architecture {
        "amd64" => {
            // A level beyond 9 is no CPU; bounding it bounds the list.
            let top = level.unwrap_or(1).min(9);
            list.extend((2..top).rev().map(|n| pair("amd64", format!("v{n}"))));
            if top > 1 {
                list.push(pair("amd64", String::new()));
            }
            list.push(pair("386", String::new()));
        }
        "arm" => {
            let top = level.unwrap_or(7).min(9);
            list.extend((5..top).rev().map(|n| pair("arm", format!("v{n}"))));
        }
        "arm64" => {
            let (major, minor) = match variant.strip_prefix('v').unwrap_or("8").split_once('.') {
                Some((major, minor)) => (major, minor.parse().unwrap_or(0).min(9)),
                None => (variant.strip_prefix('v').unwrap_or("8"), 0),
            };
            let dotted = |major: u32, minor: u32| match (major, minor) {
                (8, 0) => String::new(),
                (major, 0) => format!("v{major}"),
                (major, minor) => format!("v{major}.{minor}"),
            };
            let below = |major: u32, top: u32| (0..top).rev().map(move |n| (major, n));
            let steps: Vec<(u32, u32)> = match major {
                // Armv9.M includes Armv8.(M+5).
                "9" => below(9, minor)
                    .chain(below(8, (minor + 5).min(9) + 1))
                    .collect(),
                _ => below(8, minor).collect(),
            };
            list.extend(steps.into_iter().map(|(a, b)| pair("arm64", dotted(a, b))));
            list.extend((5..=8).rev().map(|n| pair("arm", format!("v{n}"))));
        }
        _ => {}
    }
    list
}

/// Whether a Windows host of version `host` runs an image of version `image`: the same build before
/// Windows Server 2022; from then on everything since the last long-term release below the host.
fn windows_runs(host: &str, image: &str) -> bool {
    if image.is_empty() {
        return true;
    }
    let (Some((host, host_build)), Some((image, image_build))) =
        (windows_version(host), windows_version(image))
    else {
        return host == image;
    };
    if host != image {
        return false;
    }
    let [first, ..] = WINDOWS_LTSC_BUILDS;
    if host_build < first {
        return host_build == image_build;
    }
    let oldest = WINDOWS_LTSC_BUILDS
        .into_iter()
        .rev()
        .find(|build| host_build > *build)
        .unwrap_or(first);
    (oldest..=host_build).contains(&image_build)
}

/// `10.0.17763.1234` as ((10, 0), 17763).
fn windows_version(text: &str) -> Option<((u32, u32), u32)> {
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    let major = numbers.next()??;
    let minor = numbers.next()??;
    let build = numbers.next()??;
    Some(((major, minor), build))
}

/// The variant of a 32-bit arm machine from `/proc/cpuinfo`.
fn arm_variant(cpuinfo: &str) -> &'static str {
    let value = |key: &str| {
        cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case(key))
            .map_or("", |(_, value)| value.trim())
    };
    // The first Raspberry Pi says architecture 7 of its ARMv6 CPU.
    if value("model name").starts_with("ARMv6-compatible") {
        return "v6";
    }
    match value("CPU architecture").bytes().next() {
        Some(b'8' | b'A') => "v8",
        Some(b'6') => "v6",
        Some(b'5' | b'4') => "v5",
        _ => "v7",
    }
}

fn normalise_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

/// Go's list of operating systems, and the older name of WebAssembly's interface.
fn is_known_os(os: &str) -> bool {
    matches!(
        os,
        "aix"
            | "android"
            | "darwin"
            | "dragonfly"
            | "freebsd"
            | "hurd"
            | "illumos"
            | "ios"
            | "js"
            | "linux"
            | "nacl"
            | "netbsd"
            | "openbsd"
            | "plan9"
            | "solaris"
            | "wasi"
            | "wasip1"
            | "windows"
            | "zos"
    )
}

/// Go's list of architectures.
fn is_known_architecture(architecture: &str) -> bool {
    const FAMILIES: [&str; 9] = [
        "386", "amd64", "arm", "mips", "ppc", "riscv", "s390", "sparc", "wasm",
    ];
    architecture == "loong64"
        || FAMILIES
            .iter()
            .any(|family| architecture.starts_with(family))
}

fn list(platforms: &[Platform]) -> String {
    let names: Vec<String> = platforms.iter().map(Platform::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    fn host() -> Platform {
        Platform::host("linux", "x86_64", "")
    }

    fn platform(text: &str) -> Platform {
        Platform::parse(text, &host()).unwrap()
    }

    #[test]
    fn platforms_parse_and_normalise() {
        let check = |text: &str, expected: &str| {
            let got = match Platform::parse(text, &host()) {
                Ok(platform) => platform.to_string(),
                Err(err) => err.to_string(),
            };
            assert!(got.contains(expected), "{text}: {got}");
        };
        check("linux", "linux/amd64");
        check("macOS", "darwin/amd64");
        check("arm64", "linux/arm64");
        check("aarch64", "linux/arm64");
        check("armhf", "linux/arm/v7");
        check("linux/arm", "linux/arm/v7");
        check("linux/armel", "linux/arm/v6");
        check("linux/arm64/v8", "linux/arm64");
        check("linux/arm64/v9.0", "linux/arm64/v9");
        check("linux/x86_64/v1", "linux/amd64");
        check("linux/amd64/v3", "linux/amd64/v3");
        check("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64");
        check(
            "windows(10.0.17763+win32k)",
            "windows(10.0.17763+win32k)/amd64",
        );
        check("", "no platform");
        check("linux/", "no platform");
        check("a/b/c/d", "no platform");
        check("linux(1/amd64", "no platform");
        check("toaster", "no operating system");
    }

    #[test]
    fn the_host_is_told_from_rusts_names() {
        let check = |os, architecture, cpuinfo, expected: &str| {
            assert_eq!(
                Platform::host(os, architecture, cpuinfo).to_string(),
                expected
            );
        };
        check("linux", "x86_64", "", "linux/amd64");
        check("macos", "aarch64", "", "darwin/arm64");
        check("linux", "arm", "", "linux/arm/v7");
        check("linux", "arm", "CPU architecture: 8\n", "linux/arm/v8");
        let pi = "model name\t: ARMv6-compatible processor rev 7\nCPU architecture: 7\n";
        check("linux", "arm", pi, "linux/arm/v6");
        check("linux", "powerpc64", "", "linux/ppc64le");
    }

    #[test]
    fn preference_is_containerds() {
        let check = |text: &str, expected: &str| {
            let wanted = platform(text);
            let list: Vec<String> = preference(&wanted.architecture, &wanted.variant)
                .into_iter()
                .map(|(architecture, variant)| format!("{architecture}{variant}"))
                .collect();
            assert_eq!(list.join(" "), expected, "{text}");
        };
        check("linux/amd64", "amd64 386");
        check("linux/amd64/v3", "amd64v3 amd64v2 amd64 386");
        check("linux/arm", "armv7 armv6 armv5");
        check("linux/arm/v5", "armv5");
        check("linux/arm64", "arm64 armv8 armv7 armv6 armv5");
        check(
            "linux/arm64/v8.2",
            "arm64v8.2 arm64v8.1 arm64 armv8 armv7 armv6 armv5",
        );
        check(
            "linux/arm64/v9.1",
            "arm64v9.1 arm64v9 arm64v8.6 arm64v8.5 arm64v8.4 arm64v8.3 arm64v8.2 arm64v8.1 arm64 armv8 armv7 armv6 armv5",
        );
        check("linux/s390x", "s390x");
    }

    #[test]
    fn windows_builds_are_compared_as_containerd_does() {
        let check = |host, image, expected| {
            assert_eq!(windows_runs(host, image), expected, "{host} {image}");
        };
        check("10.0.17763.1", "10.0.17763.5", true);
        check("10.0.17763", "10.0.18362", false);
        check("10.0.20348", "10.0.17763", false);
        check("10.0.22000", "10.0.20348", true);
        check("10.0.26100", "10.0.20348", true);
        check("10.0.26200", "10.0.20348", false);
        check("10.0.20348", "10.0.26100", false);
        check("10.0.20348", "", true);
    }

    /// A descriptor for each `platform[!mark]`: `-` has no platform, `!` is an attestation, `?` an
    /// artifact, `$` a SOCI index that lost its type.
    fn index(entries: &str) -> Vec<Descriptor> {
        entries
            .split_whitespace()
            .enumerate()
            .map(|(position, entry)| {
                let name = entry.trim_end_matches(['!', '?', '$']);
                let mut descriptor = Descriptor {
                    media_type: "application/vnd.oci.image.manifest.v1+json".into(),
                    digest: Digest::sha256(b""),
                    size: position as u64,
                    urls: Vec::new(),
                    annotations: std::collections::BTreeMap::new(),
                    artifact_type: String::new(),
                    platform: (name != "-").then(|| platform(name)),
                };
                if entry.ends_with('!') {
                    let mark = "attestation-manifest".to_owned();
                    descriptor.annotations.insert(ATTESTATION.into(), mark);
                }
                if entry.ends_with('$') {
                    let image = Digest::sha256(b"").to_string();
                    descriptor.annotations.insert(SOCI_INDEX.into(), image);
                }
                if entry.ends_with('?') {
                    descriptor.artifact_type = "application/x".into();
                }
                descriptor
            })
            .collect()
    }

    #[test]
    fn entries_are_ordered_by_how_well_they_fit() {
        let check = |wanted: &str, entries: &str, expected: &str| {
            let list = index(entries);
            let got = match PlatformMatcher::new(&platform(wanted)).order(&list) {
                Ok(order) => {
                    let positions: Vec<String> =
                        order.iter().map(|entry| entry.size.to_string()).collect();
                    positions.join(" ")
                }
                Err(err) => err.to_string(),
            };
            assert_eq!(got, expected, "{wanted} of {entries}");
        };
        check("linux/amd64", "linux/arm64 linux/amd64", "1");
        check("linux/amd64", "linux/386 linux/amd64 linux/amd64", "1 2 0");
        check("linux/arm64", "linux/arm/v5 linux/arm/v7", "1 0");
        check(
            "linux/amd64",
            "- linux/386 linux/amd64! linux/amd64?",
            "1 0",
        );
        check("linux/amd64", "linux/amd64$ linux/amd64", "1");
        check(
            "linux/amd64",
            "unknown/unknown linux/amd64!",
            "the index lists no image (only attestations, artifacts or nothing at all)",
        );
        check(
            "linux/amd64",
            "linux/arm64 windows(10.0.1)/amd64 linux/arm64 unknown/unknown",
            "the image has nothing for linux/amd64: it offers linux/arm64, windows(10.0.1)/amd64; choose one with --platform",
        );
        check(
            "windows(10.0.26100)/amd64",
            "windows(10.0.20348)/amd64 windows(10.0.26100)/amd64 windows(10.0.17763)/amd64",
            "1 0",
        );
    }
}
