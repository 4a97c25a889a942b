//! What texts mean as references.

use super::*;

const HEX: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

fn check(text: &str, expected: &str) {
    let text = text.replace("HEX", HEX);
    let expected = expected.replace("HEX", HEX);
    match text.parse::<Reference>() {
        Ok(reference) => {
            assert_eq!(reference.to_string(), expected, "{text}");
            let again: Reference = expected.parse().unwrap();
            assert_eq!(again, reference, "{text} is stable");
        }
        Err(err) => {
            let err = err.to_string();
            assert!(err.contains(&expected), "{text}: {err}");
        }
    }
}

/// The inputs of distribution/reference's own tests, and what they normalise to or why they are
/// refused.
#[test]
fn references_normalise_or_say_what_to_write() {
    check("test_com", "docker.io/library/test_com:latest");
    check("test.com:tag", "docker.io/library/test.com:tag");
    check("test.com:5000", "docker.io/library/test.com:5000");
    check("test.com/repo:tag", "test.com/repo:tag");
    check("test:5000/repo", "test:5000/repo:latest");
    check("test:5000/repo:tag", "test:5000/repo:tag");
    check("test:5000/repo@sha256:HEX", "test:5000/repo@sha256:HEX");
    check(
        "test:5000/repo:tag@sha256:HEX",
        "test:5000/repo:tag@sha256:HEX",
    );
    check("", "name is empty");
    check(":justtag", "no repository name");
    check("@sha256:HEX", "no repository name");
    check(
        "repo@sha256:ffffffffffffffffffffffffffffffffff",
        "64 lower-case",
    );
    check("validname@invaliddigest:HEX", "unsupported algorithm");
    check("Uppercase:tag", "write \"uppercase\"");
    check("Uppercase/lowercase:tag", "Uppercase/lowercase:tag");
    check("test:5000/Uppercase/lowercase:tag", "lower case");
    check(
        "lowercase:Uppercase",
        "docker.io/library/lowercase:Uppercase",
    );
    check(&format!("{}a:tag", "a/".repeat(128)), "more than the limit");
    check(
        &format!("{}a:tag-puts-this-over-max", "a/".repeat(127)),
        &format!("docker.io/{}a:tag-puts-this-over-max", "a/".repeat(127)),
    );
    check("aa/asdf$$^/aa", "\"asdf$$^\" is no repository name");
    check(
        "sub-dom1.foo.com/bar/baz/quux",
        "sub-dom1.foo.com/bar/baz/quux:latest",
    );
    check(
        "b.gcr.io/test.example.com/my-app:test.example.com",
        "b.gcr.io/test.example.com/my-app:test.example.com",
    );
    check(
        "xn--n3h.com/myimage:xn--n3h.com",
        "xn--n3h.com/myimage:xn--n3h.com",
    );
    check(
        "xn--7o8h.com/myimage:xn--7o8h.com@sha512:HEXHEX",
        "xn--7o8h.com/myimage:xn--7o8h.com@sha512:HEXHEX",
    );
    check("foo_bar.com:8080", "docker.io/library/foo_bar.com:8080");
    check("foo/foo_bar.com:8080", "docker.io/foo/foo_bar.com:8080");
    check("192.168.1.1", "docker.io/library/192.168.1.1:latest");
    check("192.168.1.1:5000/repo:5050", "192.168.1.1:5000/repo:5050");
    check("[2001:db8::1]", "no repository name");
    check("[2001:db8::1]:5000", "no repository name");
    check("[2001:db8::1]/repo", "[2001:db8::1]/repo:latest");
    check("[2001:db8::1]:5000/repo:tag", "[2001:db8::1]:5000/repo:tag");
    check("[::1]:5000/repo", "[::1]:5000/repo:latest");
    check("[fe80::1%eth0]:5000/repo", "no host name");
    check("[fe80::1%@invalidzone]:5000/repo", "form algorithm:hex");
    check(
        "https://github.com/docker/docker",
        "\"github.com/docker/docker\"",
    );
    check("-docker", "no repository name");
    check("-docker.io/docker/docker", "no host name");
    check("docker///docker", "\"\" is no repository name");
    check("fc00::1:5000/debian", "no host name");
    check("[2001:db8:3:4::192.0.2.33]:5000/debian", "no host name");
    check("HEX", "bare image id");
    check("docker.io/HEX", "docker.io/library/HEX:latest");
    check("index.docker.io/debian", "docker.io/library/debian:latest");
    check(
        "docker---rules/dock__er",
        "docker.io/docker---rules/dock__er:latest",
    );
    check("name:", "\"\" is no tag");
    check("name:/etc", "`imgfs ls name /etc`");
    check(
        "h:5000/name:1:/etc/x:y",
        "`imgfs ls h:5000/name:1 /etc/x:y`",
    );
    check("name:-foo", "\"-foo\" is no tag");
    check("localhost/x", "localhost/x:latest");
    check("localhost:99999/x", "no host name");
}

#[test]
fn path_components_are_words_and_separators() {
    for bad in [
        "docker-/docker",
        "____/____",
        "_docker/_docker",
        "docker/",
        "h.io/dock..er/docker",
        "h.io/dock_.er/docker",
        "h.io/dock-.er/docker",
    ] {
        check(bad, "no repository name");
    }
    check("dock..er/docker", "no host name");
}

#[test]
fn transports_are_named_as_skopeo_names_them() {
    check("docker://golang", "docker.io/library/golang:latest");
    check("docker://oci:x", "docker.io/library/oci:x");
    check("docker://", "name is empty");
    check("oci:/a/b", "oci:/a/b");
    check("oci:a:tag", "oci:a:tag");
    check("oci:a:", "is no tag");
    check("oci:", "path is missing");
    check(
        &format!("oci:a:t@sha256:{HEX}"),
        &format!("oci:a:t@sha256:{HEX}"),
    );
    check("oci:a@b/c", "oci:a@b/c");
    check("docker-archive:a.tar", "docker-archive:a.tar");
    check(
        "docker-archive:a.tar:busybox",
        "docker-archive:a.tar:docker.io/library/busybox:latest",
    );
    check("docker-archive:a.tar:@1", "docker-archive:a.tar:@1");
    check("docker-archive::x", "path is missing");
    check("docker-daemon:x", "docker save");
    check("oci-archive:x", "tar -xf");
}

#[test]
fn short_forms_leave_out_what_everybody_knows() {
    let check = |text: &str, expected: &str| {
        assert_eq!(text.parse::<Reference>().unwrap().short(), expected);
    };
    check("golang", "golang:latest");
    check("docker.io/library/foo/bar", "library/foo/bar:latest");
    check("ghcr.io/a/b:c", "ghcr.io/a/b:c");
    check(&format!("a/b@sha256:{HEX}"), "a/b@sha256:ffffffffffff");
}

#[test]
fn short_names_have_no_host() {
    let check = |text: &str, expected: Option<(&str, &str)>| {
        let found = ShortName::parse(&text.replace("HEX", HEX));
        let found = found.map(|short| (short.name, short.suffix.replace(HEX, "HEX")));
        let found = found
            .as_ref()
            .map(|(name, suffix)| (name.as_str(), suffix.as_str()));
        assert_eq!(found, expected, "{text}");
    };
    check("golang", Some(("golang", "")));
    check(" golang:1.22 ", Some(("golang", ":1.22")));
    check("a/b@sha256:HEX", Some(("a/b", "@sha256:HEX")));
    check("a/b:c@sha256:HEX", Some(("a/b", ":c@sha256:HEX")));
    check("localhost", Some(("localhost", "")));
    check("test.com:5000", Some(("test.com", ":5000")));
    check("docker.io/golang", None);
    check("localhost/x", None);
    check("h:1/x", None);
    check("docker://golang", None);
    check("oci:golang", None);
    check("docker-archive:golang", None);
    check("Golang", None);
    check("", None);
}
