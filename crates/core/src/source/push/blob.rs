//! Uploading a blob: as a whole in one request, from memory or passed on from where it is.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::LOCATION;
use reqwest::{Method, StatusCode};
use url::{Url, form_urlencoded};

use super::Pusher;
use crate::source::BlobSource;
use crate::source::error::SourceError;
use crate::source::http::{Payload, PayloadBytes};
use crate::source::transport::{Answer, Request, protocol};
use crate::source::upload::{Upload, WatchUpload};
use imgfs_formats::oci::{Descriptor, Digest};

/// Longest time from the first failure of a copy to giving up. An attempt may take hours, so that
/// only their number counts.
const COPY_GIVE_UP: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How a blob came to be in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It was there.
    WasThere,
    /// The registry took it from another of its repositories.
    Mounted,
    /// Its bytes were sent.
    Sent,
}

impl Pusher {
    /// Makes sure that the repository has these bytes; says whether they had to be sent. `from`
    /// names another repository of the same registry that may have them.
    pub async fn put_blob(&self, bytes: &Bytes, from: Option<&str>) -> Result<bool, SourceError> {
        let digest = Digest::sha256(bytes);
        let bytes = PayloadBytes::Whole(bytes.clone());
        let placed = self
            .retrying(|| self.try_place(&digest, &bytes, from))
            .await?;
        Ok(placed == Placed::Sent)
    }

    /// Makes sure that the repository has a blob that `source` has. Its bytes are passed on only
    /// where they are in no repository of the registry; a copy that fails half-way begins anew.
    /// `from` as for [`Self::put_blob`].
    pub async fn copy_blob(
        &self,
        source: &Arc<dyn BlobSource>,
        blob: &Descriptor,
        from: Option<&str>,
        watch: WatchUpload,
    ) -> Result<Placed, SourceError> {
        let upload = Upload::new(Arc::clone(source), blob.clone(), watch);
        let bytes = PayloadBytes::Passing(Box::new(upload.clone()));
        loop {
            let placing =
                self.retrying_for(COPY_GIVE_UP, || self.try_place(&blob.digest, &bytes, from));
            match placing.await {
                Err(SourceError::Digest { .. }) if upload.take_again() => {}
                placed => return placed,
            }
        }
    }

    async fn try_place(
        &self,
        digest: &Digest,
        bytes: &PayloadBytes,
        from: Option<&str>,
    ) -> Result<Placed, SourceError> {
        let what = format!("blob {}@{digest}", self.repository());
        let path = format!("blobs/{digest}");
        let head = request(Method::HEAD, &path, &what);
        let answer = self.transport.request(&head).await?;
        // What else it says is left to the upload, whose answer has words.
        if answer.response.status() == StatusCode::OK {
            return Ok(Placed::WasThere);
        }
        let mut begun = None;
        if let Some(from) = from {
            let from: String = form_urlencoded::byte_serialize(from.as_bytes()).collect();
            let path = format!("blobs/uploads/?mount={digest}&from={from}");
            // Who may not read the other repository is refused by some and begins an upload with
            // others.
            let answer = self
                .transport
                .request(&request(Method::POST, &path, &what))
                .await;
            match answer {
                Ok(answer) if answer.response.status() == StatusCode::CREATED => {
                    return Ok(Placed::Mounted);
                }
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
                content_type: Cow::Borrowed("application/octet-stream"),
                bytes: bytes.clone(),
            }),
            ..request(Method::PUT, "", &what)
        };
        let done = self.transport.request_at(&place, &put).await?;
        match done.response.status() {
            StatusCode::CREATED => Ok(Placed::Sent),
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
