//! Sizes for people.

/// A size as registries count: three digits and a unit of powers of 1000.
pub(crate) fn size(bytes: u64) -> String {
    let units = [
        (1_000_000_000_000, "TB"),
        (1_000_000_000, "GB"),
        (1_000_000, "MB"),
        (1000, "kB"),
    ];
    for (factor, unit) in units {
        if bytes >= factor {
            let tenths = bytes / (factor / 10);
            return if tenths < 1000 {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            } else {
                format!("{} {unit}", tenths / 10)
            };
        }
    }
    format!("{bytes} B")
}

/// A size as `ls -h` and `du -h` write it: powers of 1024, rounded up.
pub(crate) fn human(bytes: u64) -> String {
    if bytes < 1024 {
        return bytes.to_string();
    }
    let bytes = u128::from(bytes);
    let mut unit = 1024;
    for letter in ["K", "M", "G", "T", "P"] {
        let tenths = (bytes * 10).div_ceil(unit);
        if tenths < 100 {
            return format!("{}.{}{letter}", tenths / 10, tenths % 10);
        }
        let whole = bytes.div_ceil(unit);
        if whole < 1024 {
            return format!("{whole}{letter}");
        }
        unit *= 1024;
    }
    format!("{}E", bytes.div_ceil(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let check = |bytes, expected: &str| assert_eq!(size(bytes), expected);
        check(0, "0 B");
        check(999, "999 B");
        check(1000, "1.0 kB");
        check(305_830_000, "305 MB");
        check(20 << 30, "21.4 GB");
    }

    /// Expected: what `numfmt --to=iec --round=up` prints.
    #[test]
    fn human_sizes_are_those_of_coreutils() {
        let check = |bytes, expected: &str| assert_eq!(human(bytes), expected);
        check(0, "0");
        check(1023, "1023");
        check(1024, "1.0K");
        check(1025, "1.1K");
        check(10 * 1024 - 1, "10K");
        check(10 * 1024 + 1, "11K");
        check(1024 * 1024 - 1, "1.0M");
        check(305_830_000, "292M");
        check(u64::MAX, "16E");
    }
}
