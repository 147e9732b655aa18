//! Turns a path into the file of the page that is there.

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asset {
    pub(crate) content_type: &'static str,
    pub(crate) bytes: &'static [u8],
    /// In quotes; another one for other bytes.
    pub(crate) etag: &'static str,
}

/// The file at a path below the prefix, such as `index.html` or `assets/app.js`.
pub(crate) const fn find(_path: &str) -> Option<Asset> {
    None
}
