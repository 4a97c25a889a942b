//! Mirrors under a mount: wrong bytes of a layer, at first contact and later, are had from the next
//! host.

use super::*;
use crate::support::registry::Registry;

/// Size of the one file.
const SIZE: usize = 3 << 20;

/// A world whose registry has a mirror, and an image that both have.
struct Mirrored {
    world: World,
    mirror: Registry,
    image: Image,
    reference: String,
}

fn mirrored() -> Option<Mirrored> {
    let world = World::mounting()?;
    let mirror = Registry::start();
    let image = host_image(vec![gzip(&[file("file", noise(5, SIZE))])]);
    mirror.put_image("r", "t", &image);
    let reference = world.put(&image);
    let (host, location) = (world.registry.host(), mirror.host());
    let text = format!(
        "[registry.\"{host}\"]\nplain-http = true\n\
         [[registry.\"{host}\".mirror]]\nlocation = \"{location}\"\nplain-http = true\n"
    );
    std::fs::create_dir_all(world.path(".config/imgfs")).unwrap();
    std::fs::write(world.path(".config/imgfs/config.toml"), text).unwrap();
    Some(Mirrored {
        world,
        mirror,
        image,
        reference,
    })
}

/// The blob with one byte in its middle changed: it may even decode.
fn wrong(image: &Image) -> Vec<u8> {
    let mut blob = image.layers[0].blob.to_vec();
    let middle = blob.len() / 2;
    blob[middle] ^= 0x10;
    blob
}

/// Requests for the layer.
fn for_layer(registry: &Registry, image: &Image) -> usize {
    let digest = imgfs_formats::oci::Digest::sha256(&image.layers[0].blob).to_string();
    let requests = registry.requests();
    let mut of_layer = requests.iter().filter(|seen| seen.path.ends_with(&digest));
    of_layer.by_ref().count()
}

#[test]
fn a_mirrors_corrupt_layer_is_had_from_the_registry() {
    let Some(at) = mirrored() else {
        return;
    };
    let blob = &at.image.layers[0].blob;
    at.mirror.replace_blob(blob, wrong(&at.image));
    let (mount, said) = at.world.mount_saying(&at.reference, &[]);
    let words = format!(
        "{} is passed over for the next host: wrong bytes of blob",
        at.mirror.host()
    );
    assert_eq!(said.matches(&words).count(), 1, "{said}");
    assert!(
        said.contains("wrong bytes came, fetching all of it anew"),
        "{said}"
    );
    assert!(mount.read("file") == noise(5, SIZE));
    // Documents came from the mirror; of the layer each part once from either.
    let parts = blob.len().div_ceil(4 << 20);
    assert_eq!(for_layer(&at.mirror, &at.image), parts);
    assert_eq!(for_layer(&at.world.registry, &at.image), parts);
    assert_eq!(at.world.registry.requests().len(), parts);
}

#[test]
fn the_only_hosts_corrupt_layer_is_refused_after_a_second_look() {
    let Some(world) = World::mounting() else {
        return;
    };
    let image = host_image(vec![gzip(&[file("file", noise(5, 100_000))])]);
    let reference = world.put(&image);
    let blob = &image.layers[0].blob;
    world.registry.replace_blob(blob, wrong(&image));
    let said = world.refused(&reference, &[], &["is corrupt at its source"]);
    assert_eq!(for_layer(&world.registry, &image), 2, "{said}");
    // What was the network's doing is gone the second time.
    world.registry.replace_blob(blob, blob.clone());
    world.registry.forget_requests();
    world
        .registry
        .fault(On::Manifest, Fault::Header("x-harmless", "1"));
    world.imgfs(&["inspect", &reference]).ok();
    world.registry.fault(On::Blob, Fault::Corrupt);
    let mount = world.mount(&reference, &[]);
    assert!(mount.read("file") == noise(5, 100_000));
    assert_eq!(for_layer(&world.registry, &image), 2);
}

#[test]
fn a_layer_that_rots_at_the_mirror_is_read_from_the_registry() {
    let Some(at) = mirrored() else {
        return;
    };
    at.world.mount(&at.reference, &[]).end(&at.world);
    assert_eq!(at.world.registry.requests().len(), 0);
    at.world.evict();
    let mount = at.world.mount(&at.reference, &[]);
    at.mirror.fault_always(On::Blob, Fault::Corrupt);
    assert!(mount.read("file") == noise(5, SIZE));
    // It is found out once, and not asked for this layer any more.
    let asked = for_layer(&at.mirror, &at.image);
    assert!(asked <= 3, "{asked}");
}

#[test]
fn a_pull_goes_on_from_a_damaged_start_and_past_a_lying_mirror() {
    let Some(at) = mirrored() else {
        return;
    };
    let blob = &at.image.layers[0].blob;
    at.mirror.replace_blob(blob, wrong(&at.image));
    let digest = imgfs_formats::oci::Digest::sha256(blob).hex();
    let dir = at.world.cache().join("layers/sha256").join(digest);
    std::fs::create_dir_all(&dir).unwrap();
    for start in [vec![7; 1_000_000], blob[..1_000_000].to_vec()] {
        std::fs::write(dir.join("partial"), start).unwrap();
        let outcome = at.world.imgfs(&["pull", &at.reference]);
        outcome.ok_saying(&["what an earlier pull left is damaged", "wrong bytes came"]);
        assert!(!dir.join("partial").exists());
        let mount = at.world.mount(&at.reference, &["--pull=never"]);
        assert!(mount.read("file") == noise(5, SIZE));
        mount.end(&at.world);
        std::fs::remove_dir_all(at.world.cache().join("indexes")).unwrap();
        at.world.evict();
    }
}

#[test]
fn a_mirror_that_goes_away_under_a_mount_is_not_missed() {
    let Some(at) = mirrored() else {
        return;
    };
    at.world.mount(&at.reference, &[]).end(&at.world);
    at.world.evict();
    let mount = at.world.mount(&at.reference, &[]);
    at.mirror.away();
    let mut start = vec![0; 1000];
    let open = std::fs::File::open(mount.path("file")).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&open, &mut start, 0).unwrap();
    assert!(start == noise(5, SIZE)[..1000]);
    let status = at.world.status(&mount).to_string();
    assert!(
        status.contains("was passed over: cannot connect to"),
        "{status}"
    );
    assert!(mount.read("file") == noise(5, SIZE));
}
