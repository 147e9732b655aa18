//! Turns definitions into their documents: what readers cannot tell about the arguments they read.
//!
//! The names, types and defaults in a document are what the reader asks for; here are the texts beside them.
//!
//! # Invariants
//! - Every argument and block has a text and every text an argument or block; an example is a configuration
//!   that `validate` finds nothing wrong with; `docs/components` is what is made of all that. Tests see to it.

#[cfg(test)]
mod render;
#[cfg(test)]
mod tests;

/// Names and texts, such as `("tls_config.ca_file", "...")`.
pub(crate) type Texts = &'static [(&'static str, &'static str)];

/// What a document says beside names, types and defaults.
#[derive(Debug)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "documents are written by a test")
)]
pub(crate) struct Document {
    /// A whole configuration.
    pub(crate) example: &'static str,
    /// Texts of arguments and blocks, each list below a block (`""`: the whole).
    pub(crate) texts: &'static [(&'static str, Texts)],
    /// What the names of its metric families begin with.
    pub(crate) metrics: &'static [&'static str],
    /// What it does when something fails, as a list in Markdown; empty where nothing can.
    pub(crate) failure: &'static str,
}
