//! The pages of a repository's list of tags: what a page says, and where the next one is.
//!
//! A registry names the next page by a `Link` header (RFC 8288). Only the link's query is used, on the path that the
//! list has anyway, and only if it names this registry or no host at all; so no answer can lead elsewhere.

use std::collections::BTreeSet;

use serde::Deserialize;
use url::Url;

/// Tags asked for at a time; registries give fewer if they like.
pub(super) const TAGS_A_PAGE: usize = 1000;
/// Most pages of one list: protects from a list that never ends.
const MAX_PAGES: usize = 1000;
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
    queries: BTreeSet<String>,
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

    /// The query of the page after the one that came from `url`, if `link` (the header) names one.
    pub(super) fn next(&mut self, url: &Url, link: Option<&str>) -> Result<Option<String>, String> {
        let Some(target) = link.and_then(next_link) else {
            return Ok(None);
        };
        let next = url
            .join(target)
            .map_err(|cause| format!("the link to the next page is no URL: {cause}"))?;
        if next.host_str() != url.host_str() {
            return Err("the link to the next page leads to another host".to_owned());
        }
        let query = next.query().unwrap_or_default().to_owned();
        if !self.queries.insert(query.clone()) {
            return Err("the pages of the list go round in a circle".to_owned());
        }
        if self.queries.len() >= MAX_PAGES {
            return Err(format!("more than {MAX_PAGES} pages"));
        }
        Ok(Some(query))
    }

    /// All of them, sorted.
    pub(super) fn finish(self) -> Vec<String> {
        self.tags.into_iter().collect()
    }
}

/// The target of the link with `rel="next"` in a `Link` header.
fn next_link(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, after) = after.split_once('>')?;
        // Up to the next link; a `<` inside a quoted parameter would be a strange name.
        let parameters = after.split('<').next().unwrap_or_default();
        let is_next = parameters.split([';', ',']).any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
            name.trim().eq_ignore_ascii_case("rel")
                && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
        });
        if is_next {
            return Some(target.trim());
        }
        rest = after;
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
    fn links_to_the_next_page() {
        let check = |link: &str, expected: Result<Option<&str>, &str>| {
            let url: Url = "https://r.example:5000/v2/a/tags/list?n=1000"
                .parse()
                .unwrap();
            let found = TagList::default().next(&url, Some(link));
            match (&found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.as_deref(), expected, "{link}"),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{link}: {found}"),
                _ => panic!("{link}: {found:?}"),
            }
        };
        let next = Ok(Some("last=b&n=2"));
        check("</v2/a/tags/list?last=b&n=2>; rel=\"next\"", next);
        check("</v2/a/tags/list?last=b&n=2>;rel=next", next);
        check("<?last=b&n=2>; title=\"x\"; REL=\"last NEXT\"", next);
        check(
            "<https://r.example:5000/v2/a/tags/list?last=b&n=2>; rel=\"next\"",
            next,
        );
        // Behind a proxy registries do not know their own scheme and port; the query is what matters.
        check(
            "<http://r.example/v2/a/tags/list?last=b&n=2>; rel=\"next\"",
            next,
        );
        check("</x>; rel=\"prev\", <?last=b&n=2>; rel=\"next\"", next);
        check("</v2/a/tags/list?last=b>; rel=\"prev\"", Ok(None));
        check("</v2/a/tags/list", Ok(None));
        check("", Ok(None));
        check(
            "<https://evil.example/v2/a/tags/list?n=1>; rel=next",
            Err("another host"),
        );
        check("<http://[>; rel=next", Err("no URL"));
    }

    #[test]
    fn a_list_cannot_go_on_for_ever() {
        let url: Url = "http://r/v2/a/tags/list".parse().unwrap();
        let mut list = TagList::default();
        let again = Some("<?last=b>; rel=next");
        assert_eq!(list.next(&url, again), Ok(Some("last=b".to_owned())));
        assert!(list.next(&url, again).unwrap_err().contains("circle"));
        let mut list = TagList::default();
        let failed = (0..=MAX_PAGES).find_map(|page| {
            list.next(&url, Some(&format!("<?last={page}>; rel=next")))
                .err()
        });
        assert!(failed.unwrap().contains("pages"));
    }

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
