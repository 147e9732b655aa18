//! Turns events into lines in memory, for as long as somebody wants them.
//!
//! # Limits
//! [`BYTES_MAX`] of lines, the oldest go first and are counted. While nobody wants them an event costs what
//! it costs without this: the filter is closed, which callers remember.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, fmt, reload};

const BYTES_MAX: usize = 4 << 20;

/// Keeps lines when told to.
#[derive(Clone)]
pub(crate) struct Capture {
    lines: Arc<Mutex<Lines>>,
    /// Opens or closes the filter.
    switch: Arc<dyn Fn(bool) + Send + Sync>,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<String>,
    bytes: usize,
    left_out: u64,
}

impl Lines {
    fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.kept.push_back(line);
        while self.bytes > BYTES_MAX {
            let Some(oldest) = self.kept.pop_front() else {
                return;
            };
            self.bytes -= oldest.len();
            self.left_out += 1;
        }
    }
}

/// The filter of debug lines; what libraries say below a warning is about them, not about the pipeline.
fn wanted(is_open: bool) -> Targets {
    if !is_open {
        return Targets::new();
    }
    let libraries = ["hyper", "hyper_util", "h2", "reqwest", "rustls"];
    let quiet = libraries.map(|library| (library, LevelFilter::WARN));
    Targets::new()
        .with_default(LevelFilter::DEBUG)
        .with_targets(quiet)
        // It repeats what a server says at every try, whole bodies too: discovery tells it once.
        .with_targets(["kube_client", "kube_runtime"].map(|it| (it, LevelFilter::OFF)))
}

/// One event on its way into the lines.
struct Line {
    lines: Arc<Mutex<Lines>>,
    bytes: Vec<u8>,
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = String::from_utf8_lossy(&self.bytes).into_owned();
        self.lines.lock().push(line);
    }
}

impl Capture {
    /// One, and the layer it gets its lines from.
    pub(crate) fn new<S>() -> (Self, Box<dyn Layer<S> + Send + Sync>)
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let lines = Arc::<Mutex<Lines>>::default();
        let (filter, handle) = reload::Layer::new(wanted(false));
        let into = Arc::clone(&lines);
        let layer = fmt::layer().with_writer(move || Line {
            lines: Arc::clone(&into),
            bytes: Vec::new(),
        });
        let switch = move |is_open| {
            if let Err(error) = handle.reload(wanted(is_open)) {
                tracing::warn!(%error, "debug lines cannot be captured");
            }
        };
        let capture = Self {
            lines,
            switch: Arc::new(switch),
        };
        (capture, layer.with_filter(filter).boxed())
    }

    /// Keeps lines until what this returns is dropped.
    pub(crate) fn begin(&self) -> Capturing {
        *self.lines.lock() = Lines::default();
        (self.switch)(true);
        Capturing(self.clone())
    }
}

/// While this is there, lines are kept.
pub(crate) struct Capturing(Capture);

impl Capturing {
    /// The lines so far.
    pub(crate) fn text(&self) -> String {
        let mut lines = self.0.lines.lock();
        let left_out = std::mem::take(&mut lines.left_out);
        let mut text = match left_out {
            0 => String::new(),
            count => format!("({count} lines before are left out)\n"),
        };
        text.extend(lines.kept.drain(..));
        lines.bytes = 0;
        text
    }
}

impl Drop for Capturing {
    fn drop(&mut self) {
        (self.0.switch)(false);
        *self.0.lines.lock() = Lines::default();
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn lines_are_kept_while_they_are_wanted() {
        let (capture, layer) = Capture::new::<Registry>();
        let _default = tracing::subscriber::set_default(Registry::default().with(layer));
        tracing::error!("before");
        let capturing = capture.begin();
        tracing::debug!(number = 7, "within");
        tracing::debug!(target: "hyper::proto", "of a library");
        tracing::trace!("too fine");
        let text = capturing.text();
        drop(capturing);
        tracing::error!("after");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains("DEBUG") && text.contains("within number=7"),
            "{text}"
        );
        assert!(capture.lines.lock().kept.is_empty());
    }

    #[test]
    fn the_oldest_lines_go_first() {
        let mut lines = Lines::default();
        let line = "x".repeat(BYTES_MAX / 4);
        for number in 0..6 {
            lines.push(format!("{number}{line}"));
        }
        assert_eq!((lines.kept.len(), lines.left_out), (3, 3));
        assert!(lines.bytes <= BYTES_MAX);
        assert!(lines.kept.front().is_some_and(|line| line.starts_with('3')));
    }
}
