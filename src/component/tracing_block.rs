//! Turns the `tracing` block into what it says about traces of the agent itself.
//!
//! Penstock makes no traces of its own, so that what is said is checked and has no effect.

use std::time::Duration;

use config::{BodyReader, Handle};

use super::TracesReceiver;
use super::document::Document;

pub(crate) const NAME: &str = "tracing";

pub(crate) const DOCUMENT: Document = Document {
    example: r#"tracing {
  sampling_fraction = 0.5
}
"#,
    texts: &[(
        "",
        &[
            ("sampler", "Where the share would come from."),
            ("sampler.jaeger_remote", "A server of sampling strategies."),
            ("sampler.jaeger_remote.max_operations", "Most operations."),
            (
                "sampler.jaeger_remote.refresh_interval",
                "How often it would be asked.",
            ),
            ("sampler.jaeger_remote.url", "Where it is."),
            ("sampling_fraction", "The share of traces, 0 to 1."),
            (
                "send_traceparent",
                "Whether requests would carry their trace.",
            ),
            ("write_to", "Where traces would go."),
        ],
    )],
    metrics: &[],
    failure: "",
};

pub(crate) fn read(r: &mut BodyReader<'_>) {
    let fraction = r.or("sampling_fraction", 0.1);
    if !(0.0..=1.0).contains(&fraction) {
        r.refuse("sampling_fraction", "must be 0 to 1");
    }
    r.or("write_to", Vec::<Handle<TracesReceiver>>::new());
    r.or("send_traceparent", false);
    r.block("sampler", |r| {
        r.block("jaeger_remote", |r| {
            r.or("url", "http://127.0.0.1:5778/sampling".to_owned());
            r.or("max_operations", 256_u32);
            r.or("refresh_interval", Duration::from_secs(60));
        });
    });
}

#[cfg(test)]
mod tests {
    use crate::component::testing::decoded;

    #[test]
    fn a_share_is_between_none_and_all() {
        let read = |text| decoded(text, super::read);
        assert_eq!(read("tracing {\n  sampling_fraction = 0.5\n}\n"), Ok(()));
        let refused = read("tracing {\n  sampling_fraction = 2\n}\n").unwrap_err();
        assert_eq!(refused, "a:2:23: 2 must be 0 to 1");
    }
}
