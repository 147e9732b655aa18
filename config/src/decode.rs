//! Turns a block and the code that reads its arguments into the arguments, a record of them, a
//! description of what may be given, or a list of what is wrong with the text.
//!
//! One function reads the arguments of a component; what is wanted of it is decided here, so that the
//! arguments, their documentation and their check cannot disagree.

use crate::ast::Block;
use crate::body::{Body, Schema};
use crate::diag::Diagnostics;
use crate::eval::Scope;
use crate::reader::{BodyReader, Purpose, empty_block};

/// Reads the body of a top-level block with `read`. Its label is left to the caller.
///
/// # Errors
/// Everything wrong with the block, in reading order.
pub fn decode<T>(
    block: &Block,
    scope: &Scope,
    read: impl FnOnce(&mut BodyReader<'_>) -> T,
) -> Result<T, Diagnostics> {
    run(block, scope, Purpose::Decode, read).map(|(value, _)| value)
}

/// As [`decode`], and tells what was asked for and what was given.
///
/// # Errors
/// As [`decode`].
pub fn decode_recorded<T>(
    block: &Block,
    scope: &Scope,
    read: impl FnOnce(&mut BodyReader<'_>) -> T,
) -> Result<(T, Body), Diagnostics> {
    run(block, scope, Purpose::Record, read)
}

/// What `read` would ask of a block: it is run on an empty one, whatever it reports is dropped.
pub fn describe<T>(read: impl FnOnce(&mut BodyReader<'_>) -> T) -> Schema {
    let (block, scope) = (empty_block(""), Scope::new());
    let mut reader = BodyReader::new(&block, &scope, Purpose::Describe);
    read(&mut reader);
    reader.finish().1
}

/// What the text alone shows to be wrong with the block. An attribute whose value is only known where
/// the configuration runs is taken as its type's zero, and a refusal that could come from that is dropped.
pub fn check<T>(block: &Block, read: impl FnOnce(&mut BodyReader<'_>) -> T) -> Diagnostics {
    let checked = run(block, &Scope::new(), Purpose::Check, read);
    checked.err().unwrap_or_default()
}

fn run<T>(
    block: &Block,
    scope: &Scope,
    purpose: Purpose,
    read: impl FnOnce(&mut BodyReader<'_>) -> T,
) -> Result<(T, Body), Diagnostics> {
    let mut reader = BodyReader::new(block, scope, purpose);
    reader.ignore_label();
    let value = read(&mut reader);
    let (mut diagnostics, body) = reader.finish();
    if diagnostics.is_empty() {
        return Ok((value, body));
    }
    diagnostics.sort_by_position();
    Err(diagnostics)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::body::Shown;
    use crate::{Capsule, CapsuleKind, Handle, Secret, Value, parse};

    struct Receiver;

    impl CapsuleKind for Receiver {
        const KIND: &'static str = "MetricsReceiver";
    }

    /// A component with everything a component may have.
    fn arguments(r: &mut BodyReader<'_>) {
        let _receivers: Vec<Handle<Receiver>> = r.required("forward_to");
        let url: String = r.required("url");
        if !url.starts_with("http") {
            r.refuse("url", "must start with http");
        }
        let least = r.or("least", Duration::from_secs(1));
        let most = r.or("most", Duration::from_secs(90));
        if least > most {
            r.refuse("least", "must not be above most");
        }
        let _headers: BTreeMap<String, Secret> = r.or("headers", BTreeMap::new());
        let _count: Option<u16> = r.optional("count");
        if r.required_block("queue", queue) == Some(0) {
            r.refuse_block("queues nothing");
        }
        r.variants(&["stage.a", "stage.b"], |name, r| {
            let label = r.label();
            if r.or("is_wrong", false) {
                r.refuse_block(format!("{name} {label} is wrong"));
            }
        });
    }

    fn queue(r: &mut BodyReader<'_>) -> u32 {
        // Blocks of one kind inside each other, as stages of a pipeline may be.
        r.block("queue", queue);
        r.or("capacity", 10)
    }

    fn block(body: &str) -> Block {
        let file = parse("f", &format!("c \"l\" {{\n{body}\n}}")).unwrap();
        file.blocks[0].clone()
    }

    fn scope(receiver: &Arc<Receiver>) -> Scope {
        let mut scope = Scope::new();
        let receiver = Capsule::new(Receiver::KIND, Arc::clone(receiver) as _);
        scope.set_path("w.receiver", receiver);
        scope.set("password", Secret::new("hunter2"));
        scope
    }

    const WHOLE: &str = "forward_to = [w.receiver]\nurl = \"http://h\"\nmost = \"2m\"\n\
        headers = {a = \"hunter2\", b = password}\nqueue { }\nstage.b \"x\" { }\nstage.a \"y\" { }";

    fn record(body: &str, scope: &Scope) -> Body {
        decode_recorded(&block(body), scope, arguments).unwrap().1
    }

    #[test]
    fn what_was_asked_and_given_is_recorded_in_the_order_asked() {
        let body = record(WHOLE, &scope(&Arc::new(Receiver)));
        let lines: Vec<String> = body
            .attributes
            .iter()
            .map(|one| {
                let text = |value: &Option<Value>| value.as_ref().map(ToString::to_string);
                let (default, given) = (text(&one.default), text(&one.given));
                format!(
                    "{} {} {} {default:?} {given:?}",
                    one.name, one.type_name, one.is_required
                )
            })
            .collect();
        assert_eq!(
            lines,
            [
                "forward_to list(capsule(\"MetricsReceiver\")) true None \
                 Some(\"[capsule(\\\"MetricsReceiver\\\")]\")",
                "url string true None Some(\"\\\"http://h\\\"\")",
                "least duration false Some(\"\\\"1s\\\"\") None",
                "most duration false Some(\"\\\"1m30s\\\"\") Some(\"\\\"2m0s\\\"\")",
                "headers map(secret) false Some(\"{}\") Some(\"{a = (secret), b = (secret)}\")",
                "count number false None None",
            ]
        );
        let blocks: Vec<(&str, Option<&str>, bool, bool)> = body
            .blocks
            .iter()
            .map(|one| {
                (
                    &*one.name,
                    one.label.as_deref(),
                    one.is_required,
                    one.is_repeated,
                )
            })
            .collect();
        assert_eq!(
            blocks,
            [
                ("queue", None, true, false),
                ("stage.b", Some("x"), false, true),
                ("stage.a", Some("y"), false, true),
            ]
        );
    }

    #[test]
    fn what_is_shown_has_defaults_and_no_secrets() {
        let body = record(WHOLE, &scope(&Arc::new(Receiver)));
        let mut shown = Vec::new();
        for line in body.shown() {
            shown.push(match line {
                Shown::Attribute {
                    name,
                    value,
                    is_default: true,
                } => format!("({name} = {value})"),
                Shown::Attribute { name, value, .. } => format!("{name} = {value}"),
                Shown::Block(nested) => nested.name.clone(),
            });
        }
        assert_eq!(
            shown[1..4],
            ["url = \"http://h\"", "(least = \"1s\")", "most = \"2m0s\""]
        );
        assert_eq!(shown[4], "headers = {a = (secret), b = (secret)}");
        assert_eq!(shown[5..], ["queue", "stage.b", "stage.a"]);
        assert!(!format!("{body:?}").contains("hunter2"));
    }

    #[test]
    fn records_differ_by_what_was_given() {
        let receiver = Arc::new(Receiver);
        let scope = scope(&receiver);
        let whole = record(WHOLE, &scope);
        // Written otherwise, and with a default written out where nothing else changes: a given one counts.
        assert_eq!(whole, record(&WHOLE.replace("2m", "120s"), &scope));
        for (from, to) in [
            ("2m", "3m"),
            ("most = \"2m\"", ""),
            ("\"hunter2\"", "\"hunter3\""),
            ("queue { }", "queue {\n capacity = 1\n}"),
            ("\"x\"", "\"z\""),
            ("stage.a \"y\" { }", ""),
            ("[w.receiver]", "[null]"),
        ] {
            assert!(WHOLE.contains(from));
            assert_ne!(whole, record(&WHOLE.replace(from, to), &scope), "{from}");
        }
        let elsewhere = self::scope(&Arc::new(Receiver));
        assert_ne!(whole, record(WHOLE, &elsewhere), "another receiver");
        assert_eq!(
            whole,
            record(WHOLE, &self::scope(&receiver)),
            "the same, in another capsule"
        );
    }

    #[test]
    fn a_schema_has_everything_and_nothing_given() {
        let schema = describe(arguments);
        let names: Vec<&str> = schema.attributes.iter().map(|one| &*one.name).collect();
        assert_eq!(
            names,
            ["forward_to", "url", "least", "most", "headers", "count"]
        );
        assert!(schema.attributes.iter().all(|one| one.given.is_none()));
        assert!(schema.attributes[1].is_required && !schema.attributes[2].is_required);
        let blocks: Vec<(&str, bool, bool, bool)> = schema
            .blocks
            .iter()
            .map(|one| {
                (
                    &*one.name,
                    one.is_required,
                    one.is_repeated,
                    one.takes_label,
                )
            })
            .collect();
        assert_eq!(
            blocks,
            [
                ("queue", true, false, false),
                ("stage.a", false, true, true),
                ("stage.b", false, true, true),
            ]
        );
        let stage = &schema.blocks[2].body;
        assert_eq!(stage.attributes[0].name, "is_wrong");
    }

    #[test]
    fn blocks_inside_themselves_are_described_to_an_end() {
        let schema = describe(arguments);
        let mut depth = 0;
        let mut body = &schema;
        while let Some(inner) = body.blocks_named("queue").next() {
            depth += 1;
            body = &inner.body;
        }
        assert_eq!(depth, 6);
    }

    fn problems(body: &str) -> Vec<String> {
        let all = check(&block(body), arguments);
        all.iter()
            .map(|d| format!("{}: {}", d.pos(), d.message))
            .collect()
    }

    #[test]
    fn the_text_alone_shows_most_of_what_is_wrong() {
        let good = "forward_to = [w.receiver]\nurl = \"http://h\"\nqueue { }";
        assert!(problems(good).is_empty(), "{:?}", problems(good));
        let table = [
            ("forward_to = []", "1:1: missing required attribute \"url\""),
            ("forward_to = []", "1:1: missing required block \"queue\""),
            ("foo = 1", "2:1: unrecognized attribute name \"foo\""),
            ("foo = w.x", "2:1: unrecognized attribute name \"foo\""),
            ("foo { }", "2:1: unrecognized block name \"foo\""),
            (
                "url = a.b\nurl = a.b",
                "3:1: attribute \"url\" may only be provided once",
            ),
            (
                "queue = a.b",
                "2:1: \"queue\" must be a block, but is used as an attribute",
            ),
            (
                "queue { }\nqueue { }",
                "3:1: block \"queue\" may only be specified once",
            ),
            (
                "queue \"x\" {\n capacity = a.b\n}",
                "2:1: block \"queue\" does not support specifying labels",
            ),
            ("least = 5", "2:9: 5 time: missing unit in duration \"5\""),
            ("count = 2 ^ 20", "2:9: 2 ^ 20 is out of range 0 to 65535"),
            (
                "count = true + 1",
                "2:9: true should be one of [number string capsule] for binop +, got bool",
            ),
            (
                "count = encoding.from_json(`\"x\"`)",
                "2:9: encoding.from_json(`\"x\"`) should be number, got string",
            ),
            ("url = \"ftp\"", "2:7: \"ftp\" must start with http"),
            ("queue {\n capacity = 0\n}", "1:1: queues nothing"),
            ("least = \"5m\"", "2:9: \"5m\" must not be above most"),
            (
                "stage.a { }",
                "2:1: block \"stage.a\" requires non-empty label",
            ),
            (
                "stage.a \"x\" {\n is_wrong = true\n}",
                "2:1: stage.a x is wrong",
            ),
        ];
        for (body, want) in table {
            let all = problems(body);
            assert!(all.iter().any(|one| one == want), "{body}: {all:?}");
        }
    }

    #[test]
    fn what_an_unknown_value_may_have_caused_is_not_reported() {
        for body in [
            "url = sys.env(\"URL\")",
            "url = \"http://\" + constants.hostname",
            "url = \"http://h\"\nmost = argument.most.value\nleast = \"5m\"",
            "url = \"http://h\"\ncount = argument.count.value\nstage.a \"x\" {\n is_wrong = true\n}",
            "url = \"http://h\"\nstage.a \"x\" {\n is_wrong = a.b\n}",
        ] {
            let whole = format!("forward_to = [w.receiver]\nqueue {{ }}\n{body}");
            assert_eq!(problems(&whole), Vec::<String>::new(), "{body}");
        }
    }

    #[test]
    fn an_unknown_value_silences_neither_the_next_block_nor_what_was_refused_before() {
        let body = "forward_to = [w.receiver]\nurl = \"ftp\"\nqueue {\n capacity = a.b\n}\n\
            stage.a \"x\" {\n is_wrong = a.b\n}\nstage.a \"y\" {\n is_wrong = true\n}";
        assert_eq!(
            problems(body),
            [
                "3:7: \"ftp\" must start with http",
                "10:1: stage.a y is wrong",
            ]
        );
    }

    #[test]
    fn nothing_outside_of_the_text_is_to_be_looked_at() {
        let block = block("");
        check(&block, |r| assert!(r.is_text_only()));
        describe(|r| assert!(r.is_text_only()));
        assert!(decode(&block, &Scope::new(), |r| r.is_text_only()).is_ok_and(|only| !only));
    }
}
