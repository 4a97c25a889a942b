//! zTOCs and prefetch lists, as anybody may publish them.

use crate::layer::LayerIndex;
use crate::layer::soci::{index_of_ztoc, prefetch_ranges};
use crate::oci::Digest;
use crate::take;
use crate::tars::build;

/// Size of the layer's blob, then the zTOC. The same bytes are read as a prefetch list.
pub fn ztoc(mut data: &[u8]) {
    let blob_size = u64::from_le_bytes(take(&mut data));
    let blob = Digest::sha256(b"");
    let Ok(index) = index_of_ztoc(data, blob, blob_size) else {
        return;
    };
    assert_eq!(index.toc.iter().count(), index.toc.len());
    let mut end = 0;
    for (id, span) in index.spans.iter().enumerate() {
        assert_eq!(span.uncompressed.start, end, "no gap, nothing twice");
        end = span.uncompressed.end;
        assert!(span.compressed.end <= blob_size);
        assert_eq!(index.spans.chain(id), id..id + 1);
    }
    assert_eq!(end, index.spans.layer_size());
    let encoded = index.encode().expect("what was read can be written");
    let again = LayerIndex::read(encoded.as_slice(), &blob, true).expect("and read");
    assert_eq!(again, index);
    build(&[&index.toc]);
    for range in prefetch_ranges(data, &index.spans).unwrap_or_default() {
        assert!(range.start <= range.end && range.end <= blob_size);
    }
}
