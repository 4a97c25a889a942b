//! What stands behind tests: numbers to compare with, sizes, times, kinds, owners.

use anyhow::{Context, bail};
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};

use imgfs_formats::layer::Mtime;
use imgfs_formats::tree::Kind;

/// Nanoseconds of a second.
const SECOND: i128 = 1_000_000_000;

/// A number with `+` or `-` before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    /// Less than this.
    Less(i64),
    /// Just this.
    Equal(i64),
    /// More than this.
    More(i64),
}

impl Compare {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let (make, digits): (fn(i64) -> Self, _) = if let Some(digits) = text.strip_prefix('-') {
            (Self::Less, digits)
        } else if let Some(digits) = text.strip_prefix('+') {
            (Self::More, digits)
        } else {
            (Self::Equal, text)
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            bail!("{text:?} is not a number: write for example 7, +7 or -7");
        }
        Ok(make(digits.parse().context("the number is too large")?))
    }

    pub(super) fn allow(self, number: i64) -> bool {
        match self {
            Self::Less(limit) => number < limit,
            Self::Equal(wanted) => number == wanted,
            Self::More(limit) => number > limit,
        }
    }
}

/// A size in some unit, files' sizes rounded up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    number: Compare,
    unit: u64,
}

impl Size {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text.get(digits.len()..).unwrap_or_default() {
            "" | "b" => 512,
            "c" => 1,
            "w" => 2,
            "k" => 1 << 10,
            "M" => 1 << 20,
            "G" => 1 << 30,
            unit => bail!("unknown unit {unit:?}: write for example +100k, 5M or 0c"),
        };
        let number = Compare::parse(digits)?;
        Ok(Self { number, unit })
    }

    pub(super) fn allows(self, bytes: u64) -> bool {
        let units = bytes.div_ceil(self.unit);
        self.number.allow(i64::try_from(units).unwrap_or(i64::MAX))
    }
}

/// A moment: a day, a day and a time (UTC unless it says otherwise), or `@` and seconds since 1970.
pub(super) fn moment(text: &str) -> anyhow::Result<Mtime> {
    let time = if let Some(seconds) = text.strip_prefix('@') {
        let seconds = seconds.parse().ok();
        seconds.and_then(|seconds| Timestamp::from_second(seconds).ok())
    } else {
        text.parse().ok().or_else(|| {
            let time: civil::DateTime = text.parse().ok()?;
            TimeZone::UTC.to_timestamp(time).ok()
        })
    };
    let time = time.with_context(|| {
        format!("{text:?} is no time: write for example 2024-01-31, '2024-01-31 12:00:00' or @1700000000")
    })?;
    let nanoseconds = time.as_nanosecond();
    Ok(Mtime {
        seconds: i64::try_from(nanoseconds.div_euclid(SECOND))?,
        nanoseconds: u32::try_from(nanoseconds.rem_euclid(SECOND))?,
    })
}

/// Letters for kinds, with commas between them.
pub(super) fn kinds(text: &str) -> anyhow::Result<Vec<char>> {
    text.split(',')
        .map(|letter| match letter {
            "f" => Ok('f'),
            "d" => Ok('d'),
            "l" => Ok('l'),
            "c" => Ok('c'),
            "b" => Ok('b'),
            "p" => Ok('p'),
            _ => bail!("unknown type {letter:?}: write f, d, l, c, b or p, or several as f,l"),
        })
        .collect()
}

/// The letter of a kind.
pub(super) fn letter(kind: Kind) -> char {
    match kind {
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
        Kind::CharDevice => 'c',
        Kind::BlockDevice => 'b',
        Kind::Fifo => 'p',
        Kind::File | Kind::SparseFile | Kind::BrokenLink | Kind::UnresolvedLink | Kind::Phantom => {
            'f'
        }
    }
}

/// The number of an account by its name, in lines such as `name:x:1000:...`.
pub(super) fn account(lines: &[u8], name: &[u8]) -> Option<i64> {
    let mut lines = lines.split(|byte| *byte == b'\n');
    lines.find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let is_it = fields.next() == Some(name);
        let number = fields.nth(1).filter(|_| is_it)?;
        let number: u32 = std::str::from_utf8(number).ok()?.trim().parse().ok()?;
        Some(number.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up_to_their_unit() {
        #[track_caller]
        fn check(text: &str, bytes: u64, expected: bool) {
            let size = Size::parse(text).unwrap();
            assert_eq!(size.allows(bytes), expected, "{text} {bytes}");
        }
        check("1", 512, true);
        check("1", 513, false);
        check("2b", 513, true);
        check("5c", 5, true);
        check("-1M", 1, false);
        check("-1M", 0, true);
        check("+1k", 1025, true);
        check("+1k", 1024, false);
        check("0", 0, true);
        check("1G", u64::MAX, false);
        for bad in ["", "k", "1x", "1kk", "++1", "1.5M", "99999999999999999999"] {
            assert!(Size::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn moments_may_leave_out_their_end() {
        #[track_caller]
        fn check(text: &str, seconds: i64) {
            let found = moment(text).unwrap();
            assert_eq!((found.seconds, found.nanoseconds), (seconds, 0), "{text}");
        }
        check("2009-02-13", 1_234_483_200);
        check("2009-02-13 23:31", 1_234_567_860);
        check("2009-02-13 23:31:30", 1_234_567_890);
        check("2009-02-13T23:31:30Z", 1_234_567_890);
        check("2009-02-14T00:31:30+01:00", 1_234_567_890);
        check("@1234567890", 1_234_567_890);
        check("@-1", -1);
        for bad in ["", "yesterday", "2009-02", "2009-02-13 25:00", "@x"] {
            assert!(moment(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn accounts_are_found_by_name() {
        let lines =
            b"root:x:0:0:root:/root:/bin/sh\nodd\nweb:x:33:33::/:\n\xff:x:7:7::/:\nbad:x:y:\n";
        let check = |name: &[u8], expected| assert_eq!(account(lines, name), expected, "{name:?}");
        check(b"root", Some(0));
        check(b"web", Some(33));
        check(b"\xff", Some(7));
        check(b"odd", None);
        check(b"bad", None);
        check(b"we", None);
        check(b"", None);
    }
}
