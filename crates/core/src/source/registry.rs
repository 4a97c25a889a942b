//! A repository of a registry, by the distribution protocol. One attempt for each call:
//! [`super::retry`] tries again and resumes.
//!
//! Blobs often lie on another host, behind a redirect with a signed URL that expires: the URL is
//! kept for each blob ([`super::location`]), and resolved again when that host refuses it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LINK};
use reqwest::{Method, Response, StatusCode};

use super::auth::Rights;
use super::error::SourceError;
use super::location::Locations;
use super::options::Options;
use super::pages::Pages;
use super::redact::host_of;
use super::referrers::referrers;
use super::stream::Provenance;
use super::tags::{MAX_PAGE, TAGS_A_PAGE, TagList};
use super::transport::{Answer, Request, Transport, protocol};
use super::{BlobSource, ByteStream, Endpoint, Resolved, Traffic};
use crate::hint::Hint;
use imgfs_formats::oci::{ACCEPT_MANIFESTS, Descriptor, Digest, MAX_MANIFEST_SIZE, MediaType};

/// Ranges of one blob worth fetching at a time: more does not fill a line better and starves other
/// layers.
const PARALLEL_RANGES: usize = 4;

/// One repository.
#[derive(Debug)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    transport: Transport,
    tag: Option<String>,
    digest: Option<Digest>,
    locations: Locations,
    without_ranges: AtomicBool,
}

impl Registry {
    /// A repository, and the tag or digest that is meant. Nothing is sent yet.
    pub fn new(
        endpoint: Endpoint,
        tag: Option<&str>,
        digest: Option<Digest>,
        options: &Options,
    ) -> Result<Self, SourceError> {
        Ok(Self {
            inner: Arc::new(Inner {
                transport: Transport::new(options, endpoint, Rights::Pull)?,
                tag: tag.map(str::to_owned),
                digest,
                locations: Locations::default(),
                without_ranges: AtomicBool::new(false),
            }),
        })
    }
}

#[async_trait::async_trait]
impl BlobSource for Registry {
    async fn resolve(&self, known: Option<&Descriptor>) -> Result<Resolved, SourceError> {
        let inner = &self.inner;
        match (&inner.digest, known) {
            (Some(digest), Some(known)) if known.digest == *digest => {
                return Ok(Resolved {
                    descriptor: known.clone(),
                    body: None,
                });
            }
            (None, Some(known)) if inner.still_is(known).await? => {
                return Ok(Resolved {
                    descriptor: known.clone(),
                    body: None,
                });
            }
            _ => {}
        }
        let name = match &inner.digest {
            Some(digest) => digest.to_string(),
            None => inner.tag.clone().unwrap_or_else(|| "latest".to_owned()),
        };
        let (headers, body) = inner.get_manifest(&name, inner.digest.is_some()).await?;
        let announced = content_digest(&headers);
        let digest = check_digests(&body, inner.digest.or(announced), announced)?;
        Ok(Resolved {
            descriptor: Descriptor {
                media_type: media_type(&headers),
                digest,
                size: body.len() as u64,
                urls: Vec::new(),
                annotations: std::collections::BTreeMap::new(),
                artifact_type: String::new(),
                platform: None,
            },
            body: Some(body),
        })
    }

    async fn open_manifest(&self, descriptor: &Descriptor) -> Result<ByteStream, SourceError> {
        // Read whole, as it is small: so trying again needs no range.
        let name = descriptor.digest.to_string();
        let (_, body) = self.inner.get_manifest(&name, true).await?;
        Ok(ByteStream::of(body))
    }

    async fn open(&self, blob: &Descriptor, range: Range<u64>) -> Result<ByteStream, SourceError> {
        if range.is_empty() {
            return Ok(ByteStream::of(Bytes::new()));
        }
        if range.end > blob.size {
            return Err(SourceError::Size {
                digest: blob.digest,
                expected: range.end,
                found: blob.size,
            });
        }
        self.inner.open_blob(blob, range).await
    }

    fn reject(&self, blob: &Descriptor, _: u64, _: &Provenance) -> bool {
        // Another URL may lead to another server.
        self.inner.locations.forget(&blob.digest);
        true
    }

    async fn tags(&self) -> Result<Vec<String>, SourceError> {
        self.inner.tags().await
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, SourceError> {
        referrers(&self.inner.transport, subject, artifact_type).await
    }

    fn traffic(&self) -> Traffic {
        self.inner.transport.traffic()
    }

    fn describe(&self) -> String {
        let endpoint = self.inner.transport.endpoint();
        format!("{}/{}", endpoint.authority, endpoint.repository)
    }

    fn parallel_ranges(&self) -> usize {
        if self.inner.without_ranges.load(Ordering::Relaxed) {
            1
        } else {
            PARALLEL_RANGES
        }
    }

    fn shortcoming(&self) -> Option<String> {
        let without_ranges = self.inner.without_ranges.load(Ordering::Relaxed);
        without_ranges.then(|| {
            "the server ignores ranges: each fetch transfers the blob from its start".to_owned()
        })
    }
}

impl Inner {
    /// Asks without transfer whether the tag still means `known`. `false` also when the registry
    /// does not say.
    async fn still_is(&self, known: &Descriptor) -> Result<bool, SourceError> {
        let name = self.tag.as_deref().unwrap_or("latest");
        let what = self.named_manifest(name, false);
        let path = format!("manifests/{name}");
        let request = Request {
            method: Method::HEAD,
            path: &path,
            accept: ACCEPT_MANIFESTS,
            range: None,
            payload: None,
            may_downgrade: false,
            what: &what,
        };
        let answer = self.transport.request(&request).await?;
        // Failures are left to the GET that follows: it brings the server's words.
        Ok(answer.response.status() == StatusCode::OK
            && content_digest(answer.response.headers()) == Some(known.digest))
    }

    async fn get_manifest(
        &self,
        name: &str,
        digest_is_known: bool,
    ) -> Result<(HeaderMap, Bytes), SourceError> {
        let what = self.named_manifest(name, digest_is_known);
        let path = format!("manifests/{name}");
        let request = Request {
            method: Method::GET,
            path: &path,
            accept: ACCEPT_MANIFESTS,
            range: None,
            payload: None,
            may_downgrade: digest_is_known,
            what: &what,
        };
        let answer = self.transport.request(&request).await?;
        if answer.response.status() != StatusCode::OK {
            let mut err = self.transport.error(answer, &what).await;
            if let SourceError::NotFound { hint, .. } = &mut err
                && !digest_is_known
            {
                *hint = Hint::CheckName;
            }
            return Err(err);
        }
        let headers = answer.response.headers().clone();
        let http = &self.transport.http;
        let body = http.body(answer.response, &what, MAX_MANIFEST_SIZE).await?;
        Ok((headers, body))
    }

    async fn tags(&self) -> Result<Vec<String>, SourceError> {
        let what = format!("tags of {}", self.repository());
        let (mut list, mut pages) = (TagList::default(), Pages::default());
        let mut query = Some(format!("n={TAGS_A_PAGE}"));
        while let Some(page) = query {
            let path = format!("tags/list?{page}");
            let request = Request {
                method: Method::GET,
                path: &path,
                accept: "application/json",
                range: None,
                payload: None,
                may_downgrade: false,
                what: &what,
            };
            let answer = self.transport.request(&request).await?;
            if answer.response.status() != StatusCode::OK {
                return Err(self.transport.error(answer, &what).await);
            }
            let url = answer.url;
            let link = answer.response.headers().get(LINK).cloned();
            let http = &self.transport.http;
            let body = http.body(answer.response, &what, MAX_PAGE).await?;
            let problem = |problem: String| protocol(&url, &what, &problem);
            list.add(&body).map_err(problem)?;
            let link = link.as_ref().and_then(|link| link.to_str().ok());
            query = pages.next(&url, link).map_err(problem)?;
        }
        Ok(list.finish())
    }

    async fn open_blob(
        self: &Arc<Self>,
        blob: &Descriptor,
        range: Range<u64>,
    ) -> Result<ByteStream, SourceError> {
        let what = format!("blob {}@{}", self.repository(), blob.digest);
        let path = format!("blobs/{}", blob.digest);
        let header = range_header(&range);
        let whole = range == (0..blob.size);
        let request = Request {
            method: Method::GET,
            path: &path,
            accept: "*/*",
            range: (!whole).then_some(&header),
            payload: None,
            may_downgrade: true,
            what: &what,
        };
        let answer = self.find_blob(blob, &request).await?;
        let host = host_of(&answer.url);
        let first = match answer.response.status() {
            StatusCode::OK => {
                if !whole && !self.without_ranges.swap(true, Ordering::Relaxed) {
                    tracing::debug!("{host} ignores ranges");
                }
                check_length(blob, header_number(&answer.response))?;
                0
            }
            StatusCode::PARTIAL_CONTENT if !whole => {
                check_content_range(&answer, blob, &range, &what)?;
                range.start
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let found = content_range(&answer.response).and_then(|(_, total)| total);
                return Err(SourceError::Size {
                    digest: blob.digest,
                    expected: blob.size,
                    found: found.unwrap_or(range.start),
                });
            }
            _ => return Err(self.transport.error(answer, &what).await),
        };
        Ok(body_stream(Body {
            registry: Arc::clone(self),
            response: answer.response,
            host,
            what,
            skip: range.start - first,
            remaining: range.end - range.start,
        }))
    }

    /// Asks where the blob was last time, else the registry.
    async fn find_blob(
        &self,
        blob: &Descriptor,
        request: &Request<'_>,
    ) -> Result<Answer, SourceError> {
        let answer = match self.ask_where_it_was(blob, request).await {
            Some(answer) => answer,
            None => self.transport.request(request).await?,
        };
        if answer.foreign && has_expired(answer.response.status()) {
            let status = answer.response.status().as_u16();
            let http = &self.transport.http;
            return Err(SourceError::StorageRefused {
                host: host_of(&answer.url),
                what: request.what.to_owned(),
                status,
                server: http.server_message(answer.response).await,
            });
        }
        if answer.foreign && answer.response.status().is_success() {
            self.locations.set(blob.digest, answer.url.clone());
        }
        Ok(answer)
    }

    /// Asks the host that the registry redirected to last time. Whatever is wrong there, the
    /// registry may know better by now.
    async fn ask_where_it_was(&self, blob: &Descriptor, request: &Request<'_>) -> Option<Answer> {
        let url = self.locations.get(&blob.digest, SystemTime::now())?;
        let problem = match self.transport.request_foreign(&url, request).await {
            Ok(answer) if answer.response.status().is_success() => return Some(answer),
            Ok(answer) => answer.response.status().to_string(),
            Err(err) => err.to_string(),
        };
        tracing::debug!(
            "{} does not give what it gave before ({problem}): asking {} again",
            host_of(&url),
            self.transport.endpoint().authority
        );
        self.locations.forget(&blob.digest);
        None
    }

    fn repository(&self) -> &str {
        &self.transport.endpoint().repository
    }

    fn named_manifest(&self, name: &str, is_digest: bool) -> String {
        let separator = if is_digest { '@' } else { ':' };
        format!("image {}{separator}{name}", self.repository())
    }
}

/// The answer of a foreign host to a URL whose signature has expired.
fn has_expired(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 401 | 403 | 410)
}

fn range_header(range: &Range<u64>) -> HeaderValue {
    HeaderValue::from_str(&format!(
        "bytes={}-{}",
        range.start,
        range.end.saturating_sub(1)
    ))
    .expect("digits are valid in a header")
}

/// The digest a registry announces; one of an algorithm not known here counts as none.
fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers
        .get("docker-content-digest")?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn media_type(headers: &HeaderMap) -> String {
    let declared = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or(declared).trim();
    // `text/plain` and the like say nothing: then the body decides what it is.
    match MediaType::parse(essence) {
        MediaType::Other(_) => String::new(),
        _ => essence.to_owned(),
    }
}

/// Checks a body against what was asked for and what the registry announced; the digest it is known
/// by.
fn check_digests(
    body: &[u8],
    expected: Option<Digest>,
    announced: Option<Digest>,
) -> Result<Digest, SourceError> {
    for expected in [expected, announced].into_iter().flatten() {
        let found = Digest::of(expected.algorithm(), body);
        if found != expected {
            return Err(SourceError::Digest {
                expected: Box::new(expected),
                found: Box::new(found),
            });
        }
    }
    Ok(expected.unwrap_or_else(|| Digest::sha256(body)))
}

fn header_number(response: &Response) -> Option<u64> {
    response
        .headers()
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn check_length(blob: &Descriptor, length: Option<u64>) -> Result<(), SourceError> {
    match length {
        Some(found) if found != blob.size => Err(SourceError::Size {
            digest: blob.digest,
            expected: blob.size,
            found,
        }),
        _ => Ok(()),
    }
}

/// `bytes a-b/total` or `bytes */total`: the range as half open, and the total.
fn content_range(response: &Response) -> Option<(Option<Range<u64>>, Option<u64>)> {
    parse_content_range(response.headers().get(CONTENT_RANGE)?.to_str().ok()?)
}

fn parse_content_range(value: &str) -> Option<(Option<Range<u64>>, Option<u64>)> {
    let value = value.trim();
    let unit = value.get(..5)?;
    let rest = value.get(5..)?.trim_start();
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (range, total) = rest.split_once('/')?;
    let total = match total.trim() {
        "*" => None,
        number => Some(number.parse().ok()?),
    };
    let range = match range.trim() {
        "*" => None,
        range => {
            let (first, last) = range.split_once('-')?;
            let first: u64 = first.parse().ok()?;
            let last: u64 = last.parse().ok()?;
            Some(first..last.checked_add(1).filter(|end| *end > first)?)
        }
    };
    Some((range, total))
}

/// A 206 must begin where it was asked to and be of a blob of the right size; it may be shorter.
fn check_content_range(
    answer: &Answer,
    blob: &Descriptor,
    asked: &Range<u64>,
    what: &str,
) -> Result<(), SourceError> {
    let Some((Some(got), total)) = content_range(&answer.response) else {
        let problem = "a partial answer without a usable Content-Range";
        return Err(protocol(&answer.url, what, problem));
    };
    check_length(blob, total)?;
    if got.start != asked.start || got.end > blob.size {
        let problem = format!(
            "asked for bytes {}-{}, got {}-{}",
            asked.start, asked.end, got.start, got.end
        );
        return Err(protocol(&answer.url, what, &problem));
    }
    Ok(())
}

/// A body being read.
struct Body {
    registry: Arc<Inner>,
    response: Response,
    host: String,
    what: String,
    /// Bytes before the range, when the server ignored it.
    skip: u64,
    remaining: u64,
}

fn body_stream(body: Body) -> ByteStream {
    ByteStream::new(stream::try_unfold(body, |mut body| async move {
        while body.remaining > 0 {
            let http = &body.registry.transport.http;
            let piece = http
                .chunk(&mut body.response, &body.host, &body.what)
                .await?;
            let Some(mut piece) = piece else {
                return Err(SourceError::Broken {
                    host: body.host,
                    what: body.what,
                    cause: format!("{} bytes are missing", body.remaining),
                });
            };
            let skipped = piece.len().min(clamp(body.skip));
            drop(piece.split_to(skipped));
            body.skip -= skipped as u64;
            piece.truncate(clamp(body.remaining));
            body.remaining -= piece.len() as u64;
            if !piece.is_empty() {
                return Ok(Some((piece, body)));
            }
        }
        Ok(None)
    }))
}

/// As a length in memory: more than `usize::MAX` bytes are never in one piece.
fn clamp(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        let check = |value: &str, expected: Option<(Option<Range<u64>>, Option<u64>)>| {
            assert_eq!(parse_content_range(value), expected, "{value}");
        };
        check("bytes 0-0/1", Some((Some(0..1), Some(1))));
        check("Bytes 5-9/*", Some((Some(5..10), None)));
        check("bytes */10", Some((None, Some(10))));
        check("bytes 9-5/10", None);
        check("bytes 0-18446744073709551615/*", None);
        check("items 0-1/2", None);
        check("bytes", None);
        check("", None);
        check("byte\u{e9}s 1-2/3", None);
    }
}
