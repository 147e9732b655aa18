//! Turns number tokens into floats and compares them with the standard library's.

use proptest::prelude::*;

use super::super::float::{Bound, NAN_BITS, append, bound, parse};

fn written(float: f64) -> String {
    let mut out = b"before ".to_vec();
    append(&mut out, float);
    let out = String::from_utf8(out).unwrap();
    out.strip_prefix("before ").unwrap().to_owned()
}

fn is_same(token: &str) -> Result<(), TestCaseError> {
    let expected: f64 = token.parse().unwrap();
    let parsed = parse(token.as_bytes());
    if expected.is_finite() {
        prop_assert_eq!(
            parsed.map(f64::to_bits),
            Some(expected.to_bits()),
            "{}",
            token
        );
    } else {
        prop_assert_eq!(parsed, None, "{}", token);
    }
    Ok(())
}

proptest! {
    #[test]
    fn decimals_are_the_floats_of_the_standard_library(
        sign in "[-+]?",
        whole in "[0-9]{0,24}",
        fraction in "(\\.[0-9]{0,24})?",
        exponent in "([eE][-+]?[0-9]{1,3})?",
    ) {
        let has_digits = whole.len() + fraction.len() > usize::from(!fraction.is_empty());
        prop_assume!(has_digits);
        is_same(&format!("{sign}{whole}{fraction}{exponent}"))?;
    }

    #[test]
    fn any_float_is_read_from_all_its_texts(bits in any::<u64>()) {
        let float = f64::from_bits(bits);
        prop_assume!(float.is_finite());
        is_same(&format!("{float}"))?;
        is_same(&format!("{float:e}"))?;
        is_same(&format!("{float:.17e}"))?;
        let text = written(float);
        let back = parse(text.as_bytes()).map(f64::to_bits);
        let expected = if float == 0.0 { 0f64.to_bits() } else { bits };
        prop_assert_eq!(back, Some(expected), "{}", text);
        prop_assert!(text.contains(['.', 'e']), "{}", text);
    }

    #[test]
    fn decimals_near_the_border_of_the_short_way_are_right(
        mantissa in (1u64 << 53) - 1000..(1 << 53) + 1000,
        exponent in -25i32..25,
    ) {
        is_same(&format!("{mantissa}e{exponent}"))?;
        is_same(&format!("-{mantissa}e{exponent}"))?;
    }

    /// What the form says of a bound is what writing its number would say.
    #[test]
    fn bounds_are_normalised_as_if_written_anew(text in "-?[0-9]{1,8}(\\.[0-9]{1,16})?(e-?[0-9]{1,2})?") {
        let anew = written(parse(text.as_bytes()).unwrap());
        match bound(text.as_bytes()) {
            Bound::Canonical => prop_assert_eq!(&anew, &text),
            Bound::Whole => prop_assert_eq!(anew, format!("{text}.0")),
            Bound::Other => {}
        }
    }

    #[test]
    fn any_token_is_read_or_refused(token in proptest::collection::vec(any::<u8>(), 0..12)) {
        let parsed = parse(&token);
        prop_assert!(parsed.is_none() || token.is_ascii());
        prop_assert!(bound(&token) == Bound::Other || parsed.is_some());
    }
}

#[test]
fn names_of_numbers_are_those_go_knows() {
    for token in ["Inf", "+Inf", "inf", "INF", "+infinity", "iNfInItY"] {
        assert_eq!(parse(token.as_bytes()), Some(f64::INFINITY), "{token}");
    }
    for token in ["-Inf", "-inf", "-Infinity"] {
        assert_eq!(parse(token.as_bytes()), Some(f64::NEG_INFINITY), "{token}");
    }
    for token in ["NaN", "nan", "NAN"] {
        let bits = parse(token.as_bytes()).map(f64::to_bits);
        assert_eq!(bits, Some(NAN_BITS), "{token}");
    }
    for token in [
        "",
        "-",
        "+",
        ".",
        "-.",
        "e5",
        ".e5",
        "1e",
        "1e+",
        "1.1.1",
        "1_2",
        "0x1p-3",
        "0X1",
        "0b1",
        "+NaN",
        "-nan",
        "infi",
        "in",
        "infinit",
        "1 ",
        " 1",
        "--1",
        "1e400",
        "-1e400",
        "1d",
        "1f",
        "1e99999999999999999999",
        "true",
    ] {
        assert_eq!(parse(token.as_bytes()), None, "{token}");
    }
    assert_eq!(parse(b"-0").map(f64::to_bits), Some((-0.0f64).to_bits()));
    assert_eq!(parse(b"1e-99999999999999999999"), Some(0.0));
    assert_eq!(parse(b"0e99999999999999999999"), Some(0.0));
}

#[test]
fn bounds_are_written_as_prometheus_writes_them() {
    for (float, text) in [
        (0.0, "0.0"),
        (-0.0, "0.0"),
        (1.0, "1.0"),
        (-1.0, "-1.0"),
        (0.5, "0.5"),
        (0.25, "0.25"),
        (10.0, "10.0"),
        (2500.0, "2500.0"),
        (100_000.0, "100000.0"),
        (999_999.5, "999999.5"),
        (1_000_000.0, "1e+06"),
        (1_500_000.0, "1.5e+06"),
        (1e23, "1e+23"),
        (1e-4, "0.0001"),
        (-0.000_123, "-0.000123"),
        (1e-5, "1e-05"),
        (1.25e-7, "1.25e-07"),
        (0.012, "0.012"),
        (1e100, "1e+100"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
        (f64::NAN, "NaN"),
    ] {
        assert_eq!(written(float), text);
    }
}
