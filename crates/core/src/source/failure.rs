//! Why a request brought no answer, in words: the HTTP client's errors say a lot about themselves,
//! and the cause last.

use std::error::Error as StdError;
use std::io;

use url::Url;

use super::error::SourceError;
use super::redact::{host_of, printable};
use super::timeouts::Timeouts;
use crate::hint::Hint;

/// A request that brought no answer.
#[derive(Debug)]
pub(super) struct SendError {
    pub(super) error: SourceError,
    /// The server was reached but did not speak TLS.
    pub(super) not_tls: bool,
}

impl From<SendError> for SourceError {
    fn from(err: SendError) -> Self {
        err.error
    }
}

/// The last cause of an error: the ones around it only repeat that something failed. Says no URL.
pub(super) fn innermost(err: &(dyn StdError + 'static)) -> String {
    let mut text = "unknown error".to_owned();
    for cause in chain(err) {
        if cause.downcast_ref::<reqwest::Error>().is_none() {
            text = cause.to_string();
        }
    }
    printable(&text)
}

fn chain<'a>(
    err: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(err), |err| next_cause(*err))
}

fn next_cause<'a>(err: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    // An io::Error hides the error it wraps from `source`.
    match err.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => err.source(),
    }
}

/// What the HTTP client says of a connection that ended before the first request was on it.
const GONE_AT_ONCE: &str = "channel closed";
/// With TLS 1.3 a server looks at the client certificate after the client thinks that the
/// connection stands, and what it says then can get lost. Little else ends connections that early.
const CLIENT_CERTIFICATE_MAYBE: Hint = Hint::ClientCertificateMaybe;

/// What to do where a proxy may be in between: the HTTP client does not tell whose fault it is.
const PROXY_HINT: &str = "check host and port, the network, and the proxy that the environment names \
    (HTTPS_PROXY, HTTP_PROXY or ALL_PROXY; NO_PROXY lists hosts to be reached without)";

/// The words for what the HTTP client says of a request to `url`.
pub(super) fn send_error(
    cause: &reqwest::Error,
    url: &Url,
    what: &str,
    timeouts: &Timeouts,
    may_be_proxied: bool,
) -> SendError {
    let host = host_of(url);
    if cause.is_timeout() {
        return SendError {
            error: SourceError::Timeout {
                host,
                what: what.to_owned(),
                waited_for: "a connection",
                limit: timeouts.connect,
            },
            not_tls: false,
        };
    }
    let text = innermost(cause);
    // With TLS 1.3 servers say so only after the handshake.
    if wants_certificate(&text) {
        return SendError {
            error: SourceError::Connect {
                host,
                cause: text,
                hint: Some(Hint::ClientCertificate),
                transient: false,
            },
            not_tls: false,
        };
    }
    if !cause.is_connect() {
        let cause = if text == GONE_AT_ONCE {
            format!(
                "the server ended the connection before the request: {CLIENT_CERTIFICATE_MAYBE}"
            )
        } else {
            text
        };
        return SendError {
            error: SourceError::Broken {
                host,
                what: what.to_owned(),
                cause,
            },
            not_tls: false,
        };
    }
    let failure = ConnectFailure::of(cause);
    let (hint, transient) = match failure {
        ConnectFailure::Refused | ConnectFailure::Name | ConnectFailure::Other
            if may_be_proxied =>
        {
            (Some(Hint::Words(PROXY_HINT)), true)
        }
        ConnectFailure::Refused => {
            let words = "nothing listens there, check host and port";
            (Some(Hint::Words(words)), true)
        }
        ConnectFailure::Name => {
            let words = "check the spelling of the host, and the network";
            (Some(Hint::Words(words)), true)
        }
        ConnectFailure::Certificate => (Some(Hint::TrustAuthority), false),
        ConnectFailure::NotTls => (Some(Hint::PlainHttp), false),
        // A server that is being started anew does that, too.
        ConnectFailure::HungUp => (Some(Hint::PlainHttpMaybe), true),
        ConnectFailure::Other => (None, true),
    };
    SendError {
        error: SourceError::Connect {
            host,
            cause: text,
            hint,
            transient,
        },
        not_tls: matches!(failure, ConnectFailure::NotTls | ConnectFailure::HungUp),
    }
}

/// Whether the server ended the connection because of the client certificate: none, or not one it
/// accepts. By the words, since the error of TLS itself does not get through HTTP/2.
fn wants_certificate(text: &str) -> bool {
    let alert = text.split_once("received fatal alert: ");
    alert.is_some_and(|(_, alert)| alert.contains("Certificate") || alert.contains("UnknownCA"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectFailure {
    Refused,
    Name,
    Certificate,
    NotTls,
    /// Reached, and hung up on the first words of TLS.
    HungUp,
    Other,
}

impl ConnectFailure {
    fn of(cause: &reqwest::Error) -> Self {
        if cause.is_dns() {
            return Self::Name;
        }
        for cause in chain(cause) {
            if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
                return match tls {
                    rustls::Error::InvalidCertificate(_) => Self::Certificate,
                    rustls::Error::InvalidMessage(_) => Self::NotTls,
                    _ => Self::Other,
                };
            }
            if let Some(io) = cause.downcast_ref::<io::Error>() {
                match io.kind() {
                    io::ErrorKind::ConnectionRefused => return Self::Refused,
                    io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe => return Self::HungUp,
                    _ => {}
                }
            }
        }
        Self::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_certificates_are_known_by_their_alert() {
        let check = |text: &str, expected: bool| {
            assert_eq!(wants_certificate(text), expected, "{text}");
        };
        check("received fatal alert: CertificateRequired", true);
        check("received fatal alert: BadCertificate", true);
        check("received fatal alert: UnknownCA", true);
        check("received fatal alert: HandshakeFailure", false);
        check("invalid peer certificate: UnknownIssuer", false);
    }
}
