//! One HTTP request: sent within its time limits and counted.
//!
//! Knows neither authentication nor redirects nor retries.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Body, Method, Response};
use serde::Deserialize;
use url::Url;

use super::clients::{ClientKey, Clients};
use super::endpoint::{Endpoint, Tls};
use super::error::{ServerMessage, SourceError};
use super::failure::{SendError, innermost, send_error};
use super::redact::{host_of, printable, redact_url};
use super::timeouts::Timeouts;
use super::traffic::{Counters, Traffic};
use super::upload::{Sending, Upload};
use crate::hint::Hint;

/// Most bytes read of an error's body.
const MAX_ERROR_BODY: u64 = 8 << 10;
/// Longest wait that a server may ask for: a host that asks for more is asked again after this
/// time.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Bytes per second of an upload for which its answer is waited for longer: 512 kbit/s.
const SLOWEST_UPLOAD: u64 = 64 << 10;

/// What is sent along with a request. It can be sent again.
#[derive(Debug, Clone)]
pub(super) struct Payload {
    pub(super) content_type: Cow<'static, str>,
    pub(super) bytes: PayloadBytes,
}

/// The bytes of a [`Payload`].
#[derive(Debug, Clone)]
pub(super) enum PayloadBytes {
    /// In memory.
    Whole(Bytes),
    /// Passed on from where they are, which is opened anew each time.
    Passing(Box<Upload>),
}

/// The body of a request.
enum RequestBody<'a> {
    None,
    Form(&'a [(&'a str, &'a str)]),
    Payload(&'a Payload),
}

/// Sends requests for one registry.
#[derive(Debug)]
pub(super) struct Http {
    clients: Clients,
    timeouts: Timeouts,
    /// Host name of the registry, without port: the only one that may go unverified, and that is
    /// shown a client certificate.
    registry: String,
    /// How the registry is connected to.
    own: ClientKey,
    /// How the hosts are that it sends us to. Its certificate authorities are good for them too, as
    /// they may be in the same private network.
    foreign: ClientKey,
    /// Whether the environment names a proxy at all.
    names_proxy: bool,
    counters: Counters,
}

impl Http {
    /// `registry` is the endpoint's host name.
    pub(super) fn new(
        clients: Clients,
        timeouts: Timeouts,
        registry: &str,
        endpoint: &Endpoint,
        names_proxy: bool,
    ) -> Self {
        let connect = endpoint.connect_timeout.unwrap_or(timeouts.connect);
        let foreign = Tls {
            authorities: endpoint.tls.authorities.clone(),
            ..Tls::default()
        };
        Self {
            clients,
            timeouts,
            registry: registry.to_owned(),
            own: ClientKey::new(endpoint.tls.clone(), !endpoint.is_loopback(), connect),
            foreign: ClientKey::new(foreign, true, connect),
            names_proxy,
            counters: Counters::default(),
        }
    }

    pub(super) fn traffic(&self) -> Traffic {
        self.counters.traffic()
    }

    /// Sends one request and waits for the answer's head. `what` names it in errors.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        payload: Option<&Payload>,
        what: &str,
    ) -> Result<Response, SendError> {
        let content = payload.map_or(RequestBody::None, RequestBody::Payload);
        self.exchange(method, url, headers, &content, what).await
    }

    /// Posts a form, whose fields appear in no log.
    pub(super) async fn post_form(
        &self,
        url: &Url,
        headers: HeaderMap,
        fields: &[(&str, &str)],
        what: &str,
    ) -> Result<Response, SendError> {
        self.exchange(Method::POST, url, headers, &RequestBody::Form(fields), what)
            .await
    }

    async fn exchange(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        content: &RequestBody<'_>,
        what: &str,
    ) -> Result<Response, SendError> {
        let key = if url.host_str() == Some(self.registry.as_str()) {
            &self.own
        } else {
            &self.foreign
        };
        let plain = |error| SendError {
            error,
            not_tls: false,
        };
        let client = self.clients.get(key).map_err(plain)?;
        tracing::debug!("{method} {}", redact_url(url));
        let mut request = client.request(method, url.clone()).headers(headers);
        let mut limit = self.timeouts.first_byte;
        let mut passing = None;
        match content {
            RequestBody::None => {}
            RequestBody::Form(fields) => request = request.form(fields),
            RequestBody::Payload(payload) => {
                request = request.header(CONTENT_TYPE, &*payload.content_type);
                let size = match &payload.bytes {
                    PayloadBytes::Whole(bytes) => {
                        request = request.body(bytes.clone());
                        bytes.len() as u64
                    }
                    PayloadBytes::Passing(upload) => {
                        let (sending, bytes) = upload.start();
                        passing = Some(sending);
                        // Without it the bytes would go in chunks, which not every storage takes.
                        request = request
                            .header(CONTENT_LENGTH, upload.size())
                            .body(Body::wrap_stream(bytes));
                        upload.size()
                    }
                };
                limit += Duration::from_secs(size / SLOWEST_UPLOAD);
            }
        }
        let answer = request.send();
        let answer = async {
            match &passing {
                None => tokio::time::timeout(limit, answer).await.ok(),
                Some(sending) => sending.watch(answer, self.timeouts.stall, limit).await,
            }
        };
        let sent = match answer.await {
            Some(Ok(response)) => {
                tracing::debug!("{} from {}", response.status(), redact_url(url));
                Ok(response)
            }
            Some(Err(cause)) => {
                // Where the bytes come from knows better what is wrong there.
                if let Some(error) = passing.as_ref().and_then(Sending::take_failure) {
                    return Err(plain(error));
                }
                let may_be_proxied = key.proxied && self.names_proxy;
                Err(send_error(
                    &cause,
                    url,
                    what,
                    &self.timeouts,
                    may_be_proxied,
                ))
            }
            None => Err(plain(SourceError::Timeout {
                host: host_of(url),
                what: what.to_owned(),
                waited_for: "an answer",
                limit,
            })),
        };
        // Finding out that a server speaks no TLS takes a connection, but no request.
        if !matches!(sent, Err(SendError { not_tls: true, .. })) {
            self.counters.add_request();
        }
        sent
    }

    /// The next piece of a body, or `None` at its end.
    pub(super) async fn chunk(
        &self,
        response: &mut Response,
        host: &str,
        what: &str,
    ) -> Result<Option<Bytes>, SourceError> {
        match tokio::time::timeout(self.timeouts.stall, response.chunk()).await {
            Ok(Ok(piece)) => {
                self.counters
                    .add_bytes(piece.as_ref().map_or(0, Bytes::len));
                Ok(piece)
            }
            Ok(Err(cause)) => Err(SourceError::Broken {
                host: host.to_owned(),
                what: what.to_owned(),
                cause: innermost(&cause),
            }),
            Err(_) => Err(SourceError::Timeout {
                host: host.to_owned(),
                what: what.to_owned(),
                waited_for: "the next byte",
                limit: self.timeouts.stall,
            }),
        }
    }

    /// A whole small body.
    pub(super) async fn body(
        &self,
        response: Response,
        what: &str,
        limit: u64,
    ) -> Result<Bytes, SourceError> {
        let host = host_of(response.url());
        let whole = self.whole_body(response, &host, what, limit);
        // A byte now and then must not hold up everybody who needs this answer.
        match tokio::time::timeout(self.timeouts.give_up, whole).await {
            Ok(body) => body,
            Err(_) => Err(SourceError::Timeout {
                host: host.clone(),
                what: what.to_owned(),
                waited_for: "the whole answer",
                limit: self.timeouts.give_up,
            }),
        }
    }

    async fn whole_body(
        &self,
        mut response: Response,
        host: &str,
        what: &str,
        limit: u64,
    ) -> Result<Bytes, SourceError> {
        let mut body = BytesMut::new();
        while let Some(piece) = self.chunk(&mut response, host, what).await? {
            if (body.len() + piece.len()) as u64 > limit {
                return Err(SourceError::AnswerTooLarge {
                    host: host.to_owned(),
                    what: what.to_owned(),
                    limit,
                });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    /// Reads what the server says about a failure.
    pub(super) async fn server_message(&self, mut response: Response) -> ServerMessage {
        let host = host_of(response.url());
        let mut body = BytesMut::new();
        // A body that cannot be read, or not soon, leaves the status to speak for itself.
        let reading = async {
            while let Ok(Some(piece)) = self.chunk(&mut response, &host, "error").await {
                body.extend_from_slice(&piece);
                if body.len() as u64 >= MAX_ERROR_BODY {
                    break;
                }
            }
        };
        let _in_time = tokio::time::timeout(self.timeouts.first_byte, reading).await;
        parse_server_message(&body)
    }

    /// The error for an answer with an unexpected status.
    pub(super) async fn status_error(&self, response: Response, what: &str) -> SourceError {
        let status = response.status().as_u16();
        let host = host_of(response.url());
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| parse_retry_after(value, SystemTime::now()))
            .map(|wait| wait.min(MAX_RETRY_AFTER));
        let server = self.server_message(response).await;
        let what = what.to_owned();
        match status {
            404 => SourceError::NotFound {
                host,
                what,
                server,
                hint: Hint::Words("check the name, or whether it needs a login"),
            },
            _ => SourceError::Status {
                host,
                what,
                status,
                server,
                retry_after,
            },
        }
    }
}

/// `Retry-After`: seconds, or an HTTP date.
pub(super) fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    // A date that has passed means: now.
    Some(date.duration_since(now).unwrap_or_default())
}

fn parse_server_message(body: &[u8]) -> ServerMessage {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<OneError>,
    }
    #[derive(Deserialize)]
    struct OneError {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    #[derive(Deserialize)]
    struct Details {
        details: String,
    }
    let text = if let Ok(Errors { errors }) = serde_json::from_slice(body) {
        let first = errors.into_iter().next();
        first.map_or_else(String::new, |error| {
            if error.code.is_empty() || error.message.is_empty() {
                format!("{}{}", error.code, error.message)
            } else {
                format!("{}: {}", error.code, error.message)
            }
        })
    } else if let Ok(Details { details }) = serde_json::from_slice(body) {
        details
    } else {
        let text = String::from_utf8_lossy(body);
        if text.trim_start().starts_with('<') {
            title(&text).to_owned()
        } else {
            text.into_owned()
        }
    };
    ServerMessage(printable(&text))
}

/// The title of a page made for browsers: proxies say there what they have to say.
fn title(page: &str) -> &str {
    let title = page.split_once("<title>").map(|(_, rest)| rest);
    title
        .and_then(|rest| rest.split_once("</title>"))
        .map_or("", |(title, _)| title.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let check = |value: &str, expected: Option<u64>| {
            let got = parse_retry_after(value, now).map(|wait| wait.as_secs());
            assert_eq!(got, expected, "{value}");
        };
        check("3", Some(3));
        check(" 0 ", Some(0));
        check("Sun, 06 Nov 1994 08:49:47 GMT", Some(10));
        check("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        check("soon", None);
        check("-1", None);
        check("99999999999999999999", None);
    }

    #[test]
    fn servers_words_are_read_from_json_or_text() {
        let check = |body: &str, expected: &str| {
            let message = parse_server_message(body.as_bytes());
            assert_eq!(message.to_string(), expected, "{body}");
        };
        check("", "");
        check(
            r#"{"errors":[{"code":"DENIED","message":"no\u001b[31m"}]}"#,
            " (DENIED: no [31m)",
        );
        check(r#"{"errors":[{"message":"no"}]}"#, " (no)");
        check(r#"{"errors":[]}"#, "");
        check(
            r#"{"details":"incorrect username"}"#,
            " (incorrect username)",
        );
        check("<html>", "");
        check("<html><title>unfinished", "");
        check("<html>\r\n<head><title>400 No</title></head>", " (400 No)");
        check("plain words\n", " (plain words)");
    }
}
