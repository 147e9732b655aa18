//! Turns the `limits` block of `prometheus.receive_http` into how much of everything it takes.

use config::{BodyReader, ByteSize};
use ingest::LabelLimits;

/// Smallest body limit: less than a request of a few series has is a mistake.
const BODY_BYTES_LEAST: u64 = 1 << 10;
/// Largest body limit. A body is decompressed in one piece, and offsets in it are to fit 32 bits.
const BODY_BYTES_MOST: u64 = 1 << 30;

/// How much a receiver takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    /// Of a body, compressed and decompressed alike.
    pub(crate) body_bytes_max: usize,
    /// Of bodies not yet answered.
    pub(crate) in_flight_bytes_max: u64,
    /// Of those of one connection.
    pub(crate) connection_in_flight_bytes_max: u64,
    /// Series of a request, 0 for any number.
    pub(crate) series_max: usize,
    pub(crate) labels: LabelLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: ingest::BODY_BYTES_MAX_DEFAULT,
            in_flight_bytes_max: ingest::IN_FLIGHT_BYTES_MAX_DEFAULT,
            connection_in_flight_bytes_max: ingest::connection_in_flight_bytes(
                ingest::BODY_BYTES_MAX_DEFAULT,
            ),
            series_max: 0,
            labels: LabelLimits::default(),
        }
    }
}

/// Reads the block. What would admit no request, or not the largest allowed one, is refused.
pub(crate) fn read(r: &mut BodyReader<'_>) -> Limits {
    let defaults = Limits::default();
    let body_bytes_max = read_body(r).unwrap_or(defaults.body_bytes_max);
    let largest = ingest::connection_in_flight_bytes(body_bytes_max);
    let mut bytes = |name, default: u64| {
        let given = r.optional::<ByteSize>(name).map_or(default, |size| size.0);
        if given < largest {
            let least = shown(largest);
            r.refuse(
                name,
                format!("must be at least {least}: a body of body_size_limit and what it decompresses to"),
            );
        }
        given
    };
    let in_flight = bytes("in_flight_bytes", defaults.in_flight_bytes_max);
    let connection = bytes("connection_in_flight_bytes", largest);
    if connection > in_flight && r.has_attribute("connection_in_flight_bytes") {
        r.refuse(
            "connection_in_flight_bytes",
            "must be at most in_flight_bytes",
        );
    }
    Limits {
        body_bytes_max,
        in_flight_bytes_max: in_flight,
        connection_in_flight_bytes_max: connection,
        series_max: r.or("series_limit", 0),
        labels: read_labels(r),
    }
}

fn read_body(r: &mut BodyReader<'_>) -> Option<usize> {
    let name = "body_size_limit";
    let bytes = r.optional::<ByteSize>(name)?.0;
    if !(BODY_BYTES_LEAST..=BODY_BYTES_MOST).contains(&bytes) {
        let (least, most) = (shown(BODY_BYTES_LEAST), shown(BODY_BYTES_MOST));
        r.refuse(name, format!("must be at least {least} and at most {most}"));
        return None;
    }
    usize::try_from(bytes).ok()
}

fn read_labels(r: &mut BodyReader<'_>) -> LabelLimits {
    let limits = LabelLimits {
        labels_max: r.or("label_limit", 0),
        name_bytes_max: r.or("label_name_length_limit", 0),
        value_bytes_max: r.or("label_value_length_limit", 0),
    };
    // Every series has a label of this name.
    let least = "__name__".len();
    if (1..least).contains(&limits.name_bytes_max) {
        r.refuse(
            "label_name_length_limit",
            format!("must be at least {least}, the length of __name__, or 0 for none"),
        );
    }
    limits
}

/// Bytes in the unit that has no remainder.
fn shown(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
        _ => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::testing::decoded;

    fn load(body: &str) -> Result<Limits, String> {
        let text = format!("prometheus.receive_http \"x\" {{\n forward_to = []\n{body}}}\n");
        decoded(&text, super::super::receive_http::read).map(|component| component.limits)
    }

    #[test]
    fn the_defaults_are_those_of_the_receiver() {
        let options = ingest::ReceiverOptions::new("x", ([127, 0, 0, 1], 0).into(), vec![]);
        for limits in [load("").unwrap(), load("limits {}\n").unwrap()] {
            assert_eq!(limits, Limits::default());
            assert_eq!(limits.body_bytes_max, options.body_bytes_max);
            assert_eq!(limits.in_flight_bytes_max, options.in_flight_bytes_max);
            assert_eq!(
                limits.connection_in_flight_bytes_max,
                options.connection_in_flight_bytes_max
            );
        }
    }

    #[test]
    fn every_limit_is_read() {
        let limits = load(
            "limits {\n body_size_limit = \"1MiB\"\n in_flight_bytes = \"8MiB\"\n \
             series_limit = 100\n label_limit = 30\n label_name_length_limit = 200\n \
             label_value_length_limit = 2048\n}\n",
        );
        let expected = Limits {
            body_bytes_max: 1 << 20,
            in_flight_bytes_max: 8 << 20,
            // Goes with the body.
            connection_in_flight_bytes_max: 2 << 20,
            series_max: 100,
            labels: LabelLimits {
                labels_max: 30,
                name_bytes_max: 200,
                value_bytes_max: 2048,
            },
        };
        assert_eq!(limits, Ok(expected));
    }

    #[test]
    fn what_admits_nothing_is_refused_at_its_place() {
        let table = [
            (
                "body_size_limit = \"10B\"",
                "a:4:20: \"10B\" must be at least 1KiB and at most 1024MiB",
            ),
            (
                "in_flight_bytes = \"63MiB\"",
                "a:4:20: \"63MiB\" must be at least 64MiB: a body of body_size_limit and what it \
                 decompresses to",
            ),
            (
                "connection_in_flight_bytes = \"1GiB\"",
                "a:4:31: \"1GiB\" must be at most in_flight_bytes",
            ),
            (
                "label_name_length_limit = 7",
                "a:4:28: 7 must be at least 8, the length of __name__, or 0 for none",
            ),
            (
                "series_limit = -1",
                "a:4:17: -1 is out of range 0 to 18446744073709551615",
            ),
            (
                "serie_limit = 1",
                "a:4:2: unrecognized attribute name \"serie_limit\"",
            ),
        ];
        for (line, expected) in table {
            let found = load(&format!("limits {{\n {line}\n}}\n")).unwrap_err();
            assert_eq!(found, expected, "{line}");
        }
        // A larger body asks for more in flight.
        let found = load("limits {\n body_size_limit = \"200MiB\"\n}\n").unwrap_err();
        assert_eq!(found.lines().count(), 1, "{found:?}");
        assert!(found.contains("must be at least 400MiB"), "{found:?}");
    }
}
