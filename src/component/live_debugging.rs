//! Turns the `livedebugging` block into whether data may be looked at while it passes.

use config::BodyReader;

use super::document::Document;

pub(crate) const NAME: &str = "livedebugging";

pub(crate) const DOCUMENT: Document = Document {
    example: r#"livedebugging {
  enabled = true
}
"#,
    texts: &[(
        "",
        &[(
            "enabled",
            "Whether those who see the agent's page may see data that passes.",
        )],
    )],
    metrics: &[],
    failure: "",
};

/// Off unless it is turned on: data may hold what not everybody who sees the page may see.
pub(crate) fn read(r: &mut BodyReader<'_>) -> bool {
    r.or("enabled", false)
}
