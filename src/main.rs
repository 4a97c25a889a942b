//! The `imgfs` program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    imgfs::cli::run(std::env::args_os().collect())
}
