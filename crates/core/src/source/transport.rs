//! Requests to one registry: its scheme, its authentication, and redirects away from it.
//!
//! ```text
//! request -> 401            answer the challenge, ask again once
//!         -> 30x            follow by hand; Authorization only while scheme, host and port are the registry's
//!         -> anything else  the answer
//! ```
//!
//! Registries on this machine, and those reached with `insecure`, are tried with https first and
//! with http when TLS is not spoken there, as containerd and docker do. That costs one more
//! connection on the first request of a process; http first would cost the same against a TLS
//! server and could send a password in the clear.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue,
    LOCATION, RANGE, WWW_AUTHENTICATE,
};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use super::auth::{Access, Authenticator, Rights};
use super::challenge::parse_challenges;
use super::endpoint::{Endpoint, Scheme};
use super::error::SourceError;
use super::failure::SendError;
use super::http::{Http, Payload};
use super::options::Options;
use super::redact::host_of;
use super::traffic::Traffic;

/// Redirects followed for one request, as Go's client does.
const MAX_REDIRECTS: usize = 10;

/// One registry.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) http: Http,
    auth: Arc<Authenticator>,
    endpoint: Endpoint,
    /// The endpoint's headers, marked as sensitive.
    headers: HeaderMap,
    /// Whether http is spoken: the host answered that way, or is to be asked that way.
    plain: AtomicBool,
    /// Whether TLS was spoken once: then what looks like none is only a broken connection.
    has_tls: AtomicBool,
}

/// One request, relative to the repository's URL.
#[derive(Debug, Clone)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) accept: &'static str,
    pub(super) range: Option<&'a HeaderValue>,
    /// What is sent along.
    pub(super) payload: Option<Payload>,
    /// Whether a redirect may lead from https to http: only for content whose digest is known.
    pub(super) may_downgrade: bool,
    /// For errors.
    pub(super) what: &'a str,
}

/// An answer and where it came from in the end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) url: Url,
    /// Whether that is another origin than the registry.
    pub(super) foreign: bool,
}

impl Transport {
    pub(super) fn new(
        options: &Options,
        endpoint: Endpoint,
        rights: Rights,
    ) -> Result<Self, SourceError> {
        let url = registry_url("https", &endpoint, "")?;
        let name = url.host_str().unwrap_or_default();
        Ok(Self {
            http: Http::new(
                options.network.clients(),
                options.timeouts,
                name,
                &endpoint,
                options.names_proxy,
            ),
            auth: options.network.authenticator(Access {
                api: format!("{}{}", endpoint.authority, endpoint.api_path),
                tls: endpoint.tls.clone(),
                scheme: endpoint.scheme,
                repository: endpoint.repository.clone(),
                rights,
                lookup: endpoint.credentials.clone(),
                credentials: options.credentials.clone(),
                token_floor: options.timeouts.token_floor,
            }),
            headers: endpoint_headers(&endpoint)?,
            plain: AtomicBool::new(endpoint.scheme == Scheme::Http),
            has_tls: AtomicBool::new(false),
            endpoint,
        })
    }

    /// Whether the registry wanted to know who asks.
    pub(super) fn has_authenticated(&self) -> bool {
        self.auth.has_authenticated()
    }

    /// Where it sends its requests.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn traffic(&self) -> Traffic {
        self.http.traffic()
    }

    /// Sends a request to the registry, authenticates if asked to, and follows redirects.
    pub(super) async fn request(&self, request: &Request<'_>) -> Result<Answer, SourceError> {
        let base = self.base(request.path, self.plain.load(Ordering::Relaxed))?;
        self.exchange(base.clone(), base, request).await
    }

    /// Likewise to a place that the registry named in an answer: with credentials only if it is the
    /// registry's own.
    pub(super) async fn request_at(
        &self,
        place: &Url,
        request: &Request<'_>,
    ) -> Result<Answer, SourceError> {
        let base = self.base("", self.plain.load(Ordering::Relaxed))?;
        self.exchange(place.clone(), base, request).await
    }

    /// `base` is the registry, `url` where the request goes first.
    async fn exchange(
        &self,
        mut url: Url,
        mut base: Url,
        request: &Request<'_>,
    ) -> Result<Answer, SourceError> {
        let mut redirects = 0;
        let mut challenged = false;
        loop {
            let foreign = url.origin() != base.origin();
            let authorization = if foreign {
                None
            } else {
                self.auth.header(&self.http).await?
            };
            let mut headers = headers(request, authorization.as_ref());
            if !foreign {
                headers.extend(self.headers.clone());
            }
            let sent = self
                .http
                .send(
                    request.method.clone(),
                    &url,
                    headers,
                    request.payload.as_ref(),
                    request.what,
                )
                .await;
            let response = match sent {
                Ok(response) => {
                    if !foreign {
                        self.note_scheme(&url);
                    }
                    response
                }
                Err(SendError {
                    not_tls: true,
                    error,
                }) if !foreign && url.scheme() == "https" => {
                    if self.has_tls.load(Ordering::Relaxed) {
                        return Err(error.passing());
                    }
                    if self.endpoint.scheme != Scheme::HttpsOrHttp {
                        return Err(error);
                    }
                    tracing::debug!(
                        "{} does not speak TLS: trying http",
                        self.endpoint.authority
                    );
                    base = self.base(request.path, true)?;
                    url = base.clone();
                    continue;
                }
                Err(SendError { error, .. }) => return Err(error),
            };
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && !foreign && !challenged {
                challenged = true;
                self.answer_challenge(response, &url, authorization.as_ref())
                    .await?;
            } else if status == StatusCode::FORBIDDEN
                && !foreign
                && !challenged
                && (self.auth)
                    .forbidden(&self.http, authorization.as_ref())
                    .await?
            {
                challenged = true;
            } else if let Some(target) = redirect_target(&response, &url, request)? {
                redirects += 1;
                if redirects > MAX_REDIRECTS {
                    return Err(protocol(&url, request.what, "too many redirects"));
                }
                url = target;
            } else {
                check_encoding(&response, &url, request.what)?;
                return Ok(Answer {
                    response,
                    url,
                    foreign,
                });
            }
        }
    }

    /// Sends a request straight to a URL that an earlier redirect led to, without credentials.
    pub(super) async fn request_foreign(
        &self,
        url: &Url,
        request: &Request<'_>,
    ) -> Result<Answer, SourceError> {
        let response = self
            .http
            .send(
                request.method.clone(),
                url,
                headers(request, None),
                None,
                request.what,
            )
            .await?;
        check_encoding(&response, url, request.what)?;
        Ok(Answer {
            response,
            url: url.clone(),
            foreign: true,
        })
    }

    /// The error for an answer that is not what was asked for.
    pub(super) async fn error(&self, answer: Answer, what: &str) -> SourceError {
        match answer.response.status() {
            // Of a storage that the registry redirected to no login would help.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if !answer.foreign => {
                let server = self.http.server_message(answer.response).await;
                self.auth.refused(&host_of(&answer.url), server).await
            }
            _ => self.http.status_error(answer.response, what).await,
        }
    }

    async fn answer_challenge(
        &self,
        response: Response,
        url: &Url,
        used: Option<&HeaderValue>,
    ) -> Result<(), SourceError> {
        let challenges: Vec<_> = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse_challenges)
            .collect();
        let server = self.http.server_message(response).await;
        self.auth
            .challenged(&self.http, url, &challenges, used, server)
            .await
    }

    /// The host answered: from now on it is spoken to in the same way.
    fn note_scheme(&self, url: &Url) {
        if url.scheme() == "http" {
            self.plain.store(true, Ordering::Relaxed);
        } else {
            self.has_tls.store(true, Ordering::Relaxed);
        }
    }

    fn base(&self, path: &str, plain: bool) -> Result<Url, SourceError> {
        let scheme = if plain { "http" } else { "https" };
        registry_url(scheme, &self.endpoint, path)
    }
}

fn registry_url(scheme: &str, endpoint: &Endpoint, path: &str) -> Result<Url, SourceError> {
    let Endpoint {
        authority,
        api_path,
        repository,
        namespace,
        ..
    } = endpoint;
    let text = if repository.is_empty() {
        format!("{scheme}://{authority}{api_path}/{path}")
    } else {
        format!("{scheme}://{authority}{api_path}/{repository}/{path}")
    };
    let mut url: Url = text.parse().map_err(|cause| SourceError::Protocol {
        host: authority.clone(),
        what: "the registry's address".to_owned(),
        problem: format!("no URL: {cause}"),
    })?;
    if let Some(namespace) = namespace {
        url.query_pairs_mut().append_pair("ns", namespace);
    }
    Ok(url)
}

fn endpoint_headers(endpoint: &Endpoint) -> Result<HeaderMap, SourceError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &endpoint.headers {
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .ok()
            .zip(HeaderValue::from_str(value.expose()).ok());
        let (parsed, mut value) = parsed.ok_or_else(|| SourceError::Protocol {
            host: endpoint.authority.clone(),
            what: endpoint.why.clone(),
            problem: format!("the header {name:?} or its value cannot be sent"),
        })?;
        value.set_sensitive(true);
        headers.append(parsed, value);
    }
    Ok(headers)
}

fn headers(request: &Request<'_>, authorization: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static(request.accept));
    // Ranges and digests are about the bytes as stored.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(range) = request.range {
        headers.insert(RANGE, range.clone());
    }
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    headers
}

fn redirect_target(
    response: &Response,
    url: &Url,
    request: &Request<'_>,
) -> Result<Option<Url>, SourceError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let target = response
        .headers()
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| url.join(location).ok())
        .filter(|target| matches!(target.scheme(), "http" | "https") && target.has_host())
        .ok_or_else(|| protocol(url, request.what, "a redirect without a usable Location"))?;
    if url.scheme() == "https" && target.scheme() == "http" && !request.may_downgrade {
        let problem = "a redirect from https to http, where a tag's answer could be forged";
        return Err(protocol(url, request.what, problem));
    }
    Ok(Some(target))
}

/// Bytes in a content encoding are other bytes than those the digest and the offsets are about.
fn check_encoding(response: &Response, url: &Url, what: &str) -> Result<(), SourceError> {
    match response.headers().get(CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(protocol(
            url,
            what,
            "the answer has a Content-Encoding though none was asked for: a proxy may be misconfigured",
        )),
        _ => Ok(()),
    }
}

pub(super) fn protocol(url: &Url, what: &str, problem: &str) -> SourceError {
    SourceError::Protocol {
        host: host_of(url),
        what: what.to_owned(),
        problem: problem.to_owned(),
    }
}
