//! The `seamark` binary. Everything is in the library beside it.

fn main() -> std::process::ExitCode {
    seamark_cli::run()
}
