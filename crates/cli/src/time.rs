//! Times for people, and how current an image is.

use std::time::{SystemTime, UNIX_EPOCH};

use super::output;
use imgfs_core::image::Freshness;

/// A time in UTC, to the second; in seconds since 1970 where that is no time of a calendar.
pub(super) fn utc(seconds: i64) -> String {
    match jiff::Timestamp::from_second(seconds) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => format!("@{seconds}"),
    }
}

/// How long ago that was, in the largest unit that makes at least two.
pub(super) fn age(since: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    match now.saturating_sub(since) {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// A time as builders write it (RFC 3339), in seconds since 1970.
pub(super) fn seconds_of(text: &str) -> Option<i64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(time.as_second())
}

/// How long ago a time was, as Docker says it: `2 weeks ago`.
pub(super) fn ago(since: i64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let since = u64::try_from(since).unwrap_or(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let passed = now.map_or(0, |since| since.as_secs()).saturating_sub(since);
    let text = match passed {
        0 => "less than a second".to_owned(),
        1 => "1 second".to_owned(),
        seconds if seconds < MINUTE => format!("{seconds} seconds"),
        seconds if seconds < 2 * MINUTE => "about a minute".to_owned(),
        seconds if seconds < HOUR => format!("{} minutes", seconds / MINUTE),
        seconds if seconds < 2 * HOUR => "about an hour".to_owned(),
        seconds if seconds < 2 * DAY => format!("{} hours", seconds / HOUR),
        seconds if seconds < 14 * DAY => format!("{} days", seconds / DAY),
        seconds if seconds < 60 * DAY => format!("{} weeks", seconds / (7 * DAY)),
        seconds if seconds < 730 * DAY => format!("{} months", seconds / (30 * DAY)),
        seconds => format!("{} years", seconds / (365 * DAY)),
    };
    format!("{text} ago")
}

/// Both: `2026-11-20 03:47:12 UTC (2 days ago)`.
pub(super) fn moment(seconds: u64) -> String {
    let text = utc(i64::try_from(seconds).unwrap_or(i64::MAX));
    format!("{text} UTC ({} ago)", age(seconds))
}

/// Says so if an image may be older than what its name means now.
pub(super) fn say_freshness(freshness: &Freshness, quiet: bool) {
    if let Some(text) = freshness_text(freshness).filter(|_| !quiet) {
        output::message(&text);
    }
}

/// What there is to say about how current an image is, if it is not what its source says now.
pub(super) fn freshness_text(freshness: &Freshness) -> Option<String> {
    match freshness {
        Freshness::Pinned | Freshness::Asked { .. } => None,
        Freshness::Unasked { checked } => Some(format!(
            "no registry was asked; using the image as of {}",
            moment(*checked)
        )),
        Freshness::Unreachable { checked, host, why } => Some(format!(
            "{host} cannot be reached ({why}); using the image as of {}",
            moment(*checked)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_all_ages() {
        let check = |seconds, expected: &str| assert_eq!(utc(seconds), expected);
        check(0, "1970-01-01 00:00:00");
        check(-1, "1969-12-31 23:59:59");
        check(951_827_696, "2000-02-29 12:34:56");
        check(4_107_542_399, "2100-02-28 23:59:59");
        check(i64::MAX, "@9223372036854775807");
    }
}
