//! Uploading a blob, as a whole in one request.

use bytes::Bytes;
use reqwest::header::LOCATION;
use reqwest::{Method, StatusCode};
use url::{Url, form_urlencoded};

use super::Pusher;
use crate::oci::Digest;
use crate::source::error::SourceError;
use crate::source::http::Payload;
use crate::source::transport::{Answer, Request, protocol};

impl Pusher {
    /// Makes sure that the repository has these bytes; says whether they had to be sent. `from` names another
    /// repository of the same registry that may have them.
    pub async fn put_blob(&self, bytes: &Bytes, from: Option<&str>) -> Result<bool, SourceError> {
        let digest = Digest::sha256(bytes);
        self.retrying(|| self.try_put_blob(&digest, bytes, from))
            .await
    }

    async fn try_put_blob(
        &self,
        digest: &Digest,
        bytes: &Bytes,
        from: Option<&str>,
    ) -> Result<bool, SourceError> {
        let what = format!("blob {}@{digest}", self.repository());
        let path = format!("blobs/{digest}");
        let head = request(Method::HEAD, &path, &what);
        let answer = self.transport.request(&head).await?;
        // What else it says is left to the upload, whose answer has words.
        if answer.response.status() == StatusCode::OK {
            return Ok(false);
        }
        let mut begun = None;
        if let Some(from) = from {
            let from: String = form_urlencoded::byte_serialize(from.as_bytes()).collect();
            let path = format!("blobs/uploads/?mount={digest}&from={from}");
            // Who may not read the other repository is refused by some and begins an upload with others.
            let answer = self
                .transport
                .request(&request(Method::POST, &path, &what))
                .await;
            match answer {
                Ok(answer) if answer.response.status() == StatusCode::CREATED => return Ok(false),
                Ok(answer) if answer.response.status() == StatusCode::ACCEPTED => {
                    begun = Some(answer);
                }
                Ok(_) | Err(SourceError::Denied { .. }) => {}
                Err(err) => return Err(err),
            }
        }
        let begun = if let Some(begun) = begun {
            begun
        } else {
            let post = request(Method::POST, "blobs/uploads/", &what);
            self.transport.request(&post).await?
        };
        if begun.response.status() != StatusCode::ACCEPTED {
            return Err(self.transport.error(begun, &what).await);
        }
        let place = upload_place(&begun, digest, &what)?;
        let put = Request {
            payload: Some(Payload {
                content_type: "application/octet-stream",
                bytes: bytes.clone(),
            }),
            ..request(Method::PUT, "", &what)
        };
        let done = self.transport.request_at(&place, &put).await?;
        match done.response.status() {
            StatusCode::CREATED => Ok(true),
            _ => Err(self.transport.error(done, &what).await),
        }
    }
}

/// Where the bytes go: the location that the registry gave, with its query, and the digest.
fn upload_place(begun: &Answer, digest: &Digest, what: &str) -> Result<Url, SourceError> {
    let location = begun.response.headers().get(LOCATION);
    let place = location
        .and_then(|location| location.to_str().ok())
        .and_then(|location| begun.url.join(location).ok())
        .filter(|place| matches!(place.scheme(), "http" | "https") && place.has_host());
    let Some(mut place) = place else {
        let problem = "an upload was begun without a usable Location";
        return Err(protocol(&begun.url, what, problem));
    };
    if begun.url.scheme() == "https" && place.scheme() == "http" {
        if place.host_str() != begun.url.host_str() {
            let problem = "an upload is to go on without TLS, to another host";
            return Err(protocol(&begun.url, what, problem));
        }
        // Behind a proxy registries do not know their own scheme and port.
        let mut own = begun.url.clone();
        own.set_path(place.path());
        own.set_query(place.query());
        place = own;
    }
    place
        .query_pairs_mut()
        .append_pair("digest", &digest.to_string());
    Ok(place)
}

fn request<'a>(method: Method, path: &'a str, what: &'a str) -> Request<'a> {
    Request {
        method,
        path,
        accept: "*/*",
        range: None,
        payload: None,
        may_downgrade: false,
        what,
    }
}
