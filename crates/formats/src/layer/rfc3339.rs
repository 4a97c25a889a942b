//! Times as tables of contents write them: `2009-02-13T23:31:30.1234567Z`, or with a distance from
//! UTC in hours.
//!
//! Go's marshaller writes this form and no other (RFC 3339), with up to nine digits of a second's
//! fraction. Go's zero time, 0001-01-01T00:00:00Z, is a time as any other here: writers take an
//! entry's time from a tar header that they have read, where it is only if the tar says so (seen in
//! skopeo 1.9; newer ones and eStargz leave it out, as eStargz does with 1970).

use jiff::civil;
use jiff::fmt::temporal::Pieces;

use super::toc::Mtime;

/// Reads a time.
pub(super) fn parse_time(text: &str) -> Option<Mtime> {
    // Not as a timestamp of the crate's: those end a day earlier than the year 9999.
    let pieces = Pieces::parse(text).ok()?;
    let clock = pieces.date().to_datetime(pieces.time()?);
    let east_of_utc = pieces.to_numeric_offset()?.seconds();
    let since = clock.duration_since(civil::date(1970, 1, 1).at(0, 0, 0, 0));
    let nanoseconds = since.as_nanos() - i128::from(east_of_utc) * NANOSECONDS;
    Some(Mtime {
        seconds: i64::try_from(nanoseconds.div_euclid(NANOSECONDS)).ok()?,
        nanoseconds: u32::try_from(nanoseconds.rem_euclid(NANOSECONDS)).ok()?,
    })
}

/// In a second.
const NANOSECONDS: i128 = 1_000_000_000;

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
            "2023-13-14T22:13:20Z",
            "2023-11-00T22:13:20Z",
            "2023-11-14T24:13:20Z",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20.1234567890Z",
            "2023-11-14T22:13:20.+1Z",
            "2023-11-14T22:13:20Zz",
            "2023-11-14T22:13:20+2:00",
            "2023-00-14T22:13:20Z",
            "+023-11-14T22:13:20Z",
            "\u{663}023-11-14T22:13:20Z",
        ] {
            check(bad, None);
        }
    }
}
