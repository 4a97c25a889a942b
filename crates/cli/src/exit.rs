//! Exit codes: what scripts may rely on. The help, the man pages and `docs/commands.md` say the
//! same.

/// Each code that commands share and what it means. A command that differs says so in its help, in
/// a paragraph that begins with `Exit status:`.
pub(super) const CODES: [(u8, &str); 3] = [
    (0, "What was asked for is done."),
    (
        1,
        "It failed, or not all of it could be done; stderr says why and what to do.",
    ),
    (
        2,
        "The command line is wrong: an unknown option, a missing argument. Nothing was done.",
    ),
];
