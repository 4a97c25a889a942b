//! What is written to the registry in the process, and its referrers API.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use imgfs_formats::oci::Digest;
use serde_json::{Value, json};

use super::image::{OCI_INDEX, descriptor};
use super::registry::{Content, Uploads};
use super::serve::{Body, error, whole};

/// What the location of an upload has in its query: it must come back.
const SESSION: &str = "_state=secret%2Fstate";

/// Uploads of blobs and manifests.
pub fn write(
    content: &mut Content,
    path: &str,
    request: &Request<Bytes>,
    address: SocketAddr,
) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default();
    let path = path.strip_prefix("/v2/").unwrap_or_default();
    if let Some((repository, name)) = path.split_once("/manifests/") {
        return put_manifest(content, repository, name, request);
    }
    let Some((repository, _)) = path.split_once("/blobs/uploads/") else {
        return error(StatusCode::NOT_FOUND);
    };
    if request.method() == Method::POST {
        let field = |name: &str| {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
        };
        let mounted = field("mount").and_then(|digest| digest.parse::<Digest>().ok());
        if let Some(digest) = mounted
            && let Some(from) = field("from")
            && content.has(&from, &digest)
        {
            content.move_in(repository, digest);
            return answer(
                StatusCode::CREATED,
                &format!("/v2/{repository}/blobs/{digest}"),
            );
        }
        let place = format!("/v2/{repository}/blobs/uploads/1?{SESSION}");
        let place = match content.uploads {
            Uploads::Relative => place,
            Uploads::Absolute => format!("http://{address}{place}"),
            Uploads::Elsewhere(host) => format!("http://{host}{place}"),
        };
        return answer(StatusCode::ACCEPTED, &place);
    }
    let digest = query
        .strip_prefix(SESSION)
        .and_then(|rest| rest.strip_prefix("&digest="))
        .map(|digest| digest.replace("%3A", ":"))
        .and_then(|digest| digest.parse::<Digest>().ok());
    match digest {
        Some(digest) if digest == Digest::sha256(request.body()) => {
            content.blobs.insert(digest, request.body().clone());
            content.move_in(repository, digest);
            answer(
                StatusCode::CREATED,
                &format!("/v2/{repository}/blobs/{digest}"),
            )
        }
        _ => error(StatusCode::BAD_REQUEST),
    }
}

fn put_manifest(
    content: &mut Content,
    repository: &str,
    name: &str,
    request: &Request<Bytes>,
) -> Response<Body> {
    let body = request.body().clone();
    let media_type = request.headers().get(header::CONTENT_TYPE);
    let media_type = media_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let Ok(json) = serde_json::from_slice::<Value>(&body) else {
        return error(StatusCode::BAD_REQUEST);
    };
    // As real registries do: what a manifest names must be there.
    let named = json["layers"]
        .as_array()
        .into_iter()
        .flatten()
        .chain(json.get("config"));
    let is_here = |blob: &Value| {
        let digest = blob["digest"]
            .as_str()
            .and_then(|digest| digest.parse().ok());
        digest.is_some_and(|digest: Digest| content.has(repository, &digest))
    };
    let is_listed = |manifest: &Value| {
        let digest = manifest["digest"].as_str().unwrap_or_default();
        let name = format!("{repository}/{digest}");
        content.homes.is_none() || content.manifests.contains_key(&name)
    };
    let mut listed = json["manifests"].as_array().into_iter().flatten();
    if json["mediaType"] != media_type || !named.into_iter().all(is_here) || !listed.all(is_listed)
    {
        return error(StatusCode::BAD_REQUEST);
    }
    let digest = Digest::sha256(&body);
    for name in [name.to_owned(), digest.to_string()] {
        let name = format!("{repository}/{name}");
        content
            .manifests
            .insert(name, (media_type.to_owned(), body.clone()));
    }
    let mut response = answer(
        StatusCode::CREATED,
        &format!("/v2/{repository}/manifests/{digest}"),
    );
    if content.referrers.is_some()
        && let Some(subject) = json["subject"]["digest"].as_str()
    {
        response
            .headers_mut()
            .insert("OCI-Subject", subject.parse().unwrap());
    }
    response
}

/// The referrers API, which ignores the filter, as it may.
pub fn referrers(
    content: &Content,
    repository: &str,
    subject: &str,
    request: &Request<Bytes>,
) -> Response<Body> {
    let Some(page) = content.referrers else {
        return error(StatusCode::NOT_FOUND);
    };
    let query = request.uri().query().unwrap_or_default();
    let last = query.split('&').find_map(|part| part.strip_prefix("last="));
    let prefix = format!("{repository}/sha256:");
    let mut entries = Vec::new();
    for (name, (media_type, body)) in &content.manifests {
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        if name.starts_with(&prefix) && json["subject"]["digest"] == subject {
            let mut entry = json!(descriptor(media_type, body));
            // "If empty or missing, the config's media type" (distribution spec, "Listing
            // Referrers").
            entry["artifactType"] = match &json["artifactType"] {
                Value::Null => json["config"]["mediaType"].clone(),
                named => named.clone(),
            };
            entries.push(entry);
        }
    }
    let start = last.map_or(0, |last| last.parse().unwrap());
    let shown: Vec<Value> = entries.iter().skip(start).take(page).cloned().collect();
    let mut response = Response::builder().header(header::CONTENT_TYPE, OCI_INDEX);
    if start + shown.len() < entries.len() {
        let next = start + shown.len();
        let link = format!("</v2/{repository}/referrers/{subject}?last={next}>; rel=\"next\"");
        response = response.header(header::LINK, link);
    }
    let body = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": shown});
    response.body(whole(body.to_string().into())).unwrap()
}

fn answer(status: StatusCode, location: &str) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(header::LOCATION, location)
        .body(whole(Bytes::new()))
        .unwrap()
}
