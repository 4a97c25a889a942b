//! Tars in pieces of any size, and the trees made of them.

use crate::layer::{ContentPass, EntryKind, TarScanner, Toc};
use crate::tree::{PartialTree, Tree};
use crate::{lengths, pieces};

const BLOCK: usize = 512;

/// However a tar is cut into pieces, the same comes out; and a tree can be made of it.
pub fn tar(data: &[u8]) {
    let mut data = data.to_vec();
    fix_checksums(&mut data);
    let whole = scan(&data, [data.as_slice()].into_iter());
    for most in [1, 700, 5000] {
        let cut = scan(&data, pieces(&data, lengths(&data, most)).into_iter());
        match (&whole, &cut) {
            (Ok(whole), Ok(cut)) => {
                assert!(whole == cut, "pieces up to {most} give something else")
            }
            (Err(_), Err(_)) => {}
            _ => panic!("whole: {whole:?}; in pieces up to {most}: {cut:?}"),
        }
    }
    let Ok((toc, digests, _)) = whole else { return };
    assert_eq!(files(&toc), digests.len());
    let bytes = toc.encode();
    assert_eq!(Toc::decode(&bytes, data.len() as u64).as_ref(), Ok(&toc));
    build(&[&toc]);
    build(&[&toc, &toc]);
    // Half of the entries above all of them: whiteouts and replaced parents.
    let (_, end) = data.split_at(data.len() / BLOCK / 2 * BLOCK);
    if let Ok((above, _, _)) = scan(end, [end].into_iter()) {
        build(&[&toc, &above]);
    }
}

/// A tree's parts fit together, whatever it was made of.
pub(crate) fn build(layers: &[&Toc]) {
    if let Ok((tree, _)) = Tree::build(layers) {
        look_at(&tree);
    }
    if let Ok((tree, _)) = PartialTree::build(layers) {
        let root = tree.tree().resolve(b"/", true).expect("there is a root");
        let _ = (tree.listing(root), tree.knows_subtree(root));
    }
}

fn look_at(tree: &Tree) {
    for number in 1..=tree.len() as u64 {
        let ino = crate::tree::Ino::new(number);
        let node = tree.node(ino).expect("numbers are dense");
        let _ = (tree.content(node), tree.xattrs(node));
        let path = tree.path(ino).expect("each node has a path");
        assert_eq!(
            tree.resolve(&path, false),
            Ok(ino),
            "{}",
            path.escape_ascii()
        );
        if !node.is_directory() {
            continue;
        }
        let children = tree.children(node);
        let names: Vec<_> = children.iter().map(|child| tree.name(child)).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "children are sorted");
        for child in children {
            let name = tree.name(child);
            assert!(!name.is_empty() && name != b"." && name != b"..");
            assert!(!name.contains(&b'/') && !name.contains(&0));
            assert_eq!(tree.lookup(node, name), Some(child.ino()));
        }
    }
}

fn files(toc: &Toc) -> usize {
    let is_file = |kind| matches!(kind, EntryKind::File { .. } | EntryKind::SparseFile { .. });
    toc.iter().filter(|entry| is_file(entry.kind)).count()
}

type Scanned = (Toc, Vec<[u8; 32]>, Vec<String>);

fn scan<'a>(
    data: &[u8],
    pieces: impl Iterator<Item = &'a [u8]> + Clone,
) -> Result<Scanned, String> {
    let mut content = ContentPass::new();
    let by_content = (pieces.clone().try_for_each(|piece| content.bytes(piece)))
        .and_then(|()| content.finish().map(|result| result.warnings));
    let mut scanner = TarScanner::new();
    let by_scanner = (pieces.into_iter().try_for_each(|piece| scanner.push(piece)))
        .and_then(|()| scanner.finish(data.len() as u64));
    assert_eq!(by_content.is_ok(), by_scanner.is_ok());
    by_scanner.map_err(|err| err.to_string())
}

/// Nothing would get past the headers' checksums otherwise.
fn fix_checksums(data: &mut [u8]) {
    for block in data.as_chunks_mut::<BLOCK>().0 {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
}
