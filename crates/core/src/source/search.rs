//! Searching a registry for repositories, where it has an API for that.
//!
//! ```text
//! Docker's, version 1    GET https://HOST/v1/search?q=TERM&n=COUNT&page=NUMBER; Docker Hub's HOST is index.docker.io
//! Quay's                 GET https://HOST/api/v1/find/repositories?query=TERM&page=NUMBER
//! ```
//!
//! quay.io is asked in its own way, every other host in Docker's and, where that is not known (404
//! and the like), in Quay's, as there are other installations of it. Neither is in a specification;
//! the fields read here are those that `docker search` and the web page of Quay read.

use std::collections::BTreeSet;

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use url::form_urlencoded;

use super::auth::Rights;
use super::error::SourceError;
use super::login::own_endpoint;
use super::options::Options;
use super::retry::Failures;
use super::transport::{Request, Transport};
use imgfs_formats::oci::DEFAULT_REGISTRY;

/// Most results of one search: as many as Docker allows.
pub const MAX_SEARCH_RESULTS: usize = 100;
/// Docker Hub's host for searches.
const DOCKER_HUB_SEARCH: &str = "index.docker.io";
/// The host that speaks Quay's API first.
const QUAY: &str = "quay.io";
/// Most bytes of one page: a hundred results with long descriptions have some hundred KiB.
const MAX_PAGE: u64 = 4 << 20;
/// Most pages of one search: Quay gives 10 results a page.
const MAX_PAGES: usize = 20;
/// Longest name, in bytes: host and repository have at most 255 each.
const MAX_NAME: usize = 512;
/// Longest description, in characters; Quay's are whole README files.
const MAX_DESCRIPTION: usize = 1000;

/// A repository that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRepository {
    /// Without the host, as the registry has it: no reference, as Docker Hub leaves `library/` out.
    pub name: String,
    /// One line; empty if there is none.
    pub description: String,
    /// How many people like it.
    pub stars: u64,
    /// Whether Docker's own people see to it.
    pub is_official: bool,
    /// Whether Docker Hub builds it, which it has not said of any for years.
    pub is_automated: bool,
}

/// The repositories of the registry `host` that `term` finds, at most `limit`, as the registry
/// sorts them.
pub async fn search(
    host: &str,
    term: &str,
    limit: usize,
    options: &Options,
) -> Result<Vec<FoundRepository>, SourceError> {
    let limit = limit.min(MAX_SEARCH_RESULTS);
    let apis = match host {
        QUAY => &[Api::Quay][..],
        DEFAULT_REGISTRY => &[Api::Docker],
        _ => &[Api::Docker, Api::Quay],
    };
    for api in apis {
        if let Some(found) = search_by(*api, host, term, limit, options).await? {
            return Ok(found);
        }
    }
    Err(SourceError::NoSearch {
        host: host.to_owned(),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    Docker,
    Quay,
}

/// `None` if the host does not know the API.
async fn search_by(
    api: Api,
    host: &str,
    term: &str,
    limit: usize,
    options: &Options,
) -> Result<Option<Vec<FoundRepository>>, SourceError> {
    let mut endpoint = own_endpoint(host, options).await?;
    if host == DEFAULT_REGISTRY {
        DOCKER_HUB_SEARCH.clone_into(&mut endpoint.authority);
    }
    endpoint.api_path = String::new();
    endpoint.namespace = None;
    let transport = Transport::new(options, endpoint, Rights::Pull)?;
    let mut found: Vec<FoundRepository> = Vec::new();
    let mut names = BTreeSet::new();
    for number in 1..=MAX_PAGES {
        let path = api.path(term, limit, number);
        let mut failures = Failures::new(options.retry, options.timeouts.give_up);
        let body = loop {
            match page(&transport, &path).await {
                Ok(Some(body)) => break body,
                Ok(None) => return Ok(None),
                Err(err) => failures.pause(err).await?,
            }
        };
        let page = match api.parse(&body, number) {
            Ok(page) => page,
            // Web servers answer anything with a page for browsers.
            Err(_) if number == 1 && !looks_like_json(&body) => return Ok(None),
            Err(problem) => {
                return Err(SourceError::Protocol {
                    host: host.to_owned(),
                    what: WHAT.to_owned(),
                    problem,
                });
            }
        };
        let before = found.len();
        for repository in page.repositories {
            if found.len() < limit && names.insert(repository.name.clone()) {
                found.push(repository);
            }
        }
        // A server that does not know pages gives the first one again and again.
        if found.len() >= limit || !page.has_more || found.len() == before {
            break;
        }
    }
    Ok(Some(found))
}

const WHAT: &str = "the search";

/// One page; `None` where nothing of the kind is there.
async fn page(transport: &Transport, path: &str) -> Result<Option<Bytes>, SourceError> {
    let request = Request {
        method: Method::GET,
        path,
        accept: "application/json",
        range: None,
        payload: None,
        may_downgrade: false,
        what: WHAT,
    };
    let answer = transport.request(&request).await?;
    match answer.response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::GONE
        | StatusCode::NOT_IMPLEMENTED => return Ok(None),
        _ => return Err(transport.error(answer, WHAT).await),
    }
    let body = transport.http.body(answer.response, WHAT, MAX_PAGE).await?;
    Ok(Some(body))
}

fn looks_like_json(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"{")
}

/// What a page says.
#[derive(Debug)]
struct Page {
    repositories: Vec<FoundRepository>,
    has_more: bool,
}

impl Api {
    fn path(self, term: &str, limit: usize, page: usize) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        match self {
            Self::Docker => {
                query.append_pair("q", term);
                query.append_pair("n", &limit.to_string());
            }
            Self::Quay => {
                query.append_pair("query", term);
            }
        }
        if page > 1 {
            query.append_pair("page", &page.to_string());
        }
        let query = query.finish();
        match self {
            Self::Docker => format!("v1/search?{query}"),
            Self::Quay => format!("api/v1/find/repositories?{query}"),
        }
    }

    fn parse(self, body: &[u8], number: usize) -> Result<Page, String> {
        let invalid = |cause: serde_json::Error| format!("the results are not valid: {cause}");
        match self {
            Self::Docker => {
                let page: DockerPage = serde_json::from_slice(body).map_err(invalid)?;
                let repositories = page.results.into_iter().filter_map(DockerResult::read);
                Ok(Page {
                    repositories: repositories.collect(),
                    has_more: page.num_pages.is_some_and(|count| number < count),
                })
            }
            Self::Quay => {
                let page: QuayPage = serde_json::from_slice(body).map_err(invalid)?;
                let repositories = page.results.into_iter().filter_map(QuayResult::read);
                Ok(Page {
                    repositories: repositories.collect(),
                    has_more: page.has_additional.unwrap_or_default(),
                })
            }
        }
    }
}

#[derive(Deserialize)]
struct DockerPage {
    results: Vec<DockerResult>,
    num_pages: Option<usize>,
}

#[derive(Deserialize)]
struct DockerResult {
    name: String,
    description: Option<String>,
    star_count: Option<i64>,
    is_official: Option<bool>,
    is_automated: Option<bool>,
}

#[derive(Deserialize)]
struct QuayPage {
    results: Vec<QuayResult>,
    has_additional: Option<bool>,
}

#[derive(Deserialize)]
struct QuayResult {
    name: String,
    namespace: Option<QuayNamespace>,
    description: Option<String>,
    stars: Option<i64>,
}

#[derive(Deserialize)]
struct QuayNamespace {
    name: String,
}

impl DockerResult {
    fn read(self) -> Option<FoundRepository> {
        let found = found(self.name, self.description.as_deref(), self.star_count)?;
        Some(FoundRepository {
            is_official: self.is_official.unwrap_or_default(),
            is_automated: self.is_automated.unwrap_or_default(),
            ..found
        })
    }
}

impl QuayResult {
    fn read(self) -> Option<FoundRepository> {
        let name = match self.namespace {
            Some(namespace) => format!("{}/{}", namespace.name, self.name),
            None => self.name,
        };
        found(name, self.description.as_deref(), self.stars)
    }
}

/// `None` for what is no repository's name: it could not be used anyway.
fn found(name: String, description: Option<&str>, stars: Option<i64>) -> Option<FoundRepository> {
    let is_name = !name.is_empty()
        && name.len() <= MAX_NAME
        && name.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-' | b':')
        });
    if !is_name {
        tracing::debug!("a result of the search is no repository: {name:?}");
        return None;
    }
    let words: Vec<&str> = (description.unwrap_or_default())
        .split_whitespace()
        .collect();
    let description = words.join(" ").chars().take(MAX_DESCRIPTION).collect();
    Some(FoundRepository {
        name,
        description,
        // Quay has had -1 for unknown.
        stars: stars
            .and_then(|stars| u64::try_from(stars).ok())
            .unwrap_or(0),
        is_official: false,
        is_automated: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, description and stars of each result, and whether there are more.
    type Expected<'a> = (&'a [(&'a str, &'a str, u64)], bool);

    #[test]
    fn results_are_read_in_both_forms() {
        let check = |api: Api, body: &str, expected: Result<Expected, &str>| match (
            api.parse(body.as_bytes(), 1),
            expected,
        ) {
            (Ok(page), Ok((expected, has_more))) => {
                let found: Vec<_> = (page.repositories.iter())
                    .map(|one| (one.name.as_str(), one.description.as_str(), one.stars))
                    .collect();
                assert_eq!((&found[..], page.has_more), (expected, has_more), "{body}");
            }
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, _) => panic!("{body}: {found:?}"),
        };
        check(
            Api::Docker,
            r#"{"num_pages":2,"num_results":30,"results":[
                {"name":"golang","description":"Go\n is  a\tlanguage","star_count":5,"is_official":true,
                 "is_automated":false,"is_trusted":false},
                {"name":"a/b","description":null},
                {"name":"no name","description":""}, {"name":"","star_count":1}],
              "page_size":25,"query":"go","page":1}"#,
            Ok((&[("golang", "Go is a language", 5), ("a/b", "", 0)], true)),
        );
        check(
            Api::Docker,
            r#"{"results":[],"num_pages":1}"#,
            Ok((&[], false)),
        );
        check(Api::Docker, r#"{"results":null}"#, Err("not valid"));
        check(
            Api::Quay,
            r##"{"results":[{"kind":"repository","title":"Repo","name":"etcd","description":"# etcd","is_public":true,
                "namespace":{"title":"Org","kind":"organization","name":"coreos","avatar":{"hash":"x"}},"score":7.5,
                "stars":-1,"href":"/repository/coreos/etcd"}],
              "has_additional":true,"page":1,"page_size":10,"start_index":0}"##,
            Ok((&[("coreos/etcd", "# etcd", 0)], true)),
        );
        check(Api::Quay, "<html>", Err("not valid"));
        let long = format!(
            r#"{{"results":[{{"name":"a","description":"{}"}},{{"name":"{}"}}]}}"#,
            "x".repeat(5000),
            "a".repeat(600)
        );
        check(
            Api::Docker,
            &long,
            Ok((&[("a", &"x".repeat(MAX_DESCRIPTION), 0)], false)),
        );
    }

    #[test]
    fn terms_are_escaped() {
        let path = Api::Docker.path("a b&n=1/\u{fc}", 25, 1);
        assert_eq!(path, "v1/search?q=a+b%26n%3D1%2F%C3%BC&n=25");
        let path = Api::Quay.path("a", 25, 3);
        assert_eq!(path, "api/v1/find/repositories?query=a&page=3");
    }
}
