//! Bodies of fuzz targets: arbitrary text in, no panic out.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{ByteSize, Secret, Statement, Value};

/// Parses text as a file; prints whatever is wrong.
pub fn parse(text: &str) {
    match crate::parse("fuzz", text) {
        Ok(file) => {
            for block in &file.blocks {
                let _references = crate::references(block);
            }
        }
        Err(all) => {
            assert!(!all.is_empty());
            let _pretty = (all.to_string(), all.pretty(true));
        }
    }
}

/// Reads text as YAML, and makes a value of it.
pub fn yaml(text: &str) {
    match crate::yaml::parse(text) {
        Ok(node) => {
            let _value = node.value().to_string();
        }
        Err(error) => assert!(!error.message.is_empty()),
    }
}

/// Formats text. What comes out must mean the same, with as many comments, and stay as it is when it is
/// formatted again.
pub fn format(text: &str) {
    let Ok((_, statements)) = crate::parse_body("fuzz", text) else {
        assert!(crate::format("fuzz", text).is_err());
        return;
    };
    let formatted = crate::format("fuzz", text).unwrap_or_default();
    let Ok((_, again)) = crate::parse_body("fuzz", &formatted) else {
        panic!("{text:?} became {formatted:?}, which does not parse");
    };
    assert_eq!(printed(&statements), printed(&again), "{text:?}");
    assert_eq!(comments(text), comments(&formatted), "{text:?}");
    let twice = crate::format("fuzz", &formatted);
    assert_eq!(twice.as_ref(), Ok(&formatted), "{text:?}");
}

/// The comments of a text that parses, without the blanks at the ends of their lines.
fn comments(text: &str) -> Vec<String> {
    let source = std::sync::Arc::new(crate::Source::new("fuzz", text));
    match crate::parser::parse_with_comments(&source) {
        Ok((_, all)) => all
            .iter()
            .map(|one| {
                let text = one.text.trim_end_matches([' ', '\t', '\r']);
                let lines = text
                    .split('\n')
                    .map(|line| line.trim_end_matches([' ', '\t']));
                lines.collect::<Vec<_>>().join("\n")
            })
            .collect(),
        Err(_) => Vec::new(),
    }
}

/// The statements without what only their layout says.
fn printed(statements: &[Statement]) -> String {
    let mut out = String::new();
    for statement in statements {
        match statement {
            Statement::Attribute(one) => out += &format!("{} = {}\n", one.name.name, one.value),
            Statement::Block(one) => {
                out += &format!(
                    "{} {:?} {{\n{}}}\n",
                    one.name.name,
                    one.label(),
                    printed(&one.body)
                );
            }
        }
    }
    out
}

/// Parses and evaluates text as an expression. The printed form must parse to what prints the same; a
/// secret in scope must not reach a message.
pub fn evaluate(text: &str) {
    let Ok((source, expr)) = crate::parse_expression("fuzz", text) else {
        return;
    };
    let printed = expr.to_string();
    match crate::parse_expression("fuzz", &printed) {
        Ok((_, again)) => assert_eq!(again.to_string(), printed),
        Err(all) => panic!("{text:?} printed as {printed:?}: {all}"),
    }
    let mut scope = crate::Scope::new();
    scope.set(
        "a",
        Value::from(vec![Value::Int(1), Value::from(Secret::new("hunter2"))]),
    );
    if let Err(error) = crate::evaluate(&expr, &scope, &source) {
        // Unless the text says it itself.
        assert!(text.contains("hunter2") || !error.message.contains("hunter2"));
    }
}

/// Decodes every attribute of every block as several types.
pub fn decode(text: &str) {
    let Ok((_, statements)) = crate::parse_body("fuzz", text) else {
        return;
    };
    let scope = crate::Scope::new();
    for statement in &statements {
        let Statement::Block(block) = statement else {
            continue;
        };
        match crate::decode_recorded(block, &scope, arguments) {
            Err(all) => {
                let _pretty = all.pretty(false);
            }
            Ok(((), body)) => assert!(body == body.clone() && body.shown().count() < 1 << 16),
        }
        let _pretty = crate::check(block, arguments).pretty(false);
    }
}

fn arguments(r: &mut crate::BodyReader<'_>) {
    let _text: String = r.required("a");
    let _duration = r.or("b", Duration::ZERO);
    let _size: Option<ByteSize> = r.optional("c");
    let _maps: Vec<BTreeMap<String, u16>> = r.or("d", Vec::new());
    r.blocks("e", |r| {
        r.label();
        r.refuse("f", "is refused");
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;

    /// Text made of the pieces the language is made of: reaches deeper than arbitrary characters.
    fn pieces() -> impl Strategy<Value = String> {
        #[rustfmt::skip]
        let piece = prop::sample::select(vec![
            "a", "b", "c", "d", "e", "string", "format", "join", "coalesce", "sys", "env", "true",
            "null", "1", "08", "1.5", "9223372036854775808", "\"x\"", "\"%5d\"", "\"\\x41\"", "`r`",
            "\"1h\"", "\"5MiB\"", "+", "-", "*", "/", "%", "^", "&&", "||", "==", "<", "!", "=",
            "(", ")", "[", "]", "{", "}", ",", ".", "\n", " ", "// c\n", "/* c */", "\t", "é", "#",
            "'", "\\", "\0", "\u{feff}", "encoding.from_json", "json_path", "\"$..b\"",
            "array.group_by", "file.path_join",
        ]);
        prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    /// Text made of the pieces YAML is made of.
    fn yaml_pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "a",
            "- ",
            ": ",
            "? ",
            "\n",
            "  ",
            "\n  ",
            "[",
            "]",
            "{",
            "}",
            ", ",
            "&a ",
            "*a",
            "<<",
            "|\n",
            ">-\n",
            "'",
            "\"",
            "\\",
            "#",
            "---\n",
            "...\n",
            "!!str ",
            "!x ",
            "%YAML 1.1\n",
            "\t",
            "0x1",
            "08",
            "-1",
            "~",
            "é",
            "\0",
        ]);
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    /// Blanks, line breaks and comments as they may stand where a line break ends nothing.
    fn gap() -> impl Strategy<Value = &'static str> {
        let gaps = vec![
            "",
            "",
            "",
            " ",
            "  ",
            "\n",
            "\n\n\n",
            " // c\n",
            "\n// c\n",
            "/* c */",
            "\n/* c */",
            "/* c */\n",
            "// c\n\n\n// c\n",
            "/* c\n c */",
            "\t",
            "\r\n",
        ];
        prop::sample::select(gaps)
    }

    /// Expressions that parse, with gaps where they may be.
    fn expression() -> impl Strategy<Value = String> {
        let leaf = prop::sample::select(vec![
            "1", "08", "1.5", "1e3", "\"x\"", "`r\n  r`", "a", "null", "true",
        ]);
        let leaf = leaf.prop_map(str::to_owned).boxed();
        leaf.prop_recursive(4, 24, 3, |inner| {
            let item = (
                gap(),
                inner.clone(),
                prop::sample::select(vec![",", " ,", "/* c */,"]),
                gap(),
            );
            let item = item
                .prop_map(|(before, item, comma, after)| format!("{before}{item}{comma}{after}"));
            let items = prop::collection::vec(item, 0..4)
                .prop_map(|items| items.concat())
                .boxed();
            let field = (
                gap(),
                prop::sample::select(vec!["k", "key", "\"q k\""]),
                gap(),
                inner.clone(),
                gap(),
            );
            let field = field.prop_map(|(a, key, b, value, c)| format!("{a}{key} ={b}{value},{c}"));
            let fields = prop::collection::vec(field, 0..4).prop_map(|fields| fields.concat());
            let op = prop::sample::select(vec!["+", "-", "^", "==", "&&", "/"]);
            prop_oneof![
                items.clone().prop_map(|items| format!("[{items}]")),
                fields.prop_map(|fields| format!("{{{fields}}}")),
                items.prop_map(|items| format!("f({items})")),
                (inner.clone(), op, gap(), inner.clone())
                    .prop_map(|(a, op, gap, b)| format!("{a} {op} {gap}{b}")),
                (gap(), inner.clone()).prop_map(|(gap, a)| format!("({gap}{a})")),
                inner.clone().prop_map(|a| format!("-{a}")),
                (inner.clone(), gap()).prop_map(|(a, gap)| format!("{a} .{gap}b")),
                (inner.clone(), gap(), inner).prop_map(|(a, gap, b)| format!("{a}[{gap}{b}]")),
            ]
        })
    }

    /// Bodies that parse.
    fn body() -> impl Strategy<Value = String> {
        let end = || {
            prop::sample::select(vec![
                "\n",
                "\n\n\n",
                " // c\n",
                "\n// c\n",
                "/* c */\n",
                "/*\n*/",
                " \n\n// c\n\n",
            ])
        };
        let name = || prop::sample::select(vec!["a", "bb", "long_name"]);
        let attribute = move || {
            let parts = (name(), gap(), expression(), end());
            parts.prop_map(|(name, gap, value, end)| format!("{name} ={gap}{value}{end}"))
        };
        let statement = attribute().boxed().prop_recursive(3, 16, 4, move |inner| {
            let inner = prop::collection::vec(inner, 0..4).prop_map(|all| all.concat());
            let block = (name(), gap(), inner, end());
            block
                .prop_map(|(name, gap, inner, end)| format!("{name}.x \"l\" {{{gap}{inner}}}{end}"))
        });
        let all = prop::collection::vec(statement, 0..5);
        (gap(), all).prop_map(|(gap, all)| format!("{gap}{}", all.concat()))
    }

    #[test]
    fn the_made_bodies_parse() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let mut good = 0;
        for _ in 0..500 {
            let text = body().new_tree(&mut runner).unwrap().current();
            good += usize::from(crate::parse_body("made", &text).is_ok());
        }
        assert!(good > 400, "{good} of 500");
    }

    #[test]
    fn the_deepest_text_allowed_is_walked_on_a_small_stack() {
        let nested = |open: &str, close: &str, count: usize| {
            format!("{}1{}", open.repeat(count), close.repeat(count))
        };
        let texts = [
            nested("[", "]", 98),
            nested("{a = ", "}", 98),
            nested("coalesce(", ")", 48),
            nested("1||1&&1==1+1*1^-(", ")", 30),
            nested("a[", "]", 98),
            nested("1+", "", 248),
            format!("a{}", ".b".repeat(248)),
            nested("-", "", 98),
        ];
        let walk = move || {
            for text in &texts {
                assert!(crate::parse_expression("deep", text).is_ok(), "{text}");
                super::evaluate(text);
                super::format(&format!("x = {text}"));
                super::decode(&format!("x {{\n a = {text}\n d = {text}\n}}"));
            }
            let blocks = format!("{}{}", "e \"l\" {\n".repeat(98), "}\n".repeat(98));
            assert!(crate::parse("deep", &blocks).is_ok());
            super::parse(&blocks);
        };
        let thread = std::thread::Builder::new()
            .stack_size(1 << 20)
            .spawn(walk)
            .unwrap();
        thread.join().unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_text_parses_or_is_refused(text in ".*", made in pieces()) {
            super::parse(&text);
            super::parse(&made);
        }

        #[test]
        fn any_text_is_yaml_or_is_refused(text in ".*", made in pieces(), yaml in yaml_pieces()) {
            super::yaml(&text);
            super::yaml(&made);
            super::yaml(&yaml);
        }

        #[test]
        fn what_is_formatted_means_the_same_and_stays(text in ".*", made in pieces(), body in body()) {
            super::format(&text);
            super::format(&made);
            super::format(&body);
        }

        #[test]
        fn any_expression_evaluates_or_is_refused(text in ".*", made in pieces()) {
            super::evaluate(&text);
            super::evaluate(&made);
        }

        #[test]
        fn any_body_decodes_or_is_refused(a in pieces(), b in pieces(), inner in pieces()) {
            super::decode(&format!("x {{\na = {a}\nd = {b}\ne \"l\" {{\n{inner}\n}}\n}}"));
            super::decode(&format!("x {{\n{inner}\n}}"));
        }
    }
}
