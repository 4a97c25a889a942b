//! Several hosts for one repository: who is asked for what, what each failure of one leads to, and
//! who is sent which credentials.

use imgfs_core::source::ResolvedImage;
use imgfs_core::source::route::Configuration;
use imgfs_formats::oci::Digest;

use super::*;

/// Mirrors and a registry with the same image, configured by files in a directory.
struct Hosts {
    mirrors: Vec<Registry>,
    origin: Registry,
    image: Image,
    dir: tempfile::TempDir,
}

impl Hosts {
    fn new(mirrors: usize) -> Self {
        let image = small_image();
        let with_image = || {
            let registry = Registry::start();
            registry.put_image("r", "latest", &image);
            registry
        };
        Self {
            mirrors: (0..mirrors).map(|_| with_image()).collect(),
            origin: with_image(),
            image,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// `ORIGIN`, `MIRROR0`, `MIRROR1` replaced by the hosts.
    fn fill(&self, text: &str) -> String {
        let mirrors = self.mirrors.iter().enumerate();
        mirrors.fold(
            text.replace("ORIGIN", &self.origin.host()),
            |text, (number, mirror)| text.replace(&format!("MIRROR{number}"), &mirror.host()),
        )
    }

    /// Options with this file in the place of a home directory.
    fn configured(&self, path: &str, text: &str, options: &Options) -> Options {
        let path = self.dir.path().join(self.fill(path));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, self.fill(text)).unwrap();
        let home = |name: &str| (name == "HOME").then(|| self.dir.path().into());
        Options {
            configuration: Configuration::from_env(home, self.dir.path()),
            ..options.clone()
        }
    }

    /// Options with each mirror as one of imgfs's own configuration, with these settings.
    fn own(&self, settings: &str, options: &Options) -> Options {
        let mirrors = (0..self.mirrors.len()).map(|number| {
            format!(
                "[[registry.\"ORIGIN\".mirror]]\nlocation = \"MIRROR{number}\"\nplain-http = true\n{settings}\n"
            )
        });
        let text = format!(
            "[registry.\"ORIGIN\"]\nplain-http = true\n{}",
            mirrors.collect::<String>()
        );
        self.configured(".config/imgfs/config.toml", &text, options)
    }

    fn open(&self, options: &Options) -> Arc<dyn BlobSource> {
        open(&self.origin.reference("r"), options)
    }

    /// All of the image, its layers in four reads each; every byte is right.
    async fn read(&self, source: &dyn BlobSource) -> Result<(), SourceError> {
        let image = resolve_image(source, &linux(), None).await?;
        self.read_layers(source, &image).await
    }

    async fn read_layers(
        &self,
        source: &dyn BlobSource,
        image: &ResolvedImage,
    ) -> Result<(), SourceError> {
        for (layer, truth) in image.manifest.layers.iter().zip(&self.image.layers) {
            for part in 0..4 {
                let range = layer.size * part / 4..layer.size * (part + 1) / 4;
                let got = read(source, layer, range.clone()).await?;
                assert!(got == truth.blob[positions(&range)], "{range:?}");
            }
        }
        Ok(())
    }

    /// Requests to each mirror, then to the registry.
    fn counts(&self) -> Vec<usize> {
        let all = self.mirrors.iter().chain([&self.origin]);
        all.map(|registry| registry.requests().len()).collect()
    }
}

/// Manifest, config and four reads of two layers.
const ALL: usize = 10;

/// Warnings of this thread, as long as the guard lives.
fn warnings() -> (tracing::subscriber::DefaultGuard, impl Fn() -> Vec<String>) {
    super::secrets::keep_places_logging();
    let lines = super::secrets::Log::default();
    let written = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .without_time()
        .with_writer(move || lines.clone())
        .finish();
    let all = move || {
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    (tracing::subscriber::set_default(subscriber), all)
}

#[tokio::test]
async fn the_first_that_is_healthy_serves_everything() {
    let hosts = Hosts::new(2);
    let source = hosts.open(&hosts.own("", &options()));
    hosts.read(source.as_ref()).await.unwrap();
    assert_eq!(hosts.counts(), [ALL, 0, 0]);
    assert_eq!(source.shortcoming(), None);
    // What a tag means the registry itself says, if the mirrors may not.
    let hosts = Hosts::new(2);
    let source = hosts.open(&hosts.own("tags = false", &options()));
    hosts.read(source.as_ref()).await.unwrap();
    assert_eq!(hosts.counts(), [ALL - 1, 0, 1]);
    assert_eq!(hosts.origin.log(), ["GET /v2/r/manifests/latest 200"]);
    source.tags().await.unwrap();
    assert_eq!(hosts.counts(), [ALL - 1, 0, 2]);
}

#[tokio::test]
async fn proxies_are_told_the_registry_and_the_registry_is_not() {
    let hosts = Hosts::new(1);
    let own = r#"
        [registry."ORIGIN"]
        plain-http = true
        [[registry."ORIGIN".mirror]]
        proxy = "http://MIRROR0"
        headers = { X-Team = "blue" }
    "#;
    let hosts_toml = r#"
        server = "http://ORIGIN"
        [host."http://MIRROR0"]
        [host."http://MIRROR0".header]
        x-team = "blue"
    "#;
    for (path, text) in [
        (".config/containerd/certs.d/ORIGIN/hosts.toml", hosts_toml),
        (".config/imgfs/config.toml", own),
    ] {
        let options = hosts.configured(path, text, &options());
        let storage = Registry::start();
        hosts.mirrors[0].redirect_blobs_to(&storage);
        hosts.read(hosts.open(&options).as_ref()).await.unwrap();
        // The registry is asked when the proxy is gone, and is told nothing.
        hosts.mirrors[0].away();
        hosts.read(hosts.open(&options).as_ref()).await.unwrap();
        let namespace = format!("ns={}", hosts.origin.host().replace(':', "%3A"));
        for seen in hosts.mirrors[0].requests() {
            assert_eq!(seen.query, namespace, "{path}");
            assert_eq!(seen.headers["x-team"], "blue", "{path}");
        }
        for seen in [hosts.origin.requests(), storage.requests()].concat() {
            assert!(!seen.query.contains("ns="), "{path}: {}", seen.query);
            assert!(!seen.headers.contains_key("x-team"), "{path}");
        }
        assert_eq!(
            hosts.mirrors[0].requests().len(),
            1 + 3,
            "each blob's place"
        );
        assert!(!storage.requests().is_empty());
        assert_eq!(hosts.origin.requests().len(), ALL, "{path}");
        hosts.mirrors[0].back();
        hosts.mirrors[0].forget_requests();
        hosts.origin.forget_requests();
    }
}

/// Reads everything while the first of two hosts has this fault: requests to it, and what is said
/// of it.
async fn pass_over(spoil: &dyn Fn(&Registry)) -> (usize, usize, String) {
    let hosts = Hosts::new(1);
    let (_guard, warnings) = warnings();
    spoil(&hosts.mirrors[0]);
    let mut options = impatient();
    options.timeouts.race = Duration::from_secs(5);
    let source = hosts.open(&hosts.own("", &options));
    hosts.read(source.as_ref()).await.unwrap();
    let warnings = warnings();
    let shortcoming = source.shortcoming().unwrap_or_default();
    let name = hosts.mirrors[0].host();
    assert_eq!(
        warnings.len(),
        usize::from(!shortcoming.is_empty()),
        "{warnings:?}"
    );
    assert!(
        warnings.iter().all(|line| line.contains(&name)),
        "{warnings:?}"
    );
    assert!(
        shortcoming.is_empty() || shortcoming.contains(&name),
        "{shortcoming}"
    );
    let [mirror, origin] = hosts.counts()[..] else {
        panic!("two hosts");
    };
    (mirror, origin, shortcoming)
}

/// The first of two hosts has this fault: requests to it, those that the other one gets instead,
/// and what is said.
async fn check(spoil: &dyn Fn(&Registry), asked: usize, instead: usize, said: &str) {
    let (mirror, origin, shortcoming) = pass_over(spoil).await;
    assert!(shortcoming.contains(said), "{shortcoming}");
    assert_eq!((mirror, origin), (asked, instead), "{said}: {shortcoming}");
}

/// Likewise with this fault at all its answers.
async fn check_all(fault: Fault, asked: usize, said: &str) {
    let spoil = |mirror: &Registry| mirror.fault_always(On::Any, fault.clone());
    check(&spoil, asked, ALL, said).await;
}

/// Likewise with this fault at blobs: `asked` for so many of everything, and not for the rest.
async fn check_blobs(fault: Fault, asked: usize, said: &str) {
    let spoil = |mirror: &Registry| mirror.fault_always(On::Blob, fault.clone());
    check(&spoil, asked, ALL + 1 - asked, said).await;
}

#[tokio::test]
async fn a_mirror_that_does_not_answer_is_passed_over_and_left_alone() {
    check(&|mirror| mirror.away(), 0, ALL, "nothing listens there").await;
    for status in [401, 403, 429, 500, 501, 503] {
        let words = match status {
            401 | 403 => "refuses access".to_owned(),
            other => format!("unexpected status {other}"),
        };
        check_all(Fault::Status(status), 1, &words).await;
        check_blobs(Fault::Status(status), 2, &words).await;
    }
    check_all(Fault::Drop, 1, "broke off").await;
    check_all(Fault::Silence, 1, "an answer did not come").await;
    check_blobs(Fault::Silence, 2, "an answer did not come").await;
    for bytes in [0, 9] {
        check_blobs(Fault::Stall(bytes), 2, "the next byte did not come").await;
        check_blobs(Fault::Truncate(bytes), 2, "broke off").await;
    }
}

#[tokio::test]
async fn a_mirror_that_answers_wrongly_is_passed_over_and_left_alone() {
    check_all(Fault::Redirect("/v2/x".into()), 11, "too many redirects").await;
    check_all(Fault::Redirect("ftp://x".into()), 1, "usable Location").await;
    let encoding = Fault::Header("content-encoding", "gzip");
    check_all(encoding, 1, "Content-Encoding").await;
    // Ranges come after the config, which is asked for whole.
    check_blobs(Fault::WrongRange, 3, "asked for bytes").await;
    check_blobs(Fault::WrongTotal, 3, "bytes but").await;
    check_blobs(Fault::Status(416), 2, "should have").await;
    // A manifest against what is announced, and a page in its place.
    let garbage = |mirror: &Registry| mirror.fault_always(On::Manifest, Fault::Corrupt);
    check(&garbage, 1, ALL, "does not match its digest").await;
    let page = |mirror: &Registry| {
        mirror.put_manifest("r", "latest", "text/html", "<html>log in</html>");
    };
    check(&page, 1, ALL, "what a tag points to").await;
    // A config with another byte is found out by who reads it, and only that blob is asked for
    // elsewhere.
    let hosts = Hosts::new(1);
    hosts.mirrors[0].fault_always(On::Blob, Fault::Corrupt);
    let source = hosts.open(&hosts.own("", &options()));
    resolve_image(source.as_ref(), &linux(), None)
        .await
        .unwrap();
    assert_eq!(hosts.counts(), [2, 1]);
    let said = source.shortcoming().unwrap();
    assert!(said.contains("wrong bytes of blob"), "{said}");
}

#[tokio::test]
async fn a_mirror_without_a_blob_is_asked_for_it_once() {
    let hosts = Hosts::new(1);
    let source = hosts.open(&hosts.own("", &options()));
    let image = resolve_image(source.as_ref(), &linux(), None)
        .await
        .unwrap();
    hosts.mirrors[0].fault_always(On::Blob, Fault::Status(404));
    hosts.read_layers(source.as_ref(), &image).await.unwrap();
    assert_eq!(hosts.counts(), [2 + 2, 8]);
    assert_eq!(
        source.shortcoming(),
        None,
        "mirrors need not have everything"
    );
    // It may have it by now, and nobody else gives it.
    hosts.mirrors[0].clear_faults();
    hosts.origin.fault_always(On::Blob, Fault::Status(404));
    hosts
        .read_layers(source.as_ref(), &image)
        .await
        .unwrap_err();
    hosts
        .read_layers(source.as_ref(), &image)
        .await
        .unwrap_err();
    hosts.read_layers(source.as_ref(), &image).await.unwrap();
    // A whole image that it does not have is the registry's.
    let hosts = Hosts::new(1);
    hosts.mirrors[0].fault_always(On::Any, Fault::Status(404));
    let source = hosts.open(&hosts.own("", &options()));
    hosts.read(source.as_ref()).await.unwrap();
    assert_eq!(hosts.counts(), [1 + 3, ALL]);
}

#[tokio::test]
async fn wrong_bytes_of_a_layer_are_had_from_the_next_host() {
    let hosts = Hosts::new(2);
    let source = hosts.open(&hosts.own("", &options()));
    let image = resolve_image(source.as_ref(), &linux(), None)
        .await
        .unwrap();
    let layer = &image.manifest.layers[0];
    let truth = &hosts.image.layers[0].blob;
    for mirror in &hosts.mirrors {
        mirror.fault_always(On::Blob, Fault::Corrupt);
    }
    let (_guard, warnings) = warnings();
    let mut rejected = 0;
    loop {
        let stream = source.open(layer, 0..layer.size).await.unwrap();
        let provenance = stream.provenance();
        if collect(stream).await.unwrap() == *truth {
            break;
        }
        rejected += 1;
        assert!(source.reject(layer, 0, &provenance), "somebody is left");
    }
    assert_eq!(rejected, 2);
    assert_eq!(warnings().len(), 2, "{:?}", warnings());
    // Nobody who lied is asked for this blob again.
    let before = hosts.counts();
    read(source.as_ref(), layer, 10..20).await.unwrap();
    assert_eq!(hosts.counts(), [before[0], before[1], before[2] + 1]);
}

#[tokio::test]
async fn all_of_them_lying_is_an_error_and_the_next_read_asks_again() {
    let hosts = Hosts::new(1);
    let source = hosts.open(&hosts.own("", &options()));
    let resolved = source.resolve(None).await.unwrap();
    for registry in hosts.mirrors.iter().chain([&hosts.origin]) {
        registry.fault_always(On::Blob, Fault::Corrupt);
    }
    let err = imgfs_core::source::image_of(source.as_ref(), resolved, &linux()).await;
    assert!(matches!(err, Err(SourceError::Digest { .. })), "{err:?}");
    // The mirror once, the registry twice, as that may have been the network.
    assert_eq!(hosts.counts(), [2, 2]);
    hosts.mirrors[0].clear_faults();
    hosts.read(source.as_ref()).await.unwrap();
    assert_eq!(hosts.counts(), [2 + ALL, 2]);
}

#[tokio::test]
async fn a_mirror_that_may_come_back_is_waited_for_where_the_registry_refuses() {
    for status in [401, 403, 404] {
        let hosts = Hosts::new(1);
        let source = hosts.open(&hosts.own("", &options()));
        let image = resolve_image(source.as_ref(), &linux(), None)
            .await
            .unwrap();
        hosts.origin.fault_always(On::Any, Fault::Status(status));
        hosts.mirrors[0].fault(On::Blob, Fault::RetryAfter(503, "1"));
        let begin = std::time::Instant::now();
        hosts.read_layers(source.as_ref(), &image).await.unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(900));
        assert_eq!(hosts.counts(), [ALL + 1, 1], "{status}");
        // A name that nobody has is nobody's to wait for.
        hosts.mirrors[0].fault_always(On::Any, Fault::Status(503));
        let begin = std::time::Instant::now();
        let err = source.resolve(None).await.unwrap_err();
        assert!(!err.is_transient(), "{err}");
        assert!(begin.elapsed() < Duration::from_millis(900));
    }
}

#[tokio::test]
async fn a_tag_only_mirror_serves_all_of_what_a_tag_names() {
    let hosts = Hosts::new(1);
    let conf = r#"
        [[registry]]
        location = "ORIGIN"
        [[registry.mirror]]
        location = "MIRROR0"
        pull-from-mirror = "tag-only"
    "#;
    let options = hosts.configured(".config/containers/registries.conf", conf, &options());
    hosts.read(hosts.open(&options).as_ref()).await.unwrap();
    assert_eq!(hosts.counts(), [ALL, 0]);
    let digest = super::support::image::descriptor("", &hosts.image.manifest).digest;
    let pinned = open(&hosts.origin.reference(&format!("r@{digest}")), &options);
    hosts.read(pinned.as_ref()).await.unwrap();
    assert_eq!(hosts.counts(), [ALL, ALL]);
}

/// What was sent as `Authorization` to a mirror and to the registry, which want it by name, for
/// these settings of the mirror and entries of the credential file.
async fn sent(
    settings: &str,
    entries: &[(&str, &str)],
    by_token: bool,
) -> (Result<(), SourceError>, [Vec<String>; 2]) {
    let hosts = Hosts::new(1);
    let passwords = [(&hosts.mirrors[0], "hers"), (&hosts.origin, "his")];
    for (registry, password) in passwords {
        if by_token {
            registry.require_token(Some(("user", password)));
        } else {
            registry.require_basic("user", password);
        }
    }
    let encode = support::registry::encode;
    let auths: serde_json::Map<_, _> = entries
        .iter()
        .map(|(host, password)| {
            let entry = serde_json::json!({"auth": encode("user", password)});
            (hosts.fill(host), entry)
        })
        .collect();
    let file = hosts.dir.path().join("auth.json");
    std::fs::write(&file, serde_json::json!({ "auths": auths }).to_string()).unwrap();
    let options = Options {
        credentials: Credentials::new(vec![file]),
        ..options()
    };
    let source = hosts.open(&hosts.own(settings, &options));
    let result = hosts.read(source.as_ref()).await;
    let of = |registry: &Registry| {
        let requests = registry.requests().into_iter();
        let mut given: Vec<String> = requests
            .filter_map(|seen| seen.authorization)
            .filter(|given| given.starts_with("Basic "))
            .map(|given| {
                let known = ["hers", "his"].into_iter();
                let mut known = known.filter(|one| given.ends_with(&encode("user", one)));
                known.next().unwrap_or("other").to_owned()
            })
            .collect();
        given.dedup();
        given
    };
    (result, [of(&hosts.mirrors[0]), of(&hosts.origin)])
}

#[tokio::test]
async fn each_host_is_sent_its_own_credentials_only() {
    for by_token in [false, true] {
        let check = async |settings: &str, entries: &[(&str, &str)], expected: [&[&str]; 2]| {
            let (result, sent) = sent(settings, entries, by_token).await;
            result.unwrap();
            assert_eq!(sent, expected, "{settings} {entries:?} {by_token}");
        };
        let (both, only) = (
            [("ORIGIN", "his"), ("MIRROR0", "hers")],
            [("ORIGIN", "his")],
        );
        check("", &both, [&["hers"], &[]]).await;
        check("", &only, [&[], &["his"]]).await;
        check("credentials = \"none\"", &both, [&[], &["his"]]).await;
        // Sent although they are of no use there, as the file says so.
        check("credentials = \"upstream\"", &only, [&["his"], &["his"]]).await;
    }
}

/// A mirror that only lacked the config was taken for one that might still give it: the registry
/// with the wrong bytes was asked for ever.
#[tokio::test]
async fn the_last_hosts_lies_have_an_end_whatever_the_mirrors_do() {
    let hosts = Hosts::new(2);
    hosts.mirrors[0].fault_always(On::Blob, Fault::Status(404));
    hosts.mirrors[1].fault_always(On::Any, Fault::Drop);
    hosts.origin.fault_always(On::Blob, Fault::Corrupt);
    let source = hosts.open(&hosts.own("", &options()));
    for _ in 0..2 {
        let err = hosts.read(source.as_ref()).await.unwrap_err();
        assert!(matches!(err, SourceError::Digest { .. }), "{err}");
    }
    let sent = hosts.origin.requests().len();
    assert!(sent <= 8, "{sent} requests for two attempts");
    hosts.origin.clear_faults();
    hosts.read(source.as_ref()).await.unwrap();
}

/// A mirror on the registry's own host (another project of it) rested, and the registry with it.
#[tokio::test]
async fn a_mirror_on_the_registrys_own_host_fails_alone() {
    let hosts = Hosts::new(0);
    let text = "[registry.\"ORIGIN\"]\nplain-http = true\n\
                [[registry.\"ORIGIN\".mirror]]\nlocation = \"ORIGIN/cache\"\nplain-http = true\n";
    let options = hosts.configured(".config/imgfs/config.toml", text, &options());
    hosts.origin.fault(On::Any, Fault::Status(403));
    let source = hosts.open(&options);
    hosts.read(source.as_ref()).await.unwrap();
    let requests = hosts.origin.requests();
    let of_mirror = requests.iter().filter(|seen| seen.path.contains("/cache/"));
    assert_eq!((of_mirror.count(), requests.len()), (1, ALL + 1));
}

/// A storage node that is gone was asked until its URL expired, though the registry knew a better
/// one.
#[tokio::test]
async fn a_storage_that_is_gone_makes_the_registry_asked_anew() {
    let registry = Registry::start();
    let storages = [Registry::start(), Registry::start()];
    let blob = registry.put_blob(super::faults::content());
    let source = open(&registry.reference("r"), &options());
    registry.redirect_blobs_to(&storages[0]);
    read(source.as_ref(), &blob, 0..10).await.unwrap();
    registry.redirect_blobs_to(&storages[1]);
    storages[0].away();
    let got = read(source.as_ref(), &blob, 10..1000).await.unwrap();
    assert_eq!(got, super::faults::content()[10..]);
    assert_eq!(registry.requests().len(), 2);
}

#[tokio::test]
async fn referrers_are_asked_for_until_somebody_has_some() {
    let hosts = Hosts::new(2);
    let manifest = Digest::sha256(&hosts.image.manifest);
    let kind = "application/vnd.test";
    let artifact = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","artifactType":"{kind}","subject":{{"mediaType":"{}","digest":"{manifest}","size":1}}}}"#,
        support::image::OCI_MANIFEST,
        support::image::OCI_MANIFEST
    );
    hosts.origin.have_referrers(10);
    hosts
        .origin
        .put_manifest("r", "artifact", support::image::OCI_MANIFEST, artifact);
    // One mirror knows no referrers, the other one refuses.
    hosts.mirrors[1].fault_always(On::Referrers, Fault::Status(403));
    hosts.mirrors[1].fault_always(On::Manifest, Fault::Status(403));
    let source = hosts.open(&hosts.own("", &options()));
    let found = source.referrers(&manifest, kind).await.unwrap();
    assert_eq!(found.len(), 1);
    for registry in hosts.mirrors.iter().chain([&hosts.origin]) {
        let asked = registry.requests().len();
        assert!((1..=2).contains(&asked), "{asked} requests");
    }
    // That it refuses this is no reason to leave it alone, nor a problem worth mentioning.
    assert_eq!(source.shortcoming(), None);
    let nothing = source.referrers(&manifest, "text/other").await.unwrap();
    assert!(nothing.is_empty());
}
