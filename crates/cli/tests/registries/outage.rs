//! What a mount's reader sees of a registry that goes away and comes back: nothing.

use std::time::{Duration, Instant};

use super::tokens::reads_slowly;
use super::world::REFERENCE;
use super::{Front, World};

#[test]
fn a_registry_that_restarts_while_a_mount_reads() {
    let Some(world) = World::mounting(&[]) else {
        return;
    };
    world.trust("registry.test");
    let mut front = Front::start(&world, "registry.test", "");
    let mount = world.mount(REFERENCE, &[]);
    front.forget();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| reads_slowly(&mount, Duration::from_secs(6)));
        std::thread::sleep(Duration::from_secs(1));
        let before = front.requests().len();
        assert!(before > 0, "nothing was read before the outage");
        front.stop();
        let at_end = front.requests().len();
        std::thread::sleep(Duration::from_secs(2));
        assert!(!reader.is_finished(), "the reader has to live through it");
        front.resume();
        reader.join().unwrap();
        let after = front.requests().len();
        assert!(after > at_end, "nothing was read after the outage");
    });
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    mount.end();
}
