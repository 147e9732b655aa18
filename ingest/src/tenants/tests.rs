//! Turns names on the wire into tenants, and their absence into room for others.

use hyper::header::HeaderValue;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn tenants(tenants_max: usize) -> Tenants {
    let options = TenantsOptions {
        idle_timeout: 2 * MINUTE,
        tenants_max,
        overrides: [(
            "vip".to_owned(),
            TenantLimits {
                series_max: 7,
                ..TenantLimits::default()
            },
        )]
        .into(),
        ..TenantsOptions::default()
    };
    Tenants::new(options).unwrap()
}

fn of(tenants: &Tenants, name: &[u8], now: Duration) -> String {
    let mut headers = HeaderMap::new();
    headers.insert("x-scope-orgid", HeaderValue::from_bytes(name).unwrap());
    tenants.of(&headers, now).name().to_owned()
}

#[test]
fn names_are_those_of_the_header_within_bounds() {
    let tenants = tenants(10);
    assert_eq!(tenants.of(&HeaderMap::new(), MINUTE).name(), ANONYMOUS);
    let long = "x".repeat(NAME_BYTES_MAX);
    for (given, expected) in [
        ("", ANONYMOUS),
        (" ", ANONYMOUS),
        ("anonymous", ANONYMOUS),
        ("other", OTHER),
        ("team-a", "team-a"),
        (" team-a ", "team-a"),
        (&long, &long),
        (&format!("{long}x"), OTHER),
        ("t\u{e9}am", OTHER),
    ] {
        assert_eq!(of(&tenants, given.as_bytes(), MINUTE), expected);
    }
    let mut headers = HeaderMap::new();
    headers.insert("x-scope-orgid", HeaderValue::from_static("vip"));
    assert_eq!(tenants.of(&headers, MINUTE).limits().series_max, 7);
}

#[test]
fn one_tenant_too_many_is_another_until_one_of_them_was_idle() {
    let tenants = tenants(2);
    assert_eq!(of(&tenants, b"a", MINUTE), "a");
    assert_eq!(of(&tenants, b"b", MINUTE), "b");
    assert_eq!(of(&tenants, b"c", MINUTE), OTHER);
    assert_eq!(of(&tenants, b"vip", MINUTE), "vip", "it has its place");
    for minute in 2..4 {
        assert_eq!(of(&tenants, b"a", minute * MINUTE), "a");
        assert_eq!(
            of(&tenants, b"c", minute * MINUTE),
            if minute < 3 { OTHER } else { "c" }
        );
    }
    assert_eq!(of(&tenants, b"b", 4 * MINUTE), OTHER);
}

#[test]
fn a_tenant_with_active_series_or_a_request_in_flight_is_kept() {
    let tenants = tenants(1);
    let mut headers = HeaderMap::new();
    headers.insert("x-scope-orgid", HeaderValue::from_static("a"));
    let held = tenants.of(&headers, MINUTE);
    let activity = tenants.activity((7, 0));
    let mut pass = tenants.pass(&held, &activity);
    assert!(pass.may_define());
    pass.settle([wal::SeriesRef::new(1)].into_iter());
    assert_eq!(of(&tenants, b"b", 9 * MINUTE), OTHER, "in flight");
    assert_eq!(tenants.active_series(&held), 0, "swept");
    assert!(
        tenants
            .pass(&held, &activity)
            .may_send(wal::SeriesRef::new(1))
    );
    drop(held);
    assert_eq!(of(&tenants, b"b", 10 * MINUTE), OTHER, "active");
    assert_eq!(of(&tenants, b"b", 11 * MINUTE), "b");
}

#[test]
fn a_pass_that_fails_costs_nothing() {
    let tenants = tenants(1);
    let tenant = tenants.of(&HeaderMap::new(), MINUTE);
    let activity = tenants.activity((7, 0));
    let mut pass = tenants.pass(&tenant, &activity);
    assert!(pass.may_define() && pass.may_define());
    assert_eq!(tenants.active_series(&tenant), 2);
    drop(pass);
    assert_eq!(tenants.active_series(&tenant), 0);
}

#[test]
fn what_a_way_knows_stays_while_the_way_does() {
    let tenants = tenants(1);
    let tenant = tenants.of(&HeaderMap::new(), MINUTE);
    let sent = |way, series| {
        let activity = tenants.activity(way);
        tenants
            .pass(&tenant, &activity)
            .may_send(wal::SeriesRef::new(series))
    };
    assert!(sent((7, 0), 1) && sent((7, 0), 2) && sent((8, 0), 1));
    assert_eq!(tenants.active_series(&tenant), 2);
    tenants.keep_only(&[(8, 0), (9, 0)]);
    assert_eq!(tenants.active_series(&tenant), 1);
    assert!(sent((8, 0), 1) && sent((7, 0), 1));
    assert_eq!(tenants.active_series(&tenant), 1, "it began anew");
}
