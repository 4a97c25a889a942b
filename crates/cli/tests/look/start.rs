//! What the other tests rely on.

use super::*;
use crate::listing::{dir, file};

#[test]
fn what_json_says_is_documented() {
    let world = World::new();
    let layer = gzip(&[dir("etc"), file("etc/noise", noise(1, 1000))]);
    let reference = world.put(&host_image(vec![layer]));
    let listed = world.imgfs(&["ls", "--json", &reference, "/etc"]).ok();
    let rows = schema::check("ls", &listed);
    assert_eq!(rows[0]["size"], 1000);
}
