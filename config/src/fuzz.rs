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

/// Parses and evaluates text as an expression. Where the printed form parses again (a blank may be
/// lost, as in `1 .x`), it must print the same; a secret in scope must not reach a message.
pub fn evaluate(text: &str) {
    let Ok((source, expr)) = crate::parse_expression("fuzz", text) else {
        return;
    };
    let printed = expr.to_string();
    if let Ok((_, again)) = crate::parse_expression("fuzz", &printed) {
        assert_eq!(again.to_string(), printed);
    }
    let mut scope = crate::Scope::new();
    scope.set(
        "a",
        Value::from(vec![Value::Int(1), Value::from(Secret::new("hunter2"))]),
    );
    if let Err(error) = crate::evaluate(&expr, &scope, &source) {
        assert!(!error.message.contains("hunter2"));
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
