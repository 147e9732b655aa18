//! Turns the `tenants` block of `prometheus.receive_http` into what each tenant may send.

use std::collections::BTreeMap;
use std::time::Duration;

use config::BodyReader;
use ingest::{TenantLimits, TenantsOptions};

/// How many seconds of its rate a tenant may send at once unless it is said otherwise: senders come in
/// bursts, once per scrape interval.
const BURST_SECONDS: u64 = 10;

/// Reads the block.
pub(crate) fn read(r: &mut BodyReader<'_>) -> TenantsOptions {
    let defaults = TenantsOptions::default();
    let limits = read_limits(r, TenantLimits::default());
    let mut overrides = BTreeMap::new();
    r.blocks("tenant", |r| {
        let name = r.label();
        let limits = read_limits(r, limits);
        if overrides.insert(name.clone(), limits).is_some() {
            r.refuse_block(format!("tenant {name:?} is there already"));
        }
    });
    let options = TenantsOptions {
        header: r.or("header", defaults.header),
        limits,
        overrides,
        idle_timeout: r.or::<Duration>("idle_timeout", defaults.idle_timeout),
        tenants_max: r.or("max_tenants", defaults.tenants_max),
        top_label: r.or("label", defaults.top_label),
    };
    if let Some((name, problem)) = options.problem() {
        r.refuse(name, problem);
    }
    options
}

/// What one tenant may send; what is not said is as for the others.
fn read_limits(r: &mut BodyReader<'_>, others: TenantLimits) -> TenantLimits {
    let rate = r.optional("max_samples_per_second");
    let samples_per_second = rate.unwrap_or(others.samples_per_second);
    let burst = r.optional("max_burst_samples");
    let implied = match rate {
        Some(rate) => rate.saturating_mul(BURST_SECONDS),
        None => others.burst_samples,
    };
    let burst_samples = burst.unwrap_or(implied);
    if burst_samples < samples_per_second {
        // Where it is said; a tenant may have only the one of the two.
        let name = match burst {
            Some(_) => "max_burst_samples",
            None => "max_samples_per_second",
        };
        r.refuse(
            name,
            "must go together: max_burst_samples is at least max_samples_per_second",
        );
    }
    TenantLimits {
        series_max: r.or("max_active_series", others.series_max),
        samples_per_second,
        burst_samples,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::testing::decoded;

    fn load(body: &str) -> Result<Option<TenantsOptions>, String> {
        let text = format!("prometheus.receive_http \"x\" {{\n forward_to = []\n{body}}}\n");
        decoded(&text, super::super::receive_http::read).map(|component| component.tenants)
    }

    #[test]
    fn there_are_no_tenants_unless_they_are_asked_for() {
        assert_eq!(load(""), Ok(None));
        let defaults = TenantsOptions::default();
        assert_eq!(load("tenants {}\n"), Ok(Some(defaults.clone())));
        assert_eq!(defaults.limits, TenantLimits::default());
        assert_eq!(defaults.idle_timeout, Duration::from_secs(1200));
    }

    #[test]
    fn a_tenant_has_the_limits_of_all_but_for_what_it_says() {
        let options = load(
            "tenants {\n header = \"X-Team\"\n max_active_series = 1000\n \
             max_samples_per_second = 50\n idle_timeout = \"5m\"\n max_tenants = 7\n \
             label = \"job\"\n tenant \"a\" { max_active_series = 0 }\n \
             tenant \"b\" {\n max_samples_per_second = 70\n max_burst_samples = 80\n}\n}\n",
        );
        let limits = |series_max, samples_per_second, burst_samples| TenantLimits {
            series_max,
            samples_per_second,
            burst_samples,
        };
        let expected = TenantsOptions {
            header: "X-Team".to_owned(),
            limits: limits(1000, 50, 500),
            overrides: [
                ("a".to_owned(), limits(0, 50, 500)),
                ("b".to_owned(), limits(1000, 70, 80)),
            ]
            .into(),
            idle_timeout: Duration::from_secs(300),
            tenants_max: 7,
            top_label: "job".to_owned(),
        };
        assert_eq!(options, Ok(Some(expected)));
    }

    #[test]
    fn what_cannot_be_is_refused_at_its_place() {
        let table = [
            (
                "header = \"X Y\"",
                "a:4:11: \"X Y\" must be the name of a header",
            ),
            (
                "idle_timeout = \"59s\"",
                "a:4:17: \"59s\" must be at least 60s",
            ),
            ("max_tenants = 0", "a:4:16: 0 must be from 1 to 100000"),
            ("label = \"\"", "a:4:10: \"\" must be the name of a label"),
            (
                "max_samples_per_second = 5\n max_burst_samples = 4",
                "a:5:22: 4 must go together: max_burst_samples is at least max_samples_per_second",
            ),
            (
                "tenant {}",
                "a:4:2: block \"tenant\" requires non-empty label",
            ),
            (
                "tenant \"t\" {}\n tenant \"t\" {}",
                "a:5:2: tenant \"t\" is there already",
            ),
            (
                "tenant \"t\" {\n idle_timeout = \"5m\"\n}",
                "a:5:2: unrecognized attribute name \"idle_timeout\"",
            ),
        ];
        for (line, expected) in table {
            let found = load(&format!("tenants {{\n {line}\n}}\n")).unwrap_err();
            assert_eq!(found, expected, "{line}");
        }
    }
}
