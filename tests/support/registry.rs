//! A container registry in the process, with faults on demand, that records what it was asked.
//!
//! ```ignore
//! let registry = Registry::start();
//! let blob = registry.put_blob("bytes");
//! registry.fault(On::Blob, Fault::Truncate(3));       // the next blob request breaks off after 3 bytes
//! // ... run the program against registry.reference("name:tag") ...
//! assert_eq!(registry.requests().len(), 2);
//! ```
//!
//! It runs on a thread of its own, so tests need not be async and may start the real program against it. It
//! listens on a free loopback port, speaks plain http and stops when dropped.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use imgfs::oci::{Descriptor, Digest};

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Which requests a fault is for. Authentication is checked before faults strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// Any but token requests.
    Any,
    /// GET of a manifest or index.
    Manifest,
    /// HEAD of a manifest or index.
    ManifestHead,
    /// GET of a blob, redirected ones included.
    Blob,
    /// Token requests.
    Token,
}

/// What goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status, with an error body of the distribution spec.
    Status(u16),
    /// This status and this `Retry-After`.
    RetryAfter(u16, &'static str),
    /// The whole blob with 200, whatever range was asked for.
    IgnoreRange,
    /// A 206 with at most this many bytes.
    ShortRange(u64),
    /// A 206 for a range that begins one byte later than asked.
    WrongRange,
    /// A 206 that announces a larger blob.
    WrongTotal,
    /// The body breaks off after this many bytes.
    Truncate(u64),
    /// The body's first byte is another.
    Corrupt,
    /// The body stops after this many bytes, the connection stays open.
    Stall(u64),
    /// No answer, the connection stays open.
    Silence,
    /// No answer, the connection is closed.
    Drop,
    /// A redirect to this location.
    Redirect(String),
    /// This header in an otherwise good answer.
    Header(&'static str, &'static str),
}

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    /// Status of the answer; 0 if there was none.
    pub status: u16,
}

/// The registry.
pub struct Registry {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

#[derive(Default)]
struct State {
    content: Mutex<Content>,
    bytes: AtomicU64,
}

#[derive(Default)]
struct Content {
    blobs: BTreeMap<Digest, Bytes>,
    /// By `repository/reference`, with media type.
    manifests: BTreeMap<String, (String, Bytes)>,
    faults: Vec<(On, bool, Fault)>,
    seen: Vec<Seen>,
    auth: Auth,
    tokens: HashSet<String>,
    tokens_given: u64,
    /// Where blobs are redirected to.
    storage: Option<(SocketAddr, Arc<State>)>,
    /// The registry whose blobs this storage serves.
    upstream: Option<Arc<State>>,
    signature: u64,
}

#[derive(Default, Clone)]
enum Auth {
    #[default]
    Open,
    Basic(String),
    /// Base64 of `user:password`, or anonymous tokens.
    Token(Option<String>),
}

impl Registry {
    /// Starts an empty registry on a free port.
    pub fn start() -> Self {
        let state = Arc::new(State::default());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = serve(listener, address, serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            state,
            stop: Some(stop),
        }
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// `127.0.0.1:port/name`.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Stores a blob; every repository has it.
    pub fn put_blob(&self, bytes: impl Into<Bytes>) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = super::image::descriptor("application/octet-stream", &bytes);
        self.content().blobs.insert(descriptor.digest, bytes);
        descriptor
    }

    /// Stores a manifest or index under its digest and a tag.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = super::image::descriptor(media_type, &bytes);
        let mut content = self.content();
        for name in [tag.to_owned(), descriptor.digest.to_string()] {
            content.manifests.insert(
                format!("{repository}/{name}"),
                (media_type.to_owned(), bytes.clone()),
            );
        }
        descriptor
    }

    /// Stores all of an image; its manifest's descriptor.
    pub fn put_image(
        &self,
        repository: &str,
        tag: &str,
        image: &super::image::Image,
    ) -> Descriptor {
        for blob in &image.blobs {
            self.put_blob(blob.clone());
        }
        self.put_manifest(repository, tag, &image.media_type, image.manifest.clone())
    }

    /// The next matching request goes wrong. Several faults strike in the order they were given.
    pub fn fault(&self, on: On, fault: Fault) {
        self.content().faults.push((on, false, fault));
    }

    /// Every matching request goes wrong from now on (after the faults given before).
    pub fn fault_always(&self, on: On, fault: Fault) {
        self.content().faults.push((on, true, fault));
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&self) {
        self.content().faults.clear();
    }

    /// From now on only with these credentials.
    pub fn require_basic(&self, user: &str, password: &str) {
        self.content().auth = Auth::Basic(encode(user, password));
    }

    /// From now on only with a token, which needs these credentials if given. The token server is at `/token`
    /// of the same address and writes `token-1`, `token-2`, ...
    pub fn require_token(&self, credentials: Option<(&str, &str)>) {
        self.content().auth =
            Auth::Token(credentials.map(|(user, password)| encode(user, password)));
    }

    /// Tokens given so far are no longer accepted.
    pub fn revoke_tokens(&self) {
        self.content().tokens.clear();
    }

    /// Blobs are redirected to `storage` from now on, which refuses `Authorization` and expired URLs.
    pub fn redirect_blobs_to(&self, storage: &Registry) {
        self.content().storage = Some((storage.address, Arc::clone(&storage.state)));
        storage.content().upstream = Some(Arc::clone(&self.state));
    }

    /// URLs that led to this storage so far are refused with 403.
    pub fn expire_urls(&self) {
        self.content().signature += 1;
    }

    /// Requests so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.content().seen.clone()
    }

    /// Requests so far, as `GET path-without-prefix status`, for comparison: digests are cut to 12 digits.
    pub fn log(&self) -> Vec<String> {
        let short = |path: &str| match path.split_once("sha256:") {
            Some((before, digest)) => format!("{before}{}", digest.get(..6).unwrap_or(digest)),
            None => path.to_owned(),
        };
        self.requests()
            .iter()
            .map(|seen| format!("{} {} {}", seen.method, short(&seen.path), seen.status))
            .collect()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.content().seen.clear();
        self.state.bytes.store(0, Ordering::Relaxed);
    }

    /// Body bytes sent so far.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.state.content.lock().unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended already.
            let _ended = stop.send(());
        }
    }
}

fn encode(user: &str, password: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
}

async fn serve(listener: tokio::net::TcpListener, address: SocketAddr, state: Arc<State>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, address, Arc::clone(&state)));
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
    let position = record(&request, &state);
    let answer = respond(&request, address, &state);
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

fn record(request: &Request<Incoming>, state: &State) -> usize {
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
        status: 0,
    });
    content.seen.len() - 1
}

fn respond(request: &Request<Incoming>, address: SocketAddr, state: &Arc<State>) -> Answer {
    let path = request.uri().path().to_owned();
    let mut content = state.content.lock().unwrap();
    if path == "/token" {
        return match take_fault(&mut content, On::Token) {
            Some(fault) => with_fault(fault, Found::default(), request, state),
            None => Answer::Response(token(&mut content, request.headers())),
        };
    }
    let is_storage = path.starts_with("/signed/");
    if !is_storage && let Some(challenge) = unauthorized(&content, request.headers(), address) {
        return Answer::Response(challenge);
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
    if let (Some((storage, storage_state)), On::Blob) = (&content.storage, kind)
        && !is_storage
        && found.body.is_some()
    {
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

fn take_fault(content: &mut Content, kind: On) -> Option<Fault> {
    let position = content
        .faults
        .iter()
        .position(|(on, _, _)| *on == kind || (*on == On::Any && kind != On::Token))?;
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
    let blob = path
        .split_once("/blobs/")
        .and_then(|(_, digest)| digest.parse().ok())
        .and_then(|digest: Digest| content.blobs.get(&digest).cloned());
    Found {
        is_manifest: false,
        media_type: "application/octet-stream".to_owned(),
        body: blob,
    }
}

fn find_signed(
    content: &Content,
    request: &Request<Incoming>,
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
    // No deadlock: a registry that redirects asks its storage only for the signature, and never at once with
    // this, as the client follows one after the other.
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
                .is_some_and(|token| content.tokens.contains(token)) =>
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

fn token(content: &mut Content, headers: &HeaderMap) -> Response<Body> {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Basic "));
    if let Auth::Token(Some(wanted)) = &content.auth
        && given != Some(wanted.as_str())
    {
        return error(StatusCode::UNAUTHORIZED);
    }
    content.tokens_given += 1;
    let token = format!("token-{}", content.tokens_given);
    content.tokens.insert(token.clone());
    let body = format!("{{\"token\":\"{token}\",\"expires_in\":300}}");
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
}

fn with_fault(
    fault: Fault,
    found: Found,
    request: &Request<Incoming>,
    state: &Arc<State>,
) -> Answer {
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
    }
    Answer::Response(serve_found(found, request, state, &faults))
}

fn serve_found(
    found: Found,
    request: &Request<Incoming>,
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
    let pieces: Vec<Bytes> = (0..good.len())
        .step_by(256 << 10)
        .map(|at| good.slice(at..good.len().min(at + (256 << 10))))
        .collect();
    let pieces = stream::iter(pieces).map(move |piece| {
        state.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok(Frame::data(piece))
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

fn whole(body: Bytes) -> Body {
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

fn error(status: StatusCode) -> Response<Body> {
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
