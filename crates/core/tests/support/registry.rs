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
//! It runs on a thread of its own, so tests need not be async and may start the real program
//! against it. It listens on a free loopback port, speaks plain http and stops when dropped.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base64::Engine;
use bytes::Bytes;
use imgfs_formats::oci::{Descriptor, Digest};

use super::serve::serve;

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
    /// GET of the list of tags.
    Tags,
    /// What [`Registry::answer`] is for.
    Answer,
    /// GET of the list of referrers.
    Referrers,
    /// POST and PUT of a blob.
    Upload,
    /// PUT of a blob.
    UploadPut,
    /// PUT of a manifest.
    ManifestPut,
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
    /// The body comes in small pieces, so many KiB in a second.
    Drip(u32),
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
    pub headers: http::HeaderMap,
    pub body: String,
    /// Status of the answer; 0 if there was none.
    pub status: u16,
}

/// The registry.
pub struct Registry {
    address: SocketAddr,
    state: Arc<State>,
    presence: Mutex<Presence>,
}

/// Whether it can be reached.
enum Presence {
    Here(#[expect(dead_code, reason = "ends when dropped")] Serving),
    /// The port is held, and nobody listens.
    Away(tokio::net::TcpSocket),
    Changing,
}

/// The thread that answers. It ends when this is dropped.
struct Serving {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
pub struct State {
    pub content: Mutex<Content>,
    pub bytes: AtomicU64,
    /// Connections on which at least one request came.
    pub connections: AtomicU64,
    /// Token requests being answered, and the most there ever were at once.
    pub token_requests: AtomicU64,
    pub most_token_requests: AtomicU64,
}

#[derive(Default)]
pub struct Content {
    pub blobs: BTreeMap<Digest, Bytes>,
    /// By `repository/reference`, with media type.
    pub manifests: BTreeMap<String, (String, Bytes)>,
    pub faults: Vec<(On, bool, Fault)>,
    pub chaos: Option<Chaos>,
    pub seen: Vec<Seen>,
    pub auth: Auth,
    /// Each with the time at which it ends.
    pub tokens: HashMap<String, Instant>,
    pub token_server: TokenServer,
    pub tokens_given: u64,
    /// Where blobs are redirected to.
    pub storage: Option<(SocketAddr, Arc<State>)>,
    /// The registry whose blobs this storage serves.
    pub upstream: Option<Arc<State>>,
    pub signature: u64,
    /// Tags on a page of their list, and the `Link` to the next one with `QUERY` in its place.
    pub tag_pages: Option<(usize, String)>,
    /// Whether it has the referrers API, with so many entries on a page.
    pub referrers: Option<usize>,
    pub uploads: Uploads,
    /// What else is answered, by path and query.
    pub answers: BTreeMap<String, String>,
    /// Which repository has which blobs; without, all have all.
    pub homes: Option<BTreeSet<(String, Digest)>>,
}

/// How uploads are begun.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub enum Uploads {
    /// With a location that is a path with a query.
    #[default]
    Relative,
    /// With a whole URL.
    Absolute,
    /// With a whole URL on this host.
    Elsewhere(SocketAddr),
}

/// Faults by chance, the same for the same seed and order of requests.
pub struct Chaos {
    random: u64,
    /// One of so many requests goes wrong.
    one_in: u64,
    faults: Vec<Fault>,
    struck: u64,
}

impl Chaos {
    /// The fault of the next request, if it has one.
    pub fn strike(&mut self) -> Option<Fault> {
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut random = self.random;
        random = (random ^ (random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        random = (random ^ (random >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        random ^= random >> 31;
        if !random.is_multiple_of(self.one_in) {
            return None;
        }
        self.struck += 1;
        let chosen = usize::try_from(random / self.one_in).unwrap() % self.faults.len();
        self.faults.get(chosen).cloned()
    }
}

/// What the token server does.
#[derive(Clone)]
pub struct TokenServer {
    /// How long tokens are accepted. It says so in whole seconds.
    pub life: Duration,
    /// How long an answer takes.
    pub delay: Duration,
    /// The identity token that is accepted.
    pub identity: Option<String>,
    /// The status for the GET form; only then passwords are taken in the POST form.
    pub get_refused_with: Option<u16>,
}

impl Default for TokenServer {
    fn default() -> Self {
        Self {
            life: Duration::from_secs(300),
            delay: Duration::ZERO,
            identity: None,
            get_refused_with: None,
        }
    }
}

#[derive(Default, Clone)]
pub enum Auth {
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
        let socket = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let presence = Presence::Here(Serving::start(socket, address, &state));
        Self {
            address,
            state,
            presence: Mutex::new(presence),
        }
    }

    /// Goes away: open connections end at once, new ones are refused. Its port stays its own.
    pub fn away(&self) {
        let mut presence = self.presence.lock().unwrap();
        // What was served ends here, with all of its connections.
        *presence = Presence::Changing;
        let socket = loop {
            match bind(self.address) {
                Ok(socket) => break socket,
                Err(err) if err.kind() == std::io::ErrorKind::AddrInUse => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(err) => panic!("{}: {err}", self.address),
            }
        };
        *presence = Presence::Away(socket);
    }

    /// Comes back where it was.
    pub fn back(&self) {
        let mut presence = self.presence.lock().unwrap();
        if let Presence::Away(socket) = std::mem::replace(&mut *presence, Presence::Changing) {
            *presence = Presence::Here(Serving::start(socket, self.address, &self.state));
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

    /// From now on serves other bytes for the blob that `bytes` is.
    pub fn replace_blob(&self, bytes: &[u8], other: impl Into<Bytes>) {
        self.content()
            .blobs
            .insert(Digest::sha256(bytes), other.into());
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
            let blob = self.put_blob(blob.clone());
            self.content().move_in(repository, blob.digest);
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

    /// From now on one of `one_in` requests for blobs goes wrong, in one of these ways.
    pub fn chaos(&self, seed: u64, one_in: u64, faults: &[Fault]) {
        self.content().chaos = Some(Chaos {
            random: seed,
            one_in,
            faults: faults.to_vec(),
            struck: 0,
        });
    }

    /// How many of the faults given have not struck yet.
    pub fn faults_left(&self) -> usize {
        self.content().faults.len()
    }

    /// Nothing goes wrong any more; how often chance struck.
    pub fn clear_faults(&self) -> u64 {
        let mut content = self.content();
        content.faults.clear();
        content.chaos.take().map_or(0, |chaos| chaos.struck)
    }

    /// From now on only with these credentials.
    pub fn require_basic(&self, user: &str, password: &str) {
        self.content().auth = Auth::Basic(encode(user, password));
    }

    /// From now on only with a token, which needs these credentials if given. The token server is
    /// at `/token` of the same address and writes `token-1`, `token-2`, ...
    pub fn require_token(&self, credentials: Option<(&str, &str)>) {
        self.content().auth =
            Auth::Token(credentials.map(|(user, password)| encode(user, password)));
    }

    /// Changes what the token server does.
    pub fn token_server(&self, change: impl FnOnce(&mut TokenServer)) {
        change(&mut self.content().token_server);
    }

    /// Token requests so far, and how many there were at once at most.
    pub fn token_requests(&self) -> (usize, u64) {
        let seen = &self.content().seen;
        let all = seen.iter().filter(|seen| seen.path == "/token").count();
        (all, self.state.most_token_requests.load(Ordering::Relaxed))
    }

    /// Counts the tokens given so far, from any thread.
    pub fn token_counter(&self) -> impl Fn() -> u64 + Send + 'static {
        let state = Arc::clone(&self.state);
        move || state.content.lock().unwrap().tokens_given
    }

    /// Tokens given so far are no longer accepted.
    pub fn revoke_tokens(&self) {
        self.content().tokens.clear();
    }

    /// Blobs are redirected to `storage` from now on, which refuses `Authorization` and expired
    /// URLs.
    pub fn redirect_blobs_to(&self, storage: &Registry) {
        self.content().storage = Some((storage.address, Arc::clone(&storage.state)));
        storage.content().upstream = Some(Arc::clone(&self.state));
    }

    /// From now on at most so many tags on a page; `link` is the header that names the next one,
    /// whose query replaces `QUERY`.
    pub fn page_tags(&self, count: usize, link: &str) {
        self.content().tag_pages = Some((count, link.to_owned()));
    }

    /// From now on it has the referrers API, with so many entries on a page.
    pub fn have_referrers(&self, page: usize) {
        self.content().referrers = Some(page);
    }

    /// From now on uploads are begun like this.
    pub fn uploads(&self, uploads: Uploads) {
        self.content().uploads = uploads;
    }

    /// From now on each repository has only the blobs that are put there, and takes only what
    /// refers to what it has.
    pub fn separate_repositories(&self) {
        self.content().homes = Some(BTreeSet::new());
    }

    /// From now on answers this JSON to this path and query.
    pub fn answer(&self, path: &str, json: &impl ToString) {
        let mut content = self.content();
        content.answers.insert(path.to_owned(), json.to_string());
    }

    /// A blob.
    pub fn blob(&self, digest: &Digest) -> Option<Bytes> {
        self.content().blobs.get(digest).cloned()
    }

    /// A manifest by `repository/reference`.
    pub fn manifest(&self, name: &str) -> Option<Bytes> {
        let content = self.content();
        content.manifests.get(name).map(|(_, body)| body.clone())
    }

    /// The names of all manifests, as `repository/reference`.
    pub fn manifest_names(&self) -> Vec<String> {
        self.content().manifests.keys().cloned().collect()
    }

    /// Its own address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// URLs that led to this storage so far are refused with 403.
    pub fn expire_urls(&self) {
        self.content().signature += 1;
    }

    /// Requests so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.content().seen.clone()
    }

    /// Requests so far, as `GET path-without-prefix status`, for comparison: digests are cut to 12
    /// digits.
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

    /// Connections so far, those without a request (attempts at TLS) not counted.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.state.content.lock().unwrap()
    }
}

impl Content {
    /// Whether a repository has a blob.
    pub fn has(&self, repository: &str, blob: &Digest) -> bool {
        let home = (repository.to_owned(), *blob);
        let is_home = self
            .homes
            .as_ref()
            .is_none_or(|homes| homes.contains(&home));
        is_home && self.blobs.contains_key(blob)
    }

    /// From now on it does.
    pub fn move_in(&mut self, repository: &str, blob: Digest) {
        if let Some(homes) = &mut self.homes {
            homes.insert((repository.to_owned(), blob));
        }
    }
}

impl Serving {
    fn start(socket: tokio::net::TcpSocket, address: SocketAddr, state: &Arc<State>) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let serving = Arc::clone(state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = socket.listen(1024).unwrap();
                ready.send(()).unwrap();
                tokio::select! {
                    () = serve(listener, address, serving) => {}
                    _ = stopped => {}
                }
            });
        });
        is_ready.recv().unwrap();
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended already.
            let _ended = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // A panic there was printed.
            let _panicked = thread.join();
        }
    }
}

fn bind(address: SocketAddr) -> std::io::Result<tokio::net::TcpSocket> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Base64 of both, as in `Basic`.
pub fn encode(user: &str, password: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
}
