//! Turns a definition into the Markdown of its document.

use std::fmt::Write;

use config::{Argument, Body, Nested};

use super::super::definition::{Definition, Kind};

/// The text of a block that is refused begins so: nothing it may hold is described.
const NOT_SUPPORTED: &str = "Not supported";

/// Pages written by hand: name, file, what it is about.
pub(super) const BY_HAND: [(&str, &str, &str); 4] = [
    ("declare", "declare.md", "A component made of components."),
    (
        "argument, export",
        "argument-export.md",
        "What goes into such a component and comes out of it.",
    ),
    (
        "foreach",
        "foreach.md",
        "The same components for every item of a list (experimental).",
    ),
    (
        "import.file, import.git, import.http, import.string",
        "import.md",
        "Such components from elsewhere.",
    ),
];

/// The page of one component.
pub(super) fn page(one: &Definition) -> String {
    let mut out = format!("# {}\n\n{}\n", one.name, one.text);
    add(
        &mut out,
        format_args!("\n## Example\n\n```alloy\n{}```\n", one.document.example),
    );
    let schema = one.schema();
    add(&mut out, format_args!("\n## Arguments\n\n"));
    if schema.attributes.is_empty() {
        let rest = if schema.blocks.is_empty() {
            ""
        } else {
            " of its own"
        };
        add(&mut out, format_args!("It has no arguments{rest}.\n"));
    } else {
        arguments(&mut out, one, &schema, "");
    }
    blocks(&mut out, one, &schema);
    if !one.exports.is_empty() {
        out.push_str("\n## Exports\n\n| export | type | |\n|---|---|---|\n");
        for export in one.exports {
            let (name, kind, text) = (export.name, export.type_name, export.text);
            add(&mut out, format_args!("| `{name}` | {kind} | {text} |\n"));
        }
    }
    if !one.document.metrics.is_empty() {
        out.push_str(
            "\n## Metrics\n\n[What they mean](../operations.md#metrics). At `/metrics`:\n\n",
        );
        for family in one.document.metrics {
            let more = if family.ends_with('_') { "*" } else { "" };
            add(&mut out, format_args!("- `{family}{more}`\n"));
        }
    }
    if !one.document.failure.is_empty() {
        add(
            &mut out,
            format_args!("\n## On failure\n\n{}", one.document.failure),
        );
    }
    out
}

/// The page that lists the others.
pub(super) fn index(all: &[Definition]) -> String {
    let mut out = String::from(
        "# Components\n\nEverything a configuration may hold. The pages of components, settings and services are \
         made from what their readers ask for (`just docs`).\n\n| | |\n|---|---|\n",
    );
    let kinds = [Kind::Component, Kind::Setting, Kind::Service];
    for kind in kinds {
        for one in all.iter().filter(|one| one.kind == kind) {
            let (name, text) = (one.name, one.text);
            add(
                &mut out,
                format_args!("| [`{name}`]({name}.md) | {text} |\n"),
            );
        }
    }
    for (names, file, text) in BY_HAND {
        let names: Vec<String> = names
            .split(", ")
            .map(|name| format!("[`{name}`]({file})"))
            .collect();
        add(
            &mut out,
            format_args!("| {} | {text} |\n", names.join(", ")),
        );
    }
    out.push_str(
        "\nComponents have a label and may be in a [`declare`](declare.md); settings and services (`logging`, \
         `tracing`, `http`, `livedebugging`) have none, and stand at the top, once.\n",
    );
    out
}

fn arguments(out: &mut String, one: &Definition, body: &Body, path: &str) {
    out.push_str("| argument | type | default | |\n|---|---|---|---|\n");
    for argument in &body.attributes {
        let name = &argument.name;
        let text = text(one, &join(path, name)).unwrap_or("(no text)");
        let kind = argument
            .type_name
            .replace("capsule(\"", "")
            .replace("\")", "");
        let default = default(argument);
        add(
            out,
            format_args!("| `{name}` | {kind} | {default} | {text} |\n"),
        );
    }
}

fn default(argument: &Argument) -> String {
    if argument.is_required {
        return "**required**".to_owned();
    }
    let Some(value) = &argument.default else {
        return String::new();
    };
    let text = match value.to_string().as_str() {
        // No secret has any other default.
        "(secret)" => "\"\"".to_owned(),
        text => text.replace('|', "\\|"),
    };
    format!("`{text}`")
}

/// The table of blocks, and what each holds.
fn blocks(out: &mut String, one: &Definition, schema: &Body) {
    let mut all = Vec::new();
    nested(one, schema, "", &mut |path, block| {
        all.push((path.to_owned(), block.clone()));
    });
    if all.is_empty() {
        return;
    }
    out.push_str("\n## Blocks\n\n| block | | |\n|---|---|---|\n");
    for (path, block) in &all {
        let many = match (block.is_required, block.is_repeated) {
            (true, _) => "**required**",
            (false, true) => "any number",
            (false, false) => "at most one",
        };
        let label = if block.takes_label { " \"LABEL\"" } else { "" };
        let (shown, text) = (
            path.replace('.', " > "),
            text(one, path).unwrap_or("(no text)"),
        );
        add(
            out,
            format_args!("| `{shown}{label}` | {many} | {text} |\n"),
        );
    }
    for (path, block) in &all {
        if !block.body.attributes.is_empty() && !is_refused(one, path) {
            add(out, format_args!("\n### {}\n\n", path.replace('.', " > ")));
            arguments(out, one, &block.body, path);
        }
    }
}

/// Every block, the outer ones first; nothing in those that are refused.
pub(super) fn nested(
    one: &Definition,
    body: &Body,
    path: &str,
    see: &mut dyn FnMut(&str, &Nested),
) {
    for block in &body.blocks {
        let path = join(path, &block.name);
        see(&path, block);
        if !is_refused(one, &path) {
            nested(one, &block.body, &path, see);
        }
    }
}

pub(super) fn is_refused(one: &Definition, path: &str) -> bool {
    text(one, path).is_some_and(|text| text.starts_with(NOT_SUPPORTED))
}

/// The text of an argument or a block.
pub(super) fn text(one: &Definition, path: &str) -> Option<&'static str> {
    let mut all = texts(one);
    all.find(|(other, _)| other == path).map(|(_, text)| text)
}

/// All texts by whole names.
pub(super) fn texts(one: &Definition) -> impl Iterator<Item = (String, &'static str)> {
    let lists = one.document.texts.iter();
    lists.flat_map(|(below, list)| {
        list.iter()
            .map(move |(name, text)| (join(below, name), *text))
    })
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn add(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a string cannot fail.
    out.write_fmt(text).unwrap();
}
