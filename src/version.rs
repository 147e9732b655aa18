//! Turns what is known of the build into the text of `--version`.

use std::env::consts::{ARCH, OS};
use std::sync::LazyLock;

/// Version, target and profile: `0.1.0 (x86_64-linux-gnu, release)`.
pub(crate) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let environment = match () {
        () if cfg!(target_env = "gnu") => "-gnu",
        () if cfg!(target_env = "musl") => "-musl",
        () => "",
    };
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let version = env!("CARGO_PKG_VERSION");
    format!("{version} ({ARCH}-{OS}{environment}, {profile})")
});

#[cfg(test)]
mod tests {
    #[test]
    fn version_target_and_profile_are_told() {
        let text = super::VERSION.as_str();
        assert!(
            text.starts_with(concat!(env!("CARGO_PKG_VERSION"), " (")),
            "{text}"
        );
        assert!(
            text.ends_with("debug)") || text.ends_with("release)"),
            "{text}"
        );
    }
}
