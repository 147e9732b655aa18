//! Turns the symbol table of a remote-write 2.0 request into ranges of its bytes.
//!
//! # Limits
//! - [`SYMBOLS_MAX`] symbols; a request with more is malformed.

use super::wire::{Cursor, DEPTH_MAX, Malformed, Wire};

/// Most symbols of one request: without it a request of empty ones would take four times its size.
pub const SYMBOLS_MAX: usize = 1 << 20;

/// The symbols of one request; reused from request to request.
#[derive(Default, Debug)]
pub(crate) struct Symbols {
    /// Start and length.
    at: Vec<(usize, u32)>,
}

impl Symbols {
    /// Finds the symbols of a request, wherever between its other fields they stand.
    pub(crate) fn read(&mut self, body: &[u8]) -> Result<(), Malformed> {
        self.at.clear();
        let mut request = Cursor::over(body, 0..body.len());
        while !request.is_done() {
            let key = request.key()?;
            if key.number != 4 {
                request.skip(key, DEPTH_MAX)?;
                continue;
            }
            key.expect(Wire::Bytes)?;
            let malformed = |what| Malformed {
                offset: key.offset,
                what,
            };
            let span = request.span()?;
            if self.at.is_empty() && !span.is_empty() {
                return Err(malformed("the first symbol is not empty"));
            }
            if self.at.len() >= SYMBOLS_MAX {
                return Err(malformed("more than 1048576 symbols"));
            }
            let length = u32::try_from(span.len()).map_err(|_| malformed("symbol too long"))?;
            self.at.push((span.start, length));
        }
        Ok(())
    }

    /// The symbol with this number, if there is one.
    pub(crate) fn get<'b>(&self, body: &'b [u8], number: u32) -> Option<&'b [u8]> {
        let &(start, length) = self.at.get(usize::try_from(number).ok()?)?;
        body.get(start..start + usize::try_from(length).ok()?)
    }

    /// Gives memory back after a request with very many symbols.
    pub(crate) fn shrink(&mut self, bytes_max: usize) {
        self.at.clear();
        self.at.shrink_to(bytes_max / size_of::<(usize, u32)>());
    }
}
