//! Turns the text of a Kubernetes selector into the part of it that no server would take.
//!
//! A server refuses what is wrong only when it is asked, and says so in the log; here it is told where it stands.

/// The first requirement that cannot be one on labels: `a`, `!a`, `a=b`, `a==b`, `a!=b`, `a in (b, c)`,
/// `a notin (b)`, `a>1`, `a<1`, separated by commas.
pub(super) fn wrong_label(text: &str) -> Option<String> {
    let wrong = requirements(text).find(|one| !is_on_label(one));
    wrong.map(str::to_owned)
}

/// The first requirement that cannot be one on fields: `a=b`, `a==b`, `a!=b`, separated by commas. A backslash is
/// before a comma, an equals sign and a backslash that belong to a value.
pub(super) fn wrong_field(text: &str) -> Option<String> {
    let mut is_escaped = false;
    let is_end = |c: char| {
        let is_end = c == ',' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    };
    let is_on_field = |one: &&str| match one.split_once('=') {
        Some((name, _)) => !name.trim_end_matches('!').trim().is_empty(),
        None => one.trim().is_empty(),
    };
    let mut all = text.split(is_end);
    all.find(|one| !is_on_field(one)).map(str::to_owned)
}

/// What stands between commas outside of parentheses.
fn requirements(text: &str) -> impl Iterator<Item = &str> {
    let mut is_inside = false;
    let is_end = move |c: char| {
        is_inside = (is_inside || c == '(') && c != ')';
        c == ',' && !is_inside
    };
    let all = text.split(is_end).map(str::trim);
    // Nothing at all selects everything.
    let is_empty = text.trim().is_empty();
    all.filter(move |_| !is_empty)
}

fn is_on_label(one: &str) -> bool {
    if let Some(name) = one.strip_prefix('!') {
        return is_name(name.trim());
    }
    for operator in ["!=", "==", "="] {
        if let Some((name, value)) = one.split_once(operator) {
            return is_name(name.trim()) && is_value(value.trim());
        }
    }
    if let Some((name, number)) = one.split_once(['<', '>']) {
        return is_name(name.trim()) && number.trim().parse::<i64>().is_ok();
    }
    let Some((name, values)) = one.split_once('(') else {
        return is_name(one);
    };
    let Some(values) = values.strip_suffix(')') else {
        return false;
    };
    let mut words = name.split_whitespace();
    let is_set = words.next().is_some_and(is_name)
        && matches!(words.next(), Some("in" | "notin"))
        && words.next().is_none();
    is_set && values.split(',').all(|value| is_value(value.trim()))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| is_of_value(c) || c == '/')
}

fn is_value(text: &str) -> bool {
    text.chars().all(is_of_value)
}

const fn is_of_value(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_requirement_is_known() {
        for text in [
            "",
            " ",
            "app=web",
            "app.kubernetes.io/name == web , tier!=cache",
            "environment in (production, qa),partition notin (a),!old,x,cores>4",
            "empty=",
        ] {
            assert_eq!(wrong_label(text), None, "{text}");
        }
        for (text, wrong) in [
            ("a=b,,c", ""),
            ("a=b c", "a=b c"),
            ("a in b", "a in b"),
            ("a within (b)", "a within (b)"),
            ("x, a in (b", "a in (b"),
            ("=b", "=b"),
            ("a>b", "a>b"),
        ] {
            assert_eq!(wrong_label(text).as_deref(), Some(wrong), "{text}");
        }
    }

    #[test]
    fn fields_are_compared_and_nothing_else() {
        for text in ["", "spec.nodeName=", "a=b,c!=d,e==f", "a=b\\,c,d=e"] {
            assert_eq!(wrong_field(text), None, "{text}");
        }
        for (text, wrong) in [("a", "a"), ("a=b,=c", "=c"), ("a=b\\\\,c", "c")] {
            assert_eq!(wrong_field(text).as_deref(), Some(wrong), "{text}");
        }
    }
}
