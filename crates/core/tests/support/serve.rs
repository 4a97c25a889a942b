//! The answers of the registry in the process: routes, authentication, ranges and the faults asked
//! for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use imgfs_formats::oci::Digest;

use super::registry::{Auth, Content, Fault, On, Seen, State};
use super::upload;

pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Serves until dropped.
pub async fn serve(listener: tokio::net::TcpListener, address: SocketAddr, state: Arc<State>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let first = std::sync::Once::new();
            let service = service_fn(move |request| {
                first.call_once(|| {
                    state.connections.fetch_add(1, Ordering::Relaxed);
                });
                answer(request, address, Arc::clone(&state))
            });
            // Clients hang up, and faults end connections: neither is an error of the test.
            let _closed = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

/// `Err` closes the connection without an answer.
async fn answer(
    request: Request<Incoming>,
    address: SocketAddr,
    state: Arc<State>,
) -> Result<Response<Body>, std::io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?;
    let request = Request::from_parts(parts, body.to_bytes());
    let position = record(&request, &state);
    let answer = if request.uri().path() == "/token" {
        let now = state.token_requests.fetch_add(1, Ordering::Relaxed) + 1;
        state.most_token_requests.fetch_max(now, Ordering::Relaxed);
        let delay = state.content.lock().unwrap().token_server.delay;
        tokio::time::sleep(delay).await;
        let answer = respond(&request, address, &state);
        state.token_requests.fetch_sub(1, Ordering::Relaxed);
        answer
    } else {
        respond(&request, address, &state)
    };
    if matches!(answer, Answer::Silence) {
        std::future::pending::<Infallible>().await;
    }
    let Answer::Response(response) = answer else {
        return Err(std::io::Error::other("dropped on demand"));
    };
    if let Some(seen) = state.content.lock().unwrap().seen.get_mut(position) {
        seen.status = response.status().as_u16();
    }
    Ok(response)
}

enum Answer {
    Response(Response<Body>),
    Silence,
    Drop,
}

fn record(request: &Request<Bytes>, state: &State) -> usize {
    let text = |name| {
        let value = request.headers().get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let mut content = state.content.lock().unwrap();
    content.seen.push(Seen {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        range: text(header::RANGE),
        authorization: text(header::AUTHORIZATION),
        headers: request.headers().clone(),
        body: String::from_utf8_lossy(request.body()).into_owned(),
        status: 0,
    });
    content.seen.len() - 1
}

fn respond(request: &Request<Bytes>, address: SocketAddr, state: &Arc<State>) -> Answer {
    let path = request.uri().path().to_owned();
    let mut content = state.content.lock().unwrap();
    if path == "/token" {
        return match take_fault(&mut content, On::Token) {
            Some(fault) => with_fault(fault, Found::default(), request, state),
            None => Answer::Response(token(&mut content, request)),
        };
    }
    let is_storage = path.starts_with("/signed/");
    if !is_storage && let Some(challenge) = unauthorized(&content, request.headers(), address) {
        return Answer::Response(challenge);
    }
    let asked = request.uri().path_and_query().unwrap().as_str();
    if let Some(answer) = content.answers.get(asked).cloned() {
        return match take_fault(&mut content, On::Answer) {
            Some(fault) => with_fault(fault, Found::default(), request, state),
            None => Answer::Response(Response::new(whole(answer.into()))),
        };
    }
    if let Some(repository) = path
        .strip_prefix("/v2/")
        .and_then(|path| path.strip_suffix("/tags/list"))
    {
        return match take_fault(&mut content, On::Tags) {
            Some(fault) => with_fault(fault, Found::default(), request, state),
            None => Answer::Response(tags(&content, repository, request)),
        };
    }
    if let Some((repository, rest)) = path
        .strip_prefix("/v2/")
        .and_then(|path| path.split_once("/referrers/"))
    {
        return match take_fault(&mut content, On::Referrers) {
            Some(fault) => with_fault(fault, Found::default(), request, state),
            None => Answer::Response(upload::referrers(&content, repository, rest, request)),
        };
    }
    if matches!(*request.method(), Method::POST | Method::PUT) {
        let kind = if path.contains("/manifests/") {
            On::ManifestPut
        } else if request.method() == Method::PUT
            && content.faults.iter().any(|(on, ..)| *on == On::UploadPut)
        {
            On::UploadPut
        } else {
            On::Upload
        };
        return match take_fault(&mut content, kind) {
            Some(fault) => with_fault(fault, Found::default(), request, state),
            None => Answer::Response(upload::write(&mut content, &path, request, address)),
        };
    }
    let found = if is_storage {
        match find_signed(&content, request, &path) {
            Ok(found) => found,
            Err(status) => return Answer::Response(error(status)),
        }
    } else {
        find(&content, &path)
    };
    let kind = match (found.is_manifest, request.method()) {
        (true, &Method::HEAD) => On::ManifestHead,
        (true, _) => On::Manifest,
        (false, _) => On::Blob,
    };
    // With a storage the faults of blobs are the storage's.
    if let (Some((storage, storage_state)), On::Blob) = (content.storage.clone(), kind)
        && !is_storage
        && found.body.is_some()
    {
        // The storage looks up blobs here while it holds its own.
        drop(content);
        let signature = storage_state.content.lock().unwrap().signature;
        let digest = path.rsplit('/').next().unwrap_or_default();
        let location = format!("http://{storage}/signed/{digest}?signature=secret{signature}");
        return Answer::Response(redirect(&location));
    }
    match take_fault(&mut content, kind) {
        Some(fault) => {
            drop(content);
            with_fault(fault, found, request, state)
        }
        None => Answer::Response(serve_found(found, request, state, &Faults::default())),
    }
}

/// A page of the tags of a repository, after the one that the query names as `last`.
fn tags(content: &Content, repository: &str, request: &Request<Bytes>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default();
    let last = (query.split('&')).find_map(|part| part.strip_prefix("last="));
    let prefix = format!("{repository}/");
    let mut tags: Vec<&str> = (content.manifests.keys())
        .filter_map(|name| name.strip_prefix(&prefix))
        .filter(|name| !name.contains(':') && Some(*name) > last)
        .collect();
    let mut response = Response::builder().header(header::CONTENT_TYPE, "application/json");
    if let Some((count, link)) = &content.tag_pages
        && tags.len() > *count
    {
        tags.truncate(*count);
        let query = format!("last={}", tags.last().unwrap());
        response = response.header(header::LINK, link.replace("QUERY", &query));
    }
    let body = serde_json::json!({"name": repository, "tags": tags}).to_string();
    response.body(whole(body.into())).unwrap()
}

fn take_fault(content: &mut Content, kind: On) -> Option<Fault> {
    let position = content
        .faults
        .iter()
        .position(|(on, _, _)| *on == kind || (*on == On::Any && kind != On::Token));
    let Some(position) = position else {
        let chaos = content.chaos.as_mut().filter(|_| kind == On::Blob)?;
        return chaos.strike();
    };
    let (_, always, fault) = content.faults.get(position)?.clone();
    if !always {
        content.faults.remove(position);
    }
    Some(fault)
}

#[derive(Default)]
struct Found {
    is_manifest: bool,
    media_type: String,
    body: Option<Bytes>,
}

fn find(content: &Content, path: &str) -> Found {
    if path == "/v2/" {
        return Found {
            body: Some(Bytes::from_static(b"{}")),
            ..Found::default()
        };
    }
    let Some(path) = path.strip_prefix("/v2/") else {
        return Found::default();
    };
    if let Some((repository, name)) = path.split_once("/manifests/") {
        let manifest = content.manifests.get(&format!("{repository}/{name}"));
        return Found {
            is_manifest: true,
            media_type: manifest.map(|one| one.0.clone()).unwrap_or_default(),
            body: manifest.map(|one| one.1.clone()),
        };
    }
    let blob = path.split_once("/blobs/").and_then(|(repository, digest)| {
        let digest = digest.parse().ok()?;
        let has = content.has(repository, &digest);
        has.then(|| content.blobs.get(&digest).cloned()).flatten()
    });
    Found {
        is_manifest: false,
        media_type: "application/octet-stream".to_owned(),
        body: blob,
    }
}

fn find_signed(
    content: &Content,
    request: &Request<Bytes>,
    path: &str,
) -> Result<Found, StatusCode> {
    // What S3 and Azure answer to a second authentication mechanism.
    if request.headers().contains_key(header::AUTHORIZATION) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let signature = format!("signature=secret{}", content.signature);
    if request.uri().query() != Some(signature.as_str()) {
        return Err(StatusCode::FORBIDDEN);
    }
    let upstream = content.upstream.as_ref().ok_or(StatusCode::NOT_FOUND)?;
    let digest: Digest = path
        .trim_start_matches("/signed/")
        .parse()
        .map_err(|_| StatusCode::NOT_FOUND)?;
    // No deadlock: a registry that redirects holds nothing while it asks its storage for the
    // signature.
    let body = upstream.content.lock().unwrap().blobs.get(&digest).cloned();
    Ok(Found {
        is_manifest: false,
        media_type: "application/octet-stream".to_owned(),
        body,
    })
}

fn unauthorized(
    content: &Content,
    headers: &HeaderMap,
    address: SocketAddr,
) -> Option<Response<Body>> {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let challenge = match &content.auth {
        Auth::Open => return None,
        Auth::Basic(wanted) if given == format!("Basic {wanted}") => return None,
        Auth::Basic(_) => "Basic realm=\"test\"".to_owned(),
        Auth::Token(_)
            if given
                .strip_prefix("Bearer ")
                .and_then(|token| content.tokens.get(token))
                .is_some_and(|end| Instant::now() < *end) =>
        {
            return None;
        }
        Auth::Token(_) => {
            format!("Bearer realm=\"http://{address}/token\",service=\"test\",scope=\"x\"")
        }
    };
    let mut response = error(StatusCode::UNAUTHORIZED);
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
    Some(response)
}

fn token(content: &mut Content, request: &Request<Bytes>) -> Response<Body> {
    let server = content.token_server.clone();
    let wanted = match &content.auth {
        Auth::Token(wanted) => wanted.clone(),
        Auth::Open | Auth::Basic(_) => None,
    };
    let admitted = if request.method() == Method::POST {
        let form: BTreeMap<String, String> = url::form_urlencoded::parse(request.body())
            .into_owned()
            .collect();
        let field = |name: &str| form.get(name).cloned().unwrap_or_default();
        match field("grant_type").as_str() {
            "password" => {
                let given = super::registry::encode(&field("username"), &field("password"));
                server.get_refused_with.is_some() && wanted.is_none_or(|wanted| wanted == given)
            }
            "refresh_token" => server
                .identity
                .is_some_and(|one| one == field("refresh_token")),
            _ => false,
        }
    } else if let Some(status) = server.get_refused_with {
        return error(StatusCode::from_u16(status).unwrap());
    } else {
        let given = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Basic "));
        wanted.is_none_or(|wanted| given == Some(wanted.as_str()))
    };
    if !admitted {
        return error(StatusCode::UNAUTHORIZED);
    }
    content.tokens_given += 1;
    let token = format!("token-{}", content.tokens_given);
    let end = Instant::now() + server.life;
    content.tokens.insert(token.clone(), end);
    // The two forms name it differently.
    let name = if request.method() == Method::POST {
        "access_token"
    } else {
        "token"
    };
    let life = server.life.as_secs();
    let body = format!("{{\"{name}\":\"{token}\",\"expires_in\":{life}}}");
    Response::new(whole(body.into()))
}

/// How the body of an otherwise good answer is spoilt.
#[derive(Default)]
struct Faults {
    ignore_range: bool,
    shorten: Option<u64>,
    shift: u64,
    larger_total: bool,
    corrupt: bool,
    break_after: Option<u64>,
    stall_after: Option<u64>,
    /// KiB in a second.
    drip: Option<u32>,
}

fn with_fault(fault: Fault, found: Found, request: &Request<Bytes>, state: &Arc<State>) -> Answer {
    let mut faults = Faults::default();
    match fault {
        Fault::Status(status) => {
            return Answer::Response(error(StatusCode::from_u16(status).unwrap()));
        }
        Fault::RetryAfter(status, wait) => {
            let mut response = error(StatusCode::from_u16(status).unwrap());
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, wait.parse().unwrap());
            return Answer::Response(response);
        }
        Fault::Silence => return Answer::Silence,
        Fault::Drop => return Answer::Drop,
        Fault::Redirect(location) => return Answer::Response(redirect(&location)),
        Fault::Header(name, value) => {
            let mut response = serve_found(found, request, state, &faults);
            response.headers_mut().insert(name, value.parse().unwrap());
            return Answer::Response(response);
        }
        Fault::IgnoreRange => faults.ignore_range = true,
        Fault::ShortRange(length) => faults.shorten = Some(length),
        Fault::WrongRange => faults.shift = 1,
        Fault::WrongTotal => faults.larger_total = true,
        Fault::Truncate(length) => faults.break_after = Some(length),
        Fault::Corrupt => faults.corrupt = true,
        Fault::Stall(length) => faults.stall_after = Some(length),
        Fault::Drip(speed) => faults.drip = Some(speed),
    }
    Answer::Response(serve_found(found, request, state, &faults))
}

fn serve_found(
    found: Found,
    request: &Request<Bytes>,
    state: &Arc<State>,
    faults: &Faults,
) -> Response<Body> {
    let Some(all) = found.body else {
        return error(StatusCode::NOT_FOUND);
    };
    let total = all.len() as u64;
    let mut response = Response::builder().header(header::CONTENT_TYPE, &found.media_type);
    if found.is_manifest {
        response = response.header("Docker-Content-Digest", Digest::sha256(&all).to_string());
    }
    let asked = request
        .headers()
        .get(header::RANGE)
        .filter(|_| !faults.ignore_range && !found.is_manifest)
        .and_then(|range| parse_range(range.to_str().ok()?));
    let mut body = all.clone();
    if let Some((first, last)) = asked {
        if first >= total {
            return Response::builder()
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{total}"))
                .body(whole(Bytes::new()))
                .unwrap();
        }
        let first = first + faults.shift;
        let mut end = (last + 1).min(total);
        if let Some(length) = faults.shorten {
            end = end.min(first + length);
        }
        let total = total + u64::from(faults.larger_total);
        response = response.status(StatusCode::PARTIAL_CONTENT).header(
            header::CONTENT_RANGE,
            format!("bytes {first}-{}/{total}", end - 1),
        );
        body = all.slice(usize::try_from(first).unwrap()..usize::try_from(end).unwrap());
    }
    if faults.corrupt {
        let mut changed = body.to_vec();
        if let Some(byte) = changed.first_mut() {
            *byte ^= 1;
        }
        body = changed.into();
    }
    response = response.header(header::CONTENT_LENGTH, body.len());
    if request.method() == Method::HEAD {
        return response.body(whole(Bytes::new())).unwrap();
    }
    response.body(stream_body(&body, state, faults)).unwrap()
}

fn parse_range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// Sends `body` in pieces, counted, up to where the fault strikes.
fn stream_body(body: &Bytes, state: &Arc<State>, faults: &Faults) -> Body {
    let limit = |at: Option<u64>| at.map_or(body.len(), |at| usize::try_from(at).unwrap());
    let end = body
        .len()
        .min(limit(faults.break_after))
        .min(limit(faults.stall_after));
    let stalls = faults.stall_after.is_some();
    let breaks = faults.break_after.is_some();
    let good = body.slice(..end);
    let state = Arc::clone(state);
    // Few enough waits for a timer of milliseconds.
    let (size, wait) = match faults.drip {
        None => (256 << 10, None),
        Some(speed) => {
            let size = usize::try_from((speed << 10) / 64).unwrap().max(1);
            (size, Some(std::time::Duration::from_secs(1) / 64))
        }
    };
    let pieces: Vec<Bytes> = (0..good.len())
        .step_by(size)
        .map(|at| good.slice(at..good.len().min(at + size)))
        .collect();
    let pieces = stream::iter(pieces).then(move |piece| {
        let state = Arc::clone(&state);
        async move {
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
            }
            state.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            Ok(Frame::data(piece))
        }
    });
    // A pause lets what was sent reach the client before the connection ends.
    let end = stream::once(async move {
        if stalls {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        Err(std::io::Error::other("broken on demand"))
    })
    .filter(move |_| std::future::ready(breaks || stalls));
    if breaks || stalls {
        BodyExt::boxed_unsync(StreamBody::new(pieces.chain(end)))
    } else {
        BodyExt::boxed_unsync(StreamBody::new(pieces))
    }
}

pub(super) fn whole(body: Bytes) -> Body {
    BodyExt::boxed_unsync(
        http_body_util::Full::new(body).map_err(|never: Infallible| match never {}),
    )
}

fn redirect(location: &str) -> Response<Body> {
    Response::builder()
        .status(StatusCode::TEMPORARY_REDIRECT)
        .header(header::LOCATION, location)
        .body(whole(Bytes::new()))
        .unwrap()
}

pub(super) fn error(status: StatusCode) -> Response<Body> {
    let code = status
        .canonical_reason()
        .unwrap_or("ERROR")
        .to_ascii_uppercase()
        .replace(' ', "_");
    let body =
        format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"as the test asked\"}}]}}");
    Response::builder()
        .status(status)
        .body(whole(body.into()))
        .unwrap()
}
