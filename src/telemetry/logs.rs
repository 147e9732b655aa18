//! Turns events into lines on stderr, as the `logging` block asks.

use std::io::Write;
use std::sync::OnceLock;

use config::Diagnostics;
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::capture::Capture;
use crate::component::{Logging, Logs};

type Filter = reload::Handle<Targets, Registry>;

/// What is let through to each form of line; only one of them lets anything through.
static FILTERS: OnceLock<[(Logs, Filter); 2]> = OnceLock::new();

/// Starts logging for the rest of the process; lines can be captured as well.
///
/// # Errors
/// If it was started before.
pub(crate) fn start(logging: Logging) -> anyhow::Result<Capture> {
    let (logfmt_filter, logfmt_handle) = reload::Layer::new(filter(Logs::Logfmt, logging));
    let (json_filter, json_handle) = reload::Layer::new(filter(Logs::Json, logging));
    let logfmt = tracing_logfmt::builder()
        .with_target(true)
        .layer()
        .with_writer(std::io::stderr);
    let json = fmt::layer()
        .json()
        .flatten_event(true)
        .with_writer(std::io::stderr);
    let (capture, captured) = Capture::new();
    let layers: [Box<dyn Layer<Registry> + Send + Sync>; 3] = [
        logfmt.with_filter(logfmt_filter).boxed(),
        json.with_filter(json_filter).boxed(),
        captured,
    ];
    Registry::default().with(Vec::from(layers)).try_init()?;
    // Not set before, as starting twice failed above.
    FILTERS.get_or_init(|| [(Logs::Logfmt, logfmt_handle), (Logs::Json, json_handle)]);
    Ok(capture)
}

/// Logs in another way from now on.
pub(crate) fn change(logging: Logging) {
    for (form, handle) in FILTERS.get().into_iter().flatten() {
        if let Err(error) = handle.reload(filter(*form, logging)) {
            tracing::error!(%error, "logging stays as it was");
        }
    }
}

/// What is written in this form.
fn filter(form: Logs, logging: Logging) -> Targets {
    if form != logging.format {
        return Targets::new();
    }
    // What libraries say below a warning is about them, not about the pipeline.
    let libraries = ["hyper", "reqwest", "rustls"].map(|library| (library, Level::WARN));
    Targets::new()
        .with_default(logging.level)
        .with_targets(libraries)
        // It repeats what a server says at every try, whole bodies too: discovery tells it once.
        .with_targets(["kube_client", "kube_runtime"].map(|it| (it, LevelFilter::OFF)))
}

/// Writes why the process ends: diagnostics with their source lines, anything else in one line.
pub(crate) fn print_error(error: &anyhow::Error) {
    use std::io::IsTerminal;
    let text = match error.downcast_ref::<Diagnostics>() {
        Some(diagnostics) => {
            let pretty = diagnostics.pretty(std::io::stderr().is_terminal());
            format!(
                "{}\nError: could not perform the initial load successfully\n",
                pretty.trim_end()
            )
        }
        None => format!("Error: {}\n", in_one_line(error)),
    };
    // Nobody is left to tell that stderr is closed.
    if std::io::stderr().write_all(text.as_bytes()).is_err() {}
}

/// The causes from the outermost in; one that the text before ends with is not repeated.
pub(crate) fn in_one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_was_said_is_not_repeated() {
        let inner = anyhow::anyhow!("no space");
        let outer = inner.context("write x: no space").context("cannot start");
        assert_eq!(in_one_line(&outer), "cannot start: write x: no space");
    }
}
