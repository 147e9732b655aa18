//! Turns events into lines on stderr, as the `logging` block asks.

use std::io::Write;

use config::Diagnostics;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use super::capture::Capture;
use crate::component::{Logging, Logs};

/// Starts logging for the rest of the process; lines can be captured as well.
///
/// # Errors
/// If it was started before.
pub(crate) fn start(logging: Logging) -> anyhow::Result<Capture> {
    // What libraries say below a warning is about them, not about the pipeline.
    let filter = format!("{},hyper=warn,reqwest=warn,rustls=warn", logging.level);
    let filter = EnvFilter::builder().parse(filter)?;
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match logging.format {
        Logs::Logfmt => tracing_logfmt::builder()
            .with_target(true)
            .layer()
            .with_writer(std::io::stderr)
            .boxed(),
        Logs::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
            .boxed(),
    };
    let (capture, captured) = Capture::new();
    Registry::default()
        .with(layer.with_filter(filter))
        .with(captured)
        .try_init()?;
    Ok(capture)
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
fn in_one_line(error: &anyhow::Error) -> String {
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
