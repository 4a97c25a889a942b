//! What a check must not take away.

use super::*;
use crate::store::disk::publish;
use crate::store::upkeep::DEFAULT_LIMIT;
use imgfs_formats::oci::Descriptor;
use imgfs_formats::trust::Trust;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), DEFAULT_LIMIT).unwrap();
    (dir, store)
}

/// An index of a small layer, encoded.
fn an_index() -> (Digest, Vec<u8>) {
    let blob = [0; 1024];
    let index = LayerIndex::of_blob(&blob).unwrap();
    (Digest::sha256(&blob), index.encode().unwrap())
}

fn finding() -> Finding {
    Finding {
        origin: imgfs_formats::trust::IndexKind::EStargz,
        trust: Trust::Pinned,
        place: String::new(),
        key: None,
    }
}

/// Between looking and dropping somebody else may have put it right.
#[test]
fn what_is_right_again_is_not_dropped() {
    let (_dir, store) = store();
    let digest = Digest::sha256(b"document");
    publish(&store.document_path(&digest), b"damaged").unwrap();
    assert!(!store.check_documents().unwrap()[0].is_right);
    store.keep_document(&digest, b"document");
    assert!(!store.drop_document(&digest).unwrap());
    assert!(store.document(&digest).unwrap().is_some());
    publish(&store.document_path(&digest), b"damaged").unwrap();
    assert!(store.drop_document(&digest).unwrap());
    assert!(!store.has_document(&digest));

    let path = store.tag_path("host/name:tag");
    let file = path.file_name().unwrap().to_str().unwrap().to_owned();
    publish(&path, b"{").unwrap();
    let checked = store.check_names().unwrap();
    assert!(matches!(&checked[..], [NameCheck::Damaged { .. }]));
    let descriptor = Descriptor::of_document(digest, 8);
    store.record_tag("host/name:tag", &descriptor).unwrap();
    assert!(!store.drop_name(&file).unwrap());
    assert!(store.has_name("host/name:tag"));
    publish(&path, b"{").unwrap();
    assert!(store.drop_name(&file).unwrap());
    assert!(!store.has_name("host/name:tag"));

    let (layer, encoded) = an_index();
    let slot = Slot::own(layer);
    publish(&store.index_path(&slot), b"damaged").unwrap();
    let checked = store.check_index(&slot).unwrap();
    assert!(matches!(checked, IndexCheck::Damaged(_)));
    publish(&store.index_path(&slot), &encoded).unwrap();
    assert!(!store.drop_index(&slot).unwrap());
    assert!(store.index_size(&slot) > 0);
    publish(&store.index_path(&slot), b"damaged").unwrap();
    assert!(store.drop_index(&slot).unwrap());
    assert_eq!(store.index_size(&slot), 0);
}

/// What a later version wrote is no damage, and a file that claims to be of one is.
#[test]
fn an_index_of_a_later_version_is_left_alone() {
    let (_dir, store) = store();
    let (layer, mut encoded) = an_index();
    let slot = Slot::own(layer);
    encoded[8] += 1;
    publish(&store.index_path(&slot), &encoded).unwrap();
    let checked = store.check_index(&slot).unwrap();
    assert!(matches!(checked, IndexCheck::Damaged(_)), "a flipped bit");
    // Its header may be anything, so its checksum tells nothing.
    encoded[12..200].fill(7);
    publish(&store.index_path(&slot), &encoded).unwrap();
    let checked = store.check_index(&slot).unwrap();
    assert!(matches!(checked, IndexCheck::Newer));
    assert!(!store.drop_index(&slot).unwrap());
    assert!(store.index_size(&slot) > 0);
    encoded[8] = 1;
    publish(&store.index_path(&slot), &encoded).unwrap();
    let checked = store.check_index(&slot).unwrap();
    assert!(matches!(checked, IndexCheck::Damaged(_)), "an older one");
}

/// A disk that does not give a file says nothing about what is in it.
#[test]
fn an_index_that_cannot_be_read_is_not_damaged() {
    let (_dir, store) = store();
    let (layer, encoded) = an_index();
    let slot = Slot::own(layer);
    std::fs::create_dir_all(store.index_path(&slot)).unwrap();
    assert!(store.check_index(&slot).is_err());
    assert!(store.drop_index(&slot).is_err());
    std::fs::remove_dir(store.index_path(&slot)).unwrap();
    publish(&store.index_path(&slot), &encoded[..encoded.len() / 2]).unwrap();
    let checked = store.check_index(&slot).unwrap();
    assert!(matches!(checked, IndexCheck::Damaged(_)), "cut off");
}

/// A check in between would take an index without its record for damaged, and drop both.
#[test]
fn the_record_of_a_found_index_comes_first() {
    let (_dir, store) = store();
    let (layer, encoded) = an_index();
    let slot = Slot::found(layer, &Digest::sha256(b"toc"));
    // In the way of the index, so that only what comes before it is written.
    let in_the_way = store.index_path(&slot).join("x");
    std::fs::create_dir_all(&in_the_way).unwrap();
    store.keep_found_file(&slot, &encoded, &finding());
    assert_eq!(store.finding(&slot).unwrap(), Some(finding()));
    std::fs::remove_dir_all(store.index_path(&slot)).unwrap();
    let checked = store.check_index(&slot).unwrap();
    assert!(matches!(checked, IndexCheck::Absent));
    assert!(store.load_index(&slot, false).unwrap().is_none());
    store.keep_found_file(&slot, &encoded, &finding());
    let checked = store.check_index(&slot).unwrap();
    assert!(matches!(checked, IndexCheck::Right(_)));
}
