//! Where blobs were found when the registry redirected there: signed URLs, which expire.
//!
//! The URL is used again for other ranges of the blob until shortly before it expires, as far as it
//! says when:
//!
//! ```text
//! X-Amz-Date=20260102T030405Z & X-Amz-Expires=1200     S3 and its kin (AWS Signature Version 4, query parameters)
//! X-Goog-Date & X-Goog-Expires                         Google Cloud Storage, the same form
//! se=2026-01-02T03%3A04%3A05Z                          Azure (shared access signature)
//! Expires=1767323045                                   CloudFront, and S3's old form: Unix seconds
//! ```
//!
//! A URL that does not say it shows by a refusal that it has expired; then the registry is asked
//! again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use url::Url;

use imgfs_formats::oci::Digest;

/// A URL is not used any more so long before it expires: clocks differ, and a request takes its
/// time.
const AHEAD: Duration = Duration::from_secs(30);
/// Most URLs kept; an image has fewer layers than that.
const MAX_LOCATIONS: usize = 4096;

/// The URLs of one repository's blobs.
#[derive(Debug, Default)]
pub(super) struct Locations {
    urls: Mutex<HashMap<Digest, Location>>,
}

#[derive(Debug)]
struct Location {
    url: Url,
    expires: Option<SystemTime>,
}

impl Locations {
    /// Where the blob was last time, if that still holds.
    pub(super) fn get(&self, blob: &Digest, now: SystemTime) -> Option<Url> {
        let mut urls = self.lock();
        let location = urls.get(blob)?;
        if location
            .expires
            .is_some_and(|expires| now + AHEAD >= expires)
        {
            urls.remove(blob);
            return None;
        }
        Some(location.url.clone())
    }

    /// The registry led there.
    pub(super) fn set(&self, blob: Digest, url: Url) {
        let expires = expiry(&url);
        let mut urls = self.lock();
        if urls.len() >= MAX_LOCATIONS {
            urls.clear();
        }
        urls.insert(blob, Location { url, expires });
    }

    /// It is not there any more.
    pub(super) fn forget(&self, blob: &Digest) {
        self.lock().remove(blob);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Location>> {
        self.urls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a URL expires, if it says so.
fn expiry(url: &Url) -> Option<SystemTime> {
    let value = |wanted: &str| {
        url.query_pairs()
            .find(|(key, _)| key.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.into_owned())
    };
    let seconds = |text: String| text.parse::<u32>().ok().map(u64::from);
    for (signed_at, lives) in [
        ("X-Amz-Date", "X-Amz-Expires"),
        ("X-Goog-Date", "X-Goog-Expires"),
    ] {
        if let (Some(signed_at), Some(lives)) = (value(signed_at), value(lives).and_then(seconds)) {
            return Some(parse_time(&signed_at)? + Duration::from_secs(lives));
        }
    }
    if let Some(end) = value("se") {
        return parse_time(&end);
    }
    let end: u64 = value("Expires")?.parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(end))
}

/// `20260102T030405Z` or `2026-01-02T03:04:05Z`, or a date alone.
fn parse_time(text: &str) -> Option<SystemTime> {
    let midnight = || {
        let date: jiff::civil::Date = text.parse().ok()?;
        let midnight = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(midnight.timestamp())
    };
    let time: jiff::Timestamp = text.parse().ok().or_else(midnight)?;
    let seconds = u64::try_from(time.as_second()).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_times_are_read() {
        let check = |query: &str, expected: Option<u64>| {
            let url: Url = format!("https://h/p?{query}").parse().unwrap();
            let found = expiry(&url).map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs());
            assert_eq!(found, expected, "{query}");
        };
        check("", None);
        check(
            "X-Amz-Date=20260102T030405Z&X-Amz-Expires=1200&X-Amz-Signature=x",
            Some(1_767_324_245),
        );
        check(
            "x-goog-date=20260102T030405Z&x-goog-expires=60",
            Some(1_767_323_105),
        );
        check("X-Amz-Expires=1200", None);
        check("X-Amz-Date=never&X-Amz-Expires=1200", None);
        check("X-Amz-Date=20260102T030405Z&X-Amz-Expires=-1", None);
        check(
            "sv=2024&se=2026-01-02T03%3A04%3A05Z&sig=x",
            Some(1_767_323_045),
        );
        check("se=2024-02-29T23:59:59.1234567Z", Some(1_709_251_199));
        check("se=2024-03-01", Some(1_709_251_200));
        check("se=1970-01-01", Some(0));
        check("se=0000-00-00", None);
        check("Expires=1767323045&Key-Pair-Id=x", Some(1_767_323_045));
        check("Expires=18446744073709551615", None);
    }

    #[test]
    fn urls_are_not_used_shortly_before_they_expire() {
        let (locations, blob) = (Locations::default(), Digest::sha256(b""));
        let at = |second| UNIX_EPOCH + Duration::from_secs(second);
        locations.set(blob, "https://h/?Expires=1000".parse().unwrap());
        assert!(locations.get(&blob, at(969)).is_some());
        assert_eq!(locations.get(&blob, at(970)), None);
        locations.set(blob, "https://h/".parse().unwrap());
        assert!(locations.get(&blob, at(u64::from(u32::MAX))).is_some());
        locations.forget(&blob);
        assert_eq!(locations.get(&blob, at(0)), None);
    }
}
