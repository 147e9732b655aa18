//! Turns an expression into the answer whether its value is known from the text alone.
//!
//! Literals, operators and functions of their arguments alone are; what other components export is
//! not, nor what the machine says (`sys.env`, `constants`): a configuration may be checked elsewhere
//! than it runs.

use crate::ast::Expr;
use crate::references::paths;
use crate::stdlib;

/// Names of the standard library that lead to what the machine says.
const OF_THE_MACHINE: &[&str] = &["constants", "env", "sys"];

/// Whether evaluating the expression anywhere gives the same value.
pub(crate) fn is_constant(expr: &Expr) -> bool {
    let known =
        |name: &String| stdlib::is_identifier(name) && !OF_THE_MACHINE.contains(&name.as_str());
    paths(expr)
        .iter()
        .all(|path| path.first().is_some_and(known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::parse_expression;

    #[test]
    fn what_the_text_says_is_constant() {
        for text in [
            "-1 + 2 ^ 3",
            "[{a = \"x\" + \"y\"}]",
            "string.format(\"%d\", 1)",
            "coalesce(null, encoding.from_json(`{}`)).a",
        ] {
            assert!(
                is_constant(&parse_expression("t", text).unwrap().1),
                "{text}"
            );
        }
    }

    #[test]
    fn what_others_or_the_machine_say_is_not() {
        for text in [
            "local.file.x.content",
            "[1, {a = b}]",
            "sys.env(\"X\")",
            "sys[\"env\"](\"X\")",
            "env(\"X\")",
            "string.to_upper(constants.hostname)",
            "[1][a.b]",
        ] {
            assert!(
                !is_constant(&parse_expression("t", text).unwrap().1),
                "{text}"
            );
        }
    }
}
