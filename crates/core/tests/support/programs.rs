//! Other programs as counterparts: found or skipped by name.

use std::path::PathBuf;

/// The paths of `names`, or `None` after saying that `test` is skipped. Where CI or
/// `IMGFS_TEST_REQUIRE` is set, a missing program fails the test.
pub fn find(test: &str, names: &[&str]) -> Option<Vec<PathBuf>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = Vec::new();
    for name in names {
        let program = std::env::split_paths(&path)
            .map(|dir| dir.join(name))
            .find(|program| program.is_file());
        let Some(program) = program else {
            skip(test, &format!("{name} is not installed"));
            return None;
        };
        found.push(program);
    }
    Some(found)
}

/// Says that a test is skipped, and fails where everything has to run.
#[allow(clippy::print_stderr)]
pub fn skip(test: &str, reason: &str) {
    eprintln!("SKIPPED {test}: {reason}");
    let required = ["CI", "IMGFS_TEST_REQUIRE"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    assert!(!required, "{test} must not be skipped: {reason}");
}
