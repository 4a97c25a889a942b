//! Times for people, and how current an image is.

use std::time::{SystemTime, UNIX_EPOCH};

use super::output;
use crate::mount::Freshness;

/// A time in UTC, to the second (Howard Hinnant's civil-from-days algorithm).
pub(super) fn utc(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days.saturating_add(719_468);
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
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
    }
}
