//! The pages of a repository's list of tags, and how one is read.

use std::collections::BTreeSet;

use serde::Deserialize;

/// Tags asked for at a time; registries give fewer if they like.
pub(super) const TAGS_A_PAGE: usize = 1000;
/// Most tags of one list; the longest known ones have some ten thousand. Protects memory.
const MAX_TAGS: usize = 100_000;
/// Longest tag (distribution spec).
const MAX_TAG: usize = 128;
/// Most bytes of one page.
pub(super) const MAX_PAGE: u64 = 4 << 20;

/// A list while its pages come in.
#[derive(Debug, Default)]
pub(super) struct TagList {
    tags: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Page {
    /// Some registries write `null` for none.
    tags: Option<Vec<String>>,
}

impl TagList {
    /// Takes in a page; what is wrong with it otherwise.
    pub(super) fn add(&mut self, body: &[u8]) -> Result<(), String> {
        let page: Page = serde_json::from_slice(body)
            .map_err(|cause| format!("the list is not valid: {cause}"))?;
        for tag in page.tags.unwrap_or_default() {
            if !is_tag(&tag) {
                return Err(format!("{tag:?} in the list is no tag"));
            }
            self.tags.insert(tag);
        }
        if self.tags.len() > MAX_TAGS {
            return Err(format!("more than {MAX_TAGS} tags"));
        }
        Ok(())
    }

    /// All of them, sorted.
    pub(super) fn finish(self) -> Vec<String> {
        self.tags.into_iter().collect()
    }
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(is_word)
        && (text.bytes()).all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_tags_and_nothing_else() {
        let check = |body: &str, expected: Result<&[&str], &str>| {
            let mut list = TagList::default();
            match (list.add(body.as_bytes()), expected) {
                (Ok(()), Ok(expected)) => assert_eq!(list.finish(), expected, "{body}"),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{body}: {found}"),
                (found, _) => panic!("{body}: {found:?}"),
            }
        };
        check(
            r#"{"name":"a","tags":["b","1.0-x_y","b"]}"#,
            Ok(&["1.0-x_y", "b"]),
        );
        check(r#"{"tags":null}"#, Ok(&[]));
        check("{}", Ok(&[]));
        check(r#"{"tags":["a/../b"]}"#, Err("no tag"));
        check(r#"{"tags":["-x"]}"#, Err("no tag"));
        check(r#"{"tags":[""]}"#, Err("no tag"));
        check("<html>", Err("not valid"));
        check(
            &format!(r#"{{"tags":["{}"]}}"#, "a".repeat(129)),
            Err("no tag"),
        );
    }
}
