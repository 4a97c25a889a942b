//! Lists that come in pages: where the next one is.
//!
//! A registry names the next page by a `Link` header (RFC 8288). Only the link's query is used, on
//! the path that the list has anyway, and only if it names this registry or no host at all; so no
//! answer can lead elsewhere.

use std::collections::BTreeSet;

use url::Url;

/// Most pages of one list: protects from a list that never ends.
const MAX_PAGES: usize = 1000;

/// The pages of one list so far.
#[derive(Debug, Default)]
pub(super) struct Pages {
    queries: BTreeSet<String>,
}

impl Pages {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_the_next_page() {
        let check = |link: &str, expected: Result<Option<&str>, &str>| {
            let url: Url = "https://r.example:5000/v2/a/tags/list?n=1000"
                .parse()
                .unwrap();
            let found = Pages::default().next(&url, Some(link));
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
        // Behind a proxy registries do not know their own scheme and port; the query is what
        // matters.
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
        let mut pages = Pages::default();
        let again = Some("<?last=b>; rel=next");
        assert_eq!(pages.next(&url, again), Ok(Some("last=b".to_owned())));
        assert!(pages.next(&url, again).unwrap_err().contains("circle"));
        let mut pages = Pages::default();
        let failed = (0..=MAX_PAGES).find_map(|page| {
            pages
                .next(&url, Some(&format!("<?last={page}>; rel=next")))
                .err()
        });
        assert!(failed.unwrap().contains("pages"));
    }
}
