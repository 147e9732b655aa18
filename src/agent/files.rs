//! Turns the path of a configuration, in whatever language it is, into parsed files.

use std::path::{Path, PathBuf};

use anyhow::Context;
use config::{Diagnostics, File};

use super::LoadState;
use crate::convert::{self, Format};
use crate::graph::{self, Stability};
use crate::run_flags::ConfigFormat;

/// Where the configuration is, and how to read it.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) path: PathBuf,
    pub(crate) format: ConfigFormat,
    /// Goes on without what cannot be converted.
    pub(crate) bypass_errors: bool,
    /// Arguments of the program of the other language.
    pub(crate) extra_args: String,
}

impl Files {
    /// Reads and parses them; `state` notes what was read.
    ///
    /// # Errors
    /// A file cannot be read, or everything that is wrong with them.
    pub(super) fn read(&self, state: &mut LoadState) -> anyhow::Result<Vec<File>> {
        let files = self.texts()?;
        state.read(&files);
        self.parsed(files)
    }

    /// Parses texts.
    fn parsed(&self, mut files: graph::Files) -> anyhow::Result<Vec<File>> {
        if let Some(format) = self.other_language() {
            for (name, text) in &mut files {
                let (converted, findings) = convert::convert_text(format, text, &self.extra_args);
                convert::refuse(&findings, self.bypass_errors)
                    .with_context(|| format!("cannot use {name}"))?;
                for finding in &findings {
                    tracing::warn!(file = name, %finding, "converting the configuration");
                }
                *text = converted;
                // What is told of it is told of this text.
                name.push_str(" (converted)");
            }
        }
        let mut parsed = Vec::new();
        let mut wrong = Diagnostics::new();
        for (name, text) in &files {
            match config::parse(name, text) {
                Ok(file) => parsed.push(file),
                Err(found) => wrong.extend(found),
            }
        }
        if wrong.has_errors() {
            return Err(wrong.into());
        }
        Ok(parsed)
    }

    /// Everything that can be told to be wrong without running it.
    ///
    /// # Errors
    /// A file cannot be read, or cannot be used as the language it is said to be in.
    pub(crate) fn check(&self, stability: Stability) -> anyhow::Result<Diagnostics> {
        match self.parsed(self.texts()?) {
            Ok(parsed) => Ok(graph::check(parsed, stability)),
            Err(error) => error.downcast::<Diagnostics>(),
        }
    }

    fn texts(&self) -> anyhow::Result<graph::Files> {
        if self.other_language().is_some() {
            let name = self.path.display().to_string();
            let text = std::fs::read_to_string(&self.path);
            let text = text.with_context(|| format!("cannot read {name}"))?;
            return Ok(vec![(name, text)]);
        }
        graph::files(&self.path).map_err(anyhow::Error::msg)
    }

    /// Another language than our own.
    const fn other_language(&self) -> Option<Format> {
        match self.format {
            ConfigFormat::Alloy => None,
            ConfigFormat::Otelcol => Some(Format::Otelcol),
            ConfigFormat::Prometheus => Some(Format::Prometheus),
            ConfigFormat::Promtail => Some(Format::Promtail),
            ConfigFormat::Static => Some(Format::Static),
        }
    }

    /// The directory of the configuration.
    pub(super) fn dir(&self) -> String {
        let dir = if self.path.is_dir() {
            Some(&*self.path)
        } else {
            self.path.parent()
        };
        dir.map(|dir: &Path| dir.display().to_string())
            .unwrap_or_default()
    }
}
