//! Times as tables of contents write them: `2009-02-13T23:31:30.1234567Z`, or with a distance from UTC in hours.
//!
//! Go's marshaller writes this form and no other (RFC 3339), with up to nine digits of a second's fraction. Go's zero time,
//! 0001-01-01T00:00:00Z, is a time as any other here: writers take an entry's time from a tar header that they have read,
//! where it is only if the tar says so (seen in skopeo 1.9; newer ones and eStargz leave it out, as eStargz does with 1970).

use super::toc::Mtime;

/// Reads a time.
pub fn parse_time(text: &str) -> Option<Mtime> {
    let (date, time) = text.split_once('T')?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let zone = time.find(['Z', '+', '-'])?;
    let (clock, zone) = time.split_at_checked(zone)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let east_of_utc = match zone.split_at_checked(1)? {
        ("Z", "") => 0,
        ("+", distance) => seconds(distance)?,
        ("-", distance) => -seconds(distance)?,
        _ => return None,
    };
    let is_right = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && (1..=9).contains(&fraction.len())
        && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !is_right {
        return None;
    }
    let days = days_since_epoch(year, month, day);
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second - east_of_utc;
    Some(Mtime {
        seconds,
        nanoseconds: format!("{fraction:0<9}").parse().ok()?,
    })
}

/// Seconds of a distance `hh:mm`.
fn seconds(distance: &str) -> Option<i64> {
    let [hours, minutes] = numbers(distance, ':', [2, 2])?;
    Some((hours * 60 + minutes) * 60)
}

/// `N` numbers with a separator between them, each of so many digits.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Days from 1970-01-01 to a day of the Gregorian calendar, for years from 0 to 9999: whole years, with March as the
/// first month so that the leap day is the last, then whole months, which have 153 days in every five.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    // January and February of the year 0 belong to the year -1: hence the Euclidean division.
    let before_year = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let before_month = (153 * month + 2) / 5;
    // 719,468 days are between 0000-03-01 and 1970-01-01.
    before_year + before_month + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_writes_them() {
        let check = |text: &str, expected: Option<(i64, u32)>| {
            let found = parse_time(text).map(|time| (time.seconds, time.nanoseconds));
            assert_eq!(found, expected, "{text}");
        };
        check("1970-01-01T00:00:00Z", Some((0, 0)));
        check("2023-11-14T22:13:20Z", Some((1_700_000_000, 0)));
        check(
            "2009-02-13T23:31:30.1234567Z",
            Some((1_234_567_890, 123_456_700)),
        );
        check("2023-11-15T00:13:20+02:00", Some((1_700_000_000, 0)));
        check(
            "2023-11-14T16:43:20.5-05:30",
            Some((1_700_000_000, 500_000_000)),
        );
        // Half a second before 1970 is half a second after the second before it.
        check("1969-12-31T23:59:59.5Z", Some((-1, 500_000_000)));
        check("2000-02-29T00:00:00Z", Some((951_782_400, 0)));
        check("9999-12-31T23:59:59Z", Some((253_402_300_799, 0)));
        check(
            "2100-01-01T00:00:00.123456789Z",
            Some((4_102_444_800, 123_456_789)),
        );
        check("0001-01-01T00:00:00Z", Some((-62_135_596_800, 0)));
        check("0000-01-01T00:00:00Z", Some((-62_167_219_200, 0)));
        for bad in [
            "",
            "T",
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-11-14 22:13:20Z",
            "2023-13-14T22:13:20Z",
            "2023-11-00T22:13:20Z",
            "2023-11-14T24:13:20Z",
            "2023-11-14T22:13Z",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20.1234567890Z",
            "2023-11-14T22:13:20.+1Z",
            "2023-11-14T22:13:20Zz",
            "2023-11-14T22:13:20+0200",
            "2023-11-14T22:13:20+2:00",
            "2023-00-14T22:13:20Z",
            "+023-11-14T22:13:20Z",
            "\u{663}023-11-14T22:13:20Z",
        ] {
            check(bad, None);
        }
    }
}
