//! The tests of `imgfs find`: words as find(1) has them, and whether they hold for a place.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, bail};

use super::glob::Glob;
use super::operands::{Compare, Size, account, kinds, letter, moment};
use super::permissions::Permissions;
use crate::look::walk::Place;
use imgfs_formats::layer::Mtime;
use imgfs_formats::tree::{Node, Tree};

/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;

/// Words that ask for what is not there, with what to do instead.
const OTHERS: [(&[&str], &str); 4] = [
    (
        &["-o", "-or", "(", ")", "\\(", "\\)", ","],
        "tests are joined by \"and\" alone: run imgfs find once for each alternative",
    ),
    (
        &["-exec", "-execdir", "-ok", "-okdir"],
        "no commands are run: use -print0 with xargs -0",
    ),
    (&["-delete"], "images are read-only"),
    (
        &["-printf", "-ls", "-fprint", "-fprintf", "-fls"],
        "use --json for all there is to know of each file",
    ),
];

/// Tests that must all hold, and how far to search.
pub(super) struct Expression {
    conditions: Vec<Condition>,
    pub min_depth: usize,
    pub max_depth: usize,
    pub print0: bool,
}

struct Condition {
    test: Test,
    holds_not: bool,
}

enum Test {
    Name(Glob),
    Path(Glob),
    Kinds(Vec<char>),
    Size(Size),
    /// Whole days before this second.
    Days(i64, Compare),
    Newer(Mtime),
    User(Owner),
    Group(Owner),
    Permissions(Permissions),
    Empty,
}

enum Owner {
    Number(Compare),
    /// To be looked up in the image.
    Name(Vec<u8>),
}

/// How many words belong to a test or an option, if it is one.
pub(super) fn operands_of(word: &str) -> Option<usize> {
    match word {
        "-name" | "-iname" | "-path" | "-wholename" | "-ipath" | "-iwholename" | "-type"
        | "-size" | "-mtime" | "-newermt" | "-user" | "-uid" | "-group" | "-gid" | "-perm"
        | "-maxdepth" | "-mindepth" => Some(1),
        "-empty" | "-print" | "-print0" | "-not" | "!" | "-a" | "-and" => Some(0),
        _ => None,
    }
}

/// Whether a word is meant as a test: it has one dash and is none of the short options that every
/// command has.
pub(super) fn is_test(word: &str) -> bool {
    let is_punctuation = matches!(word, "(" | ")" | "\\(" | "\\)" | ",");
    let short = word.strip_prefix('-').unwrap_or_default();
    is_punctuation
        || !short.is_empty()
            && !short.starts_with('-')
            && !short.chars().all(|c| "qvhV".contains(c))
}

impl Expression {
    /// Reads tests; `now` in seconds since 1970.
    pub(super) fn parse(words: &[OsString], now: i64) -> anyhow::Result<Self> {
        let mut expression = Self {
            conditions: Vec::new(),
            min_depth: 0,
            max_depth: usize::MAX,
            print0: false,
        };
        let mut holds_not = false;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let word = word.to_string_lossy();
            let Some(operands) = operands_of(&word) else {
                bail!(refusal(&word));
            };
            let mut operand = Vec::new();
            if operands > 0 {
                let given = words.next();
                let given = given.with_context(|| format!("{word} needs a word after it"))?;
                operand = given.clone().into_vec();
            }
            let text = String::from_utf8_lossy(&operand);
            let depth = || {
                text.parse()
                    .with_context(|| format!("{text:?} is no number of levels"))
            };
            let parsed: anyhow::Result<Option<Test>> = match &*word {
                "!" | "-not" => {
                    holds_not = !holds_not;
                    continue;
                }
                "-a" | "-and" | "-print" => Ok(None),
                "-print0" => {
                    expression.print0 = true;
                    Ok(None)
                }
                "-maxdepth" => depth().map(|depth| {
                    expression.max_depth = depth;
                    None
                }),
                "-mindepth" => depth().map(|depth| {
                    expression.min_depth = depth;
                    None
                }),
                test => Test::parse(test, &operand, &text, now).map(Some),
            };
            match parsed.with_context(|| word.into_owned())? {
                Some(test) => expression.conditions.push(Condition { test, holds_not }),
                None if holds_not => bail!("! must stand before a test"),
                None => {}
            }
            holds_not = false;
        }
        if holds_not {
            bail!("! must stand before a test");
        }
        Ok(expression)
    }

    /// Whether it has names of users.
    pub(super) fn names_users(&self) -> bool {
        let mut tests = self.conditions.iter().map(|condition| &condition.test);
        tests.any(|test| matches!(test, Test::User(Owner::Name(_))))
    }

    /// Whether it has names of groups.
    pub(super) fn names_groups(&self) -> bool {
        let mut tests = self.conditions.iter().map(|condition| &condition.test);
        tests.any(|test| matches!(test, Test::Group(Owner::Name(_))))
    }

    /// Turns names of users into numbers by the image's `/etc/passwd`.
    pub(super) fn resolve_users(&mut self, passwd: &[u8]) -> anyhow::Result<()> {
        for condition in &mut self.conditions {
            if let Test::User(owner) = &mut condition.test {
                owner.resolve(passwd, "user", "/etc/passwd")?;
            }
        }
        Ok(())
    }

    /// Turns names of groups into numbers by the image's `/etc/group`.
    pub(super) fn resolve_groups(&mut self, group: &[u8]) -> anyhow::Result<()> {
        for condition in &mut self.conditions {
            if let Test::Group(owner) = &mut condition.test {
                owner.resolve(group, "group", "/etc/group")?;
            }
        }
        Ok(())
    }

    /// Whether it asks what is in directories.
    pub(super) fn looks_into_directories(&self) -> bool {
        let mut tests = self.conditions.iter().map(|condition| &condition.test);
        tests.any(|test| matches!(test, Test::Empty))
    }

    /// Whether a place's attributes are needed: to decide, or to print if `shows_all`. Not where
    /// its name or kind decides already.
    pub(super) fn needs_attributes(&self, place: &Place<'_>, shows_all: bool) -> bool {
        let of_attributes = |condition: &&Condition| condition.test.is_of_attributes();
        (shows_all
            || self
                .conditions
                .iter()
                .any(|condition| of_attributes(&condition)))
            && place.depth >= self.min_depth
            && (self.conditions.iter())
                .filter(|condition| !of_attributes(condition))
                .all(|condition| condition.holds(place, place.node, None))
    }

    /// Whether a place is what is looked for.
    pub(super) fn holds(&self, place: &Place<'_>, tree: &Tree) -> bool {
        place.depth >= self.min_depth
            && (self.conditions.iter())
                .all(|condition| condition.holds(place, place.node, Some(tree)))
    }
}

impl Condition {
    /// Without a tree it is not known which directories are empty: they may be.
    fn holds(&self, place: &Place<'_>, node: &Node, tree: Option<&Tree>) -> bool {
        let holds = match &self.test {
            Test::Name(glob) => glob.matches(place.name),
            Test::Path(glob) => glob.matches(place.path),
            Test::Kinds(kinds) => kinds.contains(&letter(node.kind())),
            Test::Size(size) => size.allows(node.size()),
            Test::Days(now, days) => {
                let age = now.saturating_sub(node.mtime().seconds);
                days.allow(age.div_euclid(DAY))
            }
            Test::Newer(moment) => node.mtime() > *moment,
            Test::User(owner) => owner.is(node.uid()),
            Test::Group(owner) => owner.is(node.gid()),
            Test::Permissions(permissions) => permissions.allow(node.permissions()),
            Test::Empty if node.is_directory() => match tree {
                Some(tree) => tree.children(node).is_empty(),
                None => return true,
            },
            Test::Empty => node.is_file() && node.size() == 0,
        };
        holds != self.holds_not
    }
}

impl Test {
    fn parse(word: &str, operand: &[u8], text: &str, now: i64) -> anyhow::Result<Self> {
        let owner = |is_number: bool| {
            let is_name = !is_number && !text.bytes().all(|byte| byte.is_ascii_digit());
            anyhow::Ok(if is_name || text.is_empty() {
                Owner::Name(operand.to_vec())
            } else {
                Owner::Number(Compare::parse(text)?)
            })
        };
        Ok(match word {
            "-name" => Self::Name(Glob::new(operand, false)?),
            "-iname" => Self::Name(Glob::new(operand, true)?),
            "-path" | "-wholename" => Self::Path(Glob::new(operand, false)?),
            "-ipath" | "-iwholename" => Self::Path(Glob::new(operand, true)?),
            "-type" => Self::Kinds(kinds(text)?),
            "-size" => Self::Size(Size::parse(text)?),
            "-mtime" => Self::Days(now, Compare::parse(text)?),
            "-newermt" => Self::Newer(moment(text)?),
            "-user" => Self::User(owner(false)?),
            "-uid" => Self::User(owner(true)?),
            "-group" => Self::Group(owner(false)?),
            "-gid" => Self::Group(owner(true)?),
            "-perm" => Self::Permissions(Permissions::parse(text)?),
            "-empty" => Self::Empty,
            _ => bail!(refusal(word)),
        })
    }

    /// Whether it needs more than names, kinds and sizes of files.
    fn is_of_attributes(&self) -> bool {
        match self {
            Self::Name(_) | Self::Path(_) | Self::Kinds(_) | Self::Size(_) | Self::Empty => false,
            Self::Days(..)
            | Self::Newer(_)
            | Self::User(_)
            | Self::Group(_)
            | Self::Permissions(_) => true,
        }
    }
}

impl Owner {
    fn resolve(&mut self, accounts: &[u8], what: &str, file: &str) -> anyhow::Result<()> {
        if let Self::Name(name) = self {
            let number = account(accounts, name).with_context(|| {
                let name = name.escape_ascii();
                format!("there is no {what} {name} in the image's {file}: use a number")
            })?;
            *self = Self::Number(Compare::Equal(number));
        }
        Ok(())
    }

    fn is(&self, id: u32) -> bool {
        match self {
            Self::Number(number) => number.allow(id.into()),
            Self::Name(_) => false,
        }
    }
}

/// Why a word is not taken.
fn refusal(word: &str) -> String {
    let word_is = |words: &[&str]| words.contains(&word);
    let other = OTHERS.iter().find(|(words, _)| word_is(words));
    let why = other.map_or("no such test; imgfs find --help lists them", |(_, why)| why);
    format!("{word}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> anyhow::Result<Expression> {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        Expression::parse(&words, 1_000_000_000)
    }

    #[test]
    fn faults_name_the_word() {
        #[track_caller]
        fn check(words: &str, expected: &str) {
            let err = parse(words).map(|_| ()).unwrap_err();
            let text = format!("{err:#}");
            assert!(text.contains(expected), "{words}: {text}");
        }
        check(
            "-name a -o -name b",
            "-o: tests are joined by \"and\" alone",
        );
        check("-exec rm", "-print0 with xargs -0");
        check("-delete", "read-only");
        check("-nmae x", "-nmae: no such test");
        check("-name", "-name needs a word after it");
        check("-type x", "-type: unknown type \"x\"");
        check("-size 5x", "-size: unknown unit \"x\"");
        check("-mtime x", "-mtime: \"x\" is not a number");
        check("-perm 999", "-perm 999: write a mode");
        check("-newermt then", "-newermt: \"then\" is no time");
        check("-maxdepth -1", "-maxdepth: \"-1\" is no number of levels");
        check("-name x !", "! must stand before a test");
        check("! -print", "! must stand before a test");
    }

    #[test]
    fn owners_are_names_or_numbers() {
        let mut expression = parse("-user web ! -group 7 -uid +5").unwrap();
        assert!(expression.names_users() && !expression.names_groups());
        let err = expression.resolve_users(b"root:x:0:0").unwrap_err();
        assert!(err.to_string().contains("no user web in the image's"));
        expression.resolve_users(b"web:x:33:33").unwrap();
        assert!(!expression.names_users());
    }
}
