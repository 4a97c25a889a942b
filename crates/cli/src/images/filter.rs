//! `--filter`, as Docker has it for images.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use globset::{GlobBuilder, GlobMatcher};
use jiff::Timestamp;

use crate::globals::environment;
use crate::time;
use imgfs_core::work::{Images, Name};

/// One filter, as written.
#[derive(Debug, Clone)]
pub(super) enum Filter {
    Dangling(bool),
    Before(String),
    Since(String),
    /// Unix seconds.
    Until(i64),
    Label {
        key: String,
        value: Option<String>,
        /// Images that do not have it.
        without: bool,
    },
    Reference(GlobMatcher),
}

/// All filters, with the images that they name looked up.
#[derive(Default)]
pub(super) struct Filters {
    others: Vec<Filter>,
    before: Vec<Timestamp>,
    since: Vec<Timestamp>,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .ok_or("write KEY=VALUE, for example dangling=true")?;
        match key {
            "dangling" => match value {
                "true" | "1" => Ok(Self::Dangling(true)),
                "false" | "0" => Ok(Self::Dangling(false)),
                _ => Err(format!("dangling is true or false, not {value:?}")),
            },
            "before" => Ok(Self::Before(value.to_owned())),
            "since" | "after" => Ok(Self::Since(value.to_owned())),
            "until" => Ok(Self::Until(moment(value)?)),
            "label" | "label!" => {
                let (label, wanted) = match value.split_once('=') {
                    Some((label, wanted)) => (label, Some(wanted.to_owned())),
                    None => (value, None),
                };
                Ok(Self::Label {
                    key: label.to_owned(),
                    value: wanted,
                    without: key == "label!",
                })
            }
            "reference" => Ok(Self::Reference(pattern(value)?)),
            _ => Err(format!(
                "unknown filter {key:?}: there are dangling, before, since, until, label, label! and reference"
            )),
        }
    }
}

impl Filters {
    /// Looks up the images of `before` and `since`.
    pub(super) fn new(filters: &[Filter], images: &Images) -> anyhow::Result<Self> {
        let mut all = Self::default();
        let created = |text: &str| {
            let created = images.created(images.find_one(text, &environment().configuration)?);
            created.with_context(|| format!("it is not known when {text} was made"))
        };
        for filter in filters {
            match filter {
                Filter::Before(text) => all.before.push(created(text)?),
                Filter::Since(text) => all.since.push(created(text)?),
                other => all.others.push(other.clone()),
            }
        }
        Ok(all)
    }

    /// Whether an image is one of those that are wanted.
    pub(super) fn take(&self, images: &Images, i: usize) -> bool {
        let created = images.created(i);
        let labels = images.labels(i);
        let is_wanted = |filter: &Filter| match filter {
            Filter::Dangling(wanted) => images.get(i).tags.is_empty() == *wanted,
            Filter::Until(until) => created.is_some_and(|created| created.as_second() < *until),
            Filter::Label {
                key,
                value,
                without,
            } => {
                let found = labels.get(key).and_then(serde_json::Value::as_str);
                let has = match (found, value) {
                    (Some(found), Some(value)) => found == value,
                    (found, None) => found.is_some(),
                    (None, Some(_)) => false,
                };
                has != *without
            }
            Filter::Before(_) | Filter::Since(_) | Filter::Reference(_) => true,
        };
        self.others.iter().all(is_wanted)
            && (self.before.iter()).all(|limit| created.is_some_and(|created| created < *limit))
            && (self.since.iter()).all(|limit| created.is_some_and(|created| created > *limit))
    }

    /// Whether a name is. One of several patterns is enough.
    pub(super) fn take_name(&self, name: &Name) -> bool {
        let mut patterns = (self.others.iter())
            .filter_map(|filter| match filter {
                Filter::Reference(pattern) => Some(pattern),
                _ => None,
            })
            .peekable();
        let forms = name.forms();
        patterns.peek().is_none()
            || patterns.any(|pattern| forms.iter().any(|form| pattern.is_match(form)))
    }
}

/// A pattern of names, in which a star takes no slash.
pub(super) fn pattern(text: &str) -> Result<GlobMatcher, String> {
    let pattern = GlobBuilder::new(text).literal_separator(true).build();
    Ok(pattern.map_err(|err| err.to_string())?.compile_matcher())
}

/// A time: so long ago (`24h`, `1h30m`), a date and time, a date, or Unix seconds. In Unix seconds;
/// in UTC where nothing else is said.
fn moment(text: &str) -> Result<i64, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    if let Some(age) = age(text) {
        let then = now.saturating_sub(age.as_secs());
        return Ok(i64::try_from(then).unwrap_or(i64::MAX));
    }
    unix_seconds(text)
        .or_else(|| time::seconds_of(text))
        .or_else(|| time::seconds_of(&format!("{text}Z")))
        .or_else(|| time::seconds_of(&format!("{text}T00:00:00Z")))
        .ok_or_else(|| {
            format!(
                "{text:?} is no time: write for example 24h, 2026-01-31 or 2026-01-31T12:00:00Z"
            )
        })
}

/// Unix seconds, with or without a part of one.
fn unix_seconds(text: &str) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_part = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    whole.parse().ok().filter(|_| is_part)
}

/// A duration as Go writes it, with fractions; days besides.
fn age(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let digits = rest.find(|c| !is_number(c))?;
        let (number, after) = rest.split_at_checked(digits)?;
        let end = after.find(is_number);
        let (unit, next) = after.split_at_checked(end.unwrap_or(after.len()))?;
        let seconds = match unit {
            "ns" => 1e-9,
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        let seconds = number.parse::<f64>().ok()? * seconds;
        total = total.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_all_kinds() {
        let check = |text: &str, expected: Option<i64>| {
            assert_eq!(moment(text).ok(), expected, "{text}");
        };
        check("0", Some(0));
        check("1700000000", Some(1_700_000_000));
        check("1700000000.5", Some(1_700_000_000));
        check("2023-11-14T22:13:20Z", Some(1_700_000_000));
        check("2023-11-14T23:13:20+01:00", Some(1_700_000_000));
        check("2023-11-14T22:13:20", Some(1_700_000_000));
        check("2023-11-14", Some(1_699_920_000));
        check("1.5x", None);
        check("1700000000.", None);
        check("1.h5", None);
        check("", None);
        check("soon", None);
        check("3 weeks", None);
        assert_eq!(age("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(age("1.5h"), Some(Duration::from_secs(5400)));
        assert_eq!(age("1h0.5m250ms"), Some(Duration::from_millis(3_630_250)));
        assert_eq!(age("1.2.3h"), None);
        assert_eq!(age(".h"), None);
        assert_eq!(age("2d"), Some(Duration::from_secs(172_800)));
        assert_eq!(age("h"), None);
        assert_eq!(age("99999999999999999999h"), None);
        let hour_ago = moment("1h").unwrap();
        assert!(moment("2h").unwrap() < hour_ago);
    }

    #[test]
    fn filters_are_read() {
        let check = |text: &str, expected: &str| {
            let said = text.parse::<Filter>().map(|filter| format!("{filter:?}"));
            let said = said.unwrap_or_else(|err| err);
            assert!(said.contains(expected), "{text}: {said}");
        };
        check("dangling=true", "Dangling(true)");
        check("dangling=maybe", "true or false");
        check(
            "label=a=b=c",
            "key: \"a\", value: Some(\"b=c\"), without: false",
        );
        check("label!=a", "without: true");
        check("dangling", "KEY=VALUE");
        check("color=red", "unknown filter");
        check("reference=[", "error");
    }
}
