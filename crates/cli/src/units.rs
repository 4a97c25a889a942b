//! Amounts as people write them: `20GiB`, `90s`.

use std::time::Duration;

/// A number of bytes with an optional unit: powers of 1000 (kB, MB, GB, TB) or 1024 (KiB, MiB, GiB,
/// TiB).
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = text
        .get(digits.len()..)
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let factor: u64 = match unit.as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => {
            return Err(format!(
                "unknown unit {unit:?}: write for example 500MB or 20GiB"
            ));
        }
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "write for example 500MB or 20GiB".to_owned())?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "too large".to_owned())
}

/// A time: a number with an optional unit, seconds without.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = text.get(digits.len()..).unwrap_or_default().trim();
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => {
            return Err(format!(
                "unknown unit {unit:?}: write for example 90s or 2m"
            ));
        }
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "write for example 90s or 2m".to_owned())?;
    let time = number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .filter(|time| *time <= LONGEST);
    time.filter(|time| !time.is_zero())
        .ok_or_else(|| "it has to be more than nothing and at most a day".to_owned())
}

/// Longest time that can be asked for: longer ones are slips of the finger.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Result<u64, &str>| match (parse_size(text), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
            (found, _) => panic!("{text}: {found:?}"),
        };
        check("20GiB", Ok(imgfs_core::store::DEFAULT_LIMIT));
        check("64MiB", Ok(imgfs_core::prefetch::EXECUTABLE_LIMIT));
        check("500 MB", Ok(500_000_000));
        check("7", Ok(7));
        check("1.5GB", Err("500MB"));
        check("GB", Err("500MB"));
        check("3 pints", Err("unknown unit"));
        check("99999999999TiB", Err("too large"));
    }

    #[test]
    fn times() {
        let check = |text: &str, expected: Result<u64, &str>| match (parse_time(text), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.as_millis(), u128::from(expected)),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
            (found, _) => panic!("{text}: {found:?}"),
        };
        check("60", Ok(60_000));
        check("90s", Ok(90_000));
        check("2 m", Ok(120_000));
        check("1h", Ok(3_600_000));
        check("250ms", Ok(250));
        check("0", Err("more than nothing"));
        check("25h", Err("at most a day"));
        check("99999999999999999999", Err("90s"));
        check("soon", Err("unknown unit"));
        check("-1", Err("90s"));
    }
}
