//! Turns the text of a block into what a reader makes of it, for the readers' tests.

use config::{BodyReader, Scope};

/// What a reader makes of the first block of a text, or everything that is wrong with it, a line each.
pub(super) fn decoded<T>(
    text: &str,
    read: impl FnOnce(&mut BodyReader<'_>) -> T,
) -> Result<T, String> {
    let file = config::parse("a", text).map_err(|wrong| wrong.to_string())?;
    config::decode(&file.blocks[0], &Scope::new(), read).map_err(|wrong| {
        let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })
}
