//! Names of tar members: cleaning them, and telling whiteouts from entries.
//!
//! Cleaning is lexical, as the established unpackers do it (`Clean("/" + name)`): `./`, `//`,
//! leading and trailing `/` vanish, `..` takes the component before it away and stops at the root.

/// Prefix of every whiteout's name.
const WHITEOUT: &[u8] = b".wh.";
/// Hides all that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Prefix of AUFS's own metadata (`.wh..wh.aufs`, `.plnk`, `.orph`), which removes nothing.
const AUFS: &[u8] = b".wh..wh.";

/// What the last component of a name makes of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role<'a> {
    /// A file, directory, link or device.
    Entry,
    /// Removes this name from the layers below.
    Remove(&'a [u8]),
    /// Removes everything that the layers below have in the directory.
    Opaque,
    /// AUFS metadata: neither shown nor obeyed.
    Metadata,
    /// A whiteout of nothing, of `.` or of `..`.
    Invalid,
}

/// The role of a member whose last component is `name`.
pub(super) fn role(name: &[u8]) -> Role<'_> {
    let Some(removed) = name.strip_prefix(WHITEOUT) else {
        return Role::Entry;
    };
    match removed {
        _ if name == OPAQUE => Role::Opaque,
        _ if name.starts_with(AUFS) => Role::Metadata,
        b"" | b"." | b".." => Role::Invalid,
        _ => Role::Remove(removed),
    }
}

/// The part before the last `/` and the part behind it, trailing slashes removed.
pub(super) fn split_last(path: &[u8]) -> (&[u8], &[u8]) {
    let mut path = path;
    while let [rest @ .., b'/'] = path {
        path = rest;
    }
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (
            path.get(..slash).unwrap_or_default(),
            path.get(slash + 1..).unwrap_or_default(),
        ),
        None => (&[], path),
    }
}

/// Puts the cleaned components of `path` in place of what `components` held.
pub(super) fn clean<'a>(path: &'a [u8], components: &mut Vec<&'a [u8]>) {
    components.clear();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            name => components.push(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_within_the_root() {
        for (path, expected) in [
            ("", ""),
            ("/", ""),
            (".", ""),
            ("./", ""),
            ("a", "a"),
            ("./a/b/", "a/b"),
            ("/a//b", "a/b"),
            ("a/./b/.", "a/b"),
            ("a/../b", "b"),
            ("../../etc", "etc"),
            ("a/../../..", ""),
            ("...", "..."),
            ("a/..b", "a/..b"),
        ] {
            let mut components = Vec::new();
            clean(path.as_bytes(), &mut components);
            assert_eq!(components.join(&b'/'), expected.as_bytes(), "{path}");
        }
    }

    #[test]
    fn whiteouts_are_told_by_their_name() {
        for (name, expected) in [
            ("a", Role::Entry),
            (".wh", Role::Entry),
            ("wh.a", Role::Entry),
            (".wh.a", Role::Remove(b"a")),
            (".wh..a", Role::Remove(b".a")),
            (".wh....", Role::Remove(b"...")),
            (".wh..wh..opq", Role::Opaque),
            (".wh..wh..opqx", Role::Metadata),
            (".wh..wh.aufs", Role::Metadata),
            (".wh..wh.", Role::Metadata),
            (".wh.", Role::Invalid),
            (".wh..", Role::Invalid),
            (".wh...", Role::Invalid),
        ] {
            assert_eq!(role(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn the_last_component_is_split_off() {
        for (path, parent, name) in [
            ("a", "", "a"),
            ("a/", "", "a"),
            ("/a", "", "a"),
            ("./a/b//", "./a", "b"),
            ("///", "", ""),
            ("a/..", "a", ".."),
        ] {
            let expected = (parent.as_bytes(), name.as_bytes());
            assert_eq!(split_last(path.as_bytes()), expected, "{path}");
        }
    }
}
