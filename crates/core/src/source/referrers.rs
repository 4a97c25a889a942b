//! The manifests that belong to another one: the referrers API, and the tag that stands in for it
//! (distribution spec, "Listing Referrers").
//!
//! ```text
//! GET referrers/<digest>?artifactType=..     200: the list, in pages; 404 and the like: not known here
//! GET manifests/sha256-<hex>                 200: a list that clients keep; 404: nothing
//! ```
//!
//! Both are asked at the same time, as a mount waits for the answer, and few registries tell before
//! which they have. The entries of both are filtered again here: the filter in the query is only a
//! wish.

use std::pin::pin;

use bytes::Bytes;
use futures_util::future::{Either, select};
use reqwest::header::LINK;
use reqwest::{Method, StatusCode};
use url::form_urlencoded;

use super::error::SourceError;
use super::pages::Pages;
use super::transport::{Answer, Request, Transport, protocol};
use imgfs_formats::oci::{
    ACCEPT_MANIFESTS, Descriptor, Digest, Document, ImageIndex, MAX_MANIFEST_SIZE, MediaType,
};

/// Most entries of one list that are looked at; protects memory and time.
const MAX_LISTED: usize = 10_000;
/// Most entries of the wanted type that are kept: nobody wants to choose between more.
const MAX_REFERRERS: usize = 64;

/// The media type of a list.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The manifests of this type that say of themselves that they belong to `subject`.
pub(super) async fn referrers(
    transport: &Transport,
    subject: &Digest,
    artifact_type: &str,
) -> Result<Vec<Descriptor>, SourceError> {
    let api = pin!(from_api(transport, subject, artifact_type));
    let tag = pin!(from_tag(transport, subject, artifact_type));
    let (api, tag) = match select(api, tag).await {
        Either::Left((Ok(Some(found)), _)) if !found.is_empty() => return Ok(found),
        Either::Left((api, tag)) => (api, tag.await),
        Either::Right((tag, api)) => (api.await, tag),
    };
    match (api, tag) {
        (Ok(Some(found)), _) if !found.is_empty() => Ok(found),
        // Before the registry learned the API somebody may have kept the tag.
        (Ok(Some(none)), tag) => Ok(tag.unwrap_or(none)),
        (Ok(None), tag) => tag,
        (Err(err), Ok(found)) if found.is_empty() && err.is_transient() => Err(err),
        (Err(_), Ok(found)) => Ok(found),
        (Err(err), Err(_)) => Err(err),
    }
}

/// The list by the API; `None` where the registry does not have that.
async fn from_api(
    transport: &Transport,
    subject: &Digest,
    artifact_type: &str,
) -> Result<Option<Vec<Descriptor>>, SourceError> {
    let what = what(transport, subject);
    let filter: String = form_urlencoded::byte_serialize(artifact_type.as_bytes()).collect();
    let mut query = Some(format!("artifactType={filter}"));
    let (mut list, mut pages) = (List::new(artifact_type), Pages::default());
    while let Some(page) = query {
        let path = format!("referrers/{subject}?{page}");
        let answer = transport.request(&request(&path, INDEX, &what)).await?;
        match answer.response.status() {
            StatusCode::OK => {}
            // What registries say to a path that they do not know.
            StatusCode::NOT_FOUND
            | StatusCode::BAD_REQUEST
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => return Ok(None),
            _ => return Err(transport.error(answer, &what).await),
        }
        let link = answer.response.headers().get(LINK).cloned();
        let url = answer.url.clone();
        let body = body(transport, answer, &what).await?;
        // A page for browsers, or an object store's answer to any path.
        let Some(index) = parse_list(&body) else {
            return Ok(None);
        };
        let problem = |problem: String| protocol(&url, &what, &problem);
        list.add(index).map_err(problem)?;
        let link = link.as_ref().and_then(|link| link.to_str().ok());
        query = pages.next(&url, link).map_err(problem)?;
    }
    Ok(Some(list.wanted))
}

/// The list that clients keep under a tag; nothing where there is none.
async fn from_tag(
    transport: &Transport,
    subject: &Digest,
    artifact_type: &str,
) -> Result<Vec<Descriptor>, SourceError> {
    let what = what(transport, subject);
    let Some(body) = get_tag(transport, subject, &what).await? else {
        return Ok(Vec::new());
    };
    let Some(index) = parse_list(&body) else {
        tracing::debug!("{what}: the tag {} is no list", subject.tag());
        return Ok(Vec::new());
    };
    let mut list = List::new(artifact_type);
    // Too long a list is as good as none: nobody is obliged to keep one.
    if let Err(problem) = list.add(index) {
        tracing::debug!("{what}: {problem}");
    }
    Ok(list.wanted)
}

/// The bytes under the tag that stands in for the API, if there are any.
pub(super) async fn get_tag(
    transport: &Transport,
    subject: &Digest,
    what: &str,
) -> Result<Option<Bytes>, SourceError> {
    let path = format!("manifests/{}", subject.tag());
    let answer = transport
        .request(&request(&path, ACCEPT_MANIFESTS, what))
        .await?;
    match answer.response.status() {
        StatusCode::OK => Ok(Some(body(transport, answer, what).await?)),
        StatusCode::NOT_FOUND => Ok(None),
        _ => Err(transport.error(answer, what).await),
    }
}

/// A body as a list of referrers, if it is one.
pub(super) fn parse_list(body: &[u8]) -> Option<ImageIndex> {
    match Document::parse(body, None) {
        Ok(Document::Index(index)) => Some(index),
        Ok(Document::Manifest(_)) | Err(_) => None,
    }
}

/// The entries of the wanted type, while pages come in.
struct List<'a> {
    artifact_type: &'a str,
    listed: usize,
    wanted: Vec<Descriptor>,
}

impl<'a> List<'a> {
    fn new(artifact_type: &'a str) -> Self {
        Self {
            artifact_type,
            listed: 0,
            wanted: Vec::new(),
        }
    }

    fn add(&mut self, index: ImageIndex) -> Result<(), String> {
        self.listed += index.manifests.len();
        if self.listed > MAX_LISTED {
            return Err(format!("more than {MAX_LISTED} entries"));
        }
        for entry in index.manifests {
            if is_wanted(&entry, self.artifact_type)
                && self.wanted.len() < MAX_REFERRERS
                && self.wanted.iter().all(|known| known.digest != entry.digest)
            {
                self.wanted.push(entry);
            }
        }
        Ok(())
    }
}

/// Whether an entry is a manifest of this type, and no larger than manifests are.
fn is_wanted(entry: &Descriptor, artifact_type: &str) -> bool {
    entry.artifact_type == artifact_type
        && entry.kind() == MediaType::Manifest
        && entry.size <= MAX_MANIFEST_SIZE
}

fn request<'a>(path: &'a str, accept: &'static str, what: &'a str) -> Request<'a> {
    Request {
        method: Method::GET,
        path,
        accept,
        range: None,
        payload: None,
        may_downgrade: false,
        what,
    }
}

async fn body(transport: &Transport, answer: Answer, what: &str) -> Result<Bytes, SourceError> {
    let http = &transport.http;
    http.body(answer.response, what, MAX_MANIFEST_SIZE).await
}

fn what(transport: &Transport, subject: &Digest) -> String {
    let repository = &transport.endpoint().repository;
    format!("what belongs to {repository}@{subject}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &str) -> ImageIndex {
        let body =
            format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{entries}]}}"#);
        parse_list(body.as_bytes()).unwrap()
    }

    fn entry(number: usize, artifact_type: &str, size: u64) -> String {
        let digest = Digest::sha256(&number.to_le_bytes());
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size},"artifactType":"{artifact_type}"}}"#
        )
    }

    #[test]
    fn lists_are_filtered_and_bounded() {
        let mut found = List::new("a/b");
        let entries = [
            entry(1, "a/b", 10),
            entry(2, "a/c", 10),
            entry(3, "", 10),
            entry(4, "a/b", MAX_MANIFEST_SIZE + 1),
            entry(1, "a/b", 10),
        ];
        found.add(list(&entries.join(","))).unwrap();
        assert_eq!(found.wanted.len(), 1);
        let many: Vec<String> = (10..110).map(|n| entry(n, "a/b", 1)).collect();
        found.add(list(&many.join(","))).unwrap();
        assert_eq!(found.wanted.len(), MAX_REFERRERS);
        let too_many: Vec<String> = (0..MAX_LISTED).map(|n| entry(n, "x/y", 1)).collect();
        assert!(found.add(list(&too_many.join(","))).is_err());
    }

    #[test]
    fn what_is_no_list_counts_as_none() {
        for body in [
            "",
            "<html>",
            "[]",
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:x"}]}"#,
        ] {
            assert!(parse_list(body.as_bytes()).is_none(), "{body}");
        }
    }
}
