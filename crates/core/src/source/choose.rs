//! Which image of a local layout or archive is meant: by digest, by tag, or the only one.

use std::collections::BTreeSet;
use std::path::Path;

use super::error::SourceError;
use imgfs_formats::oci::{Descriptor, Digest, ImageIndex};

/// The tag of a manifest in an OCI layout's index (image-spec annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name beside it, as containerd and newer docker versions write it.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// Chooses from the `index.json` of the layout at `path`.
pub(super) fn choose<'a>(
    index: &'a ImageIndex,
    tag: Option<&str>,
    digest: Option<&Digest>,
    path: &Path,
) -> Result<&'a Descriptor, SourceError> {
    let error = |problem: String| SourceError::Local {
        path: path.to_owned(),
        problem,
    };
    if let Some(digest) = digest {
        return index
            .manifests
            .iter()
            .find(|entry| entry.digest == *digest)
            .ok_or_else(|| error(format!("its index does not list {digest}{}", list(index))));
    }
    if let Some(tag) = tag {
        return index
            .manifests
            .iter()
            .find(|entry| names(entry).any(|name| name == tag))
            .ok_or_else(|| error(format!("it has no image {tag:?}{}", list(index))));
    }
    // One image under several tags is still one image.
    let mut entries = index.manifests.iter();
    let Some(first) = entries.next() else {
        return Err(error("it has no image".to_owned()));
    };
    if entries.all(|entry| entry.digest == first.digest) {
        Ok(first)
    } else {
        Err(error(format!("it has several images{}", list(index))))
    }
}

fn names(entry: &Descriptor) -> impl Iterator<Item = &str> {
    [IMAGE_NAME, REF_NAME]
        .into_iter()
        .filter_map(|key| entry.annotations.get(key))
        .map(String::as_str)
}

/// The tags of the index, each once.
pub(super) fn tags(index: &ImageIndex) -> Vec<String> {
    let tags: BTreeSet<&String> = (index.manifests.iter())
        .filter_map(|entry| entry.annotations.get(REF_NAME))
        .collect();
    tags.into_iter().cloned().collect()
}

/// What there is to choose from.
fn list(index: &ImageIndex) -> String {
    let listed: Vec<String> = index
        .manifests
        .iter()
        .map(|entry| match names(entry).next() {
            Some(name) => format!(":{name}"),
            None => format!("@{}", entry.digest),
        })
        .collect();
    if listed.is_empty() {
        return ", nor any other".to_owned();
    }
    format!(": add one of {}", listed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn index(tags: &[&str]) -> ImageIndex {
        let manifests = tags
            .iter()
            .map(|tag| Descriptor {
                media_type: String::new(),
                digest: Digest::sha256(tag.as_bytes()),
                size: 0,
                urls: Vec::new(),
                annotations: if tag.is_empty() {
                    BTreeMap::new()
                } else {
                    BTreeMap::from([(REF_NAME.to_owned(), (*tag).to_owned())])
                },
                artifact_type: String::new(),
                platform: None,
            })
            .collect();
        ImageIndex {
            manifests,
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn images_are_chosen_or_listed() {
        let check = |tags: &[&str], tag: Option<&str>, expected: &str| {
            let index = index(tags);
            let got = match choose(&index, tag, None, Path::new("/l")) {
                Ok(chosen) => names(chosen).next().unwrap_or("-").to_owned(),
                Err(err) => err.to_string(),
            };
            assert!(got.contains(expected), "{tags:?} {tag:?}: {got}");
        };
        check(&[""], None, "-");
        check(&["a"], None, "a");
        check(&["a", "b"], Some("b"), "b");
        check(&["a", "b"], None, "several images: add one of :a, :b");
        check(
            &["a", ""],
            Some("c"),
            "no image \"c\": add one of :a, @sha256:",
        );
        check(&[], None, "no image");
        check(&[], Some("x"), "nor any other");
    }
}
