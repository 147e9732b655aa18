//! Turns sensors of the machine into series: what drivers tell below `/sys/class/hwmon` and `/sys/class/thermal`.

use std::collections::BTreeMap;
use std::path::Path;

use super::Options;
use super::read::{self, Problem, float};
use crate::exporter::page::{Kind, Page};

pub(super) fn thermal_zone(options: &Options, page: &mut Page) -> Result<(), Problem> {
    let thermal = options.sysfs.join("class/thermal");
    for (zone, dir) in read::numbered(&thermal, "thermal_zone")? {
        if let (Some(kind), Some(milli)) =
            (read::line(dir.join("type")), read::number(dir.join("temp")))
        {
            page.gauge(
                "node_thermal_zone_temp",
                "Zone temperature in Celsius",
                &[("type", &kind), ("zone", &zone)],
                milli / 1000.0,
            );
        }
    }
    for (name, dir) in read::numbered(&thermal, "cooling_device")? {
        let kind = read::line(dir.join("type")).unwrap_or_default();
        let labels = [("name", &*name), ("type", &*kind)];
        if let Some(state) = read::number(dir.join("cur_state")) {
            let help = "Current throttle state of the cooling device";
            page.gauge("node_cooling_device_cur_state", help, &labels, state);
        }
        if let Some(state) = read::number(dir.join("max_state")) {
            let help = "Maximum throttle state of the cooling device";
            page.gauge("node_cooling_device_max_state", help, &labels, state);
        }
    }
    Ok(())
}

pub(super) fn hwmon(options: &Options, page: &mut Page) -> Result<(), Problem> {
    for (name, dir) in read::entries(&options.sysfs.join("class/hwmon"))? {
        if !dir.is_dir() {
            continue;
        }
        let human = read::line(dir.join("name")).map(|name| cleaned(&name));
        let human = human.filter(|name| !name.is_empty());
        let chip = device(&dir).or_else(|| human.clone());
        let chip = chip.unwrap_or_else(|| cleaned(&name));
        if !options.hwmon.takes(&chip) {
            continue;
        }
        if let Some(human) = &human {
            let help = "Annotation metric for human-readable chip names";
            let labels = [("chip", &*chip), ("chip_name", human)];
            page.gauge("node_hwmon_chip_names", help, &labels, 1.0);
        }
        let mut sensors = BTreeMap::new();
        read_sensors(&dir, &mut sensors);
        // Where old drivers keep them.
        read_sensors(&dir.join("device"), &mut sensors);
        for ((kind, number), elements) in &sensors {
            show(page, &chip, (kind, *number), elements);
        }
    }
    Ok(())
}

/// What a chip is called by where it is: `platform_coretemp_0`.
fn device(dir: &Path) -> Option<String> {
    let path = dir.join("device").canonicalize().ok()?;
    let name = |path: &Path| Some(cleaned(path.file_name()?.to_str()?));
    let own = name(&path).filter(|name| !name.is_empty())?;
    match path.parent().and_then(name).filter(|name| !name.is_empty()) {
        Some(parent) => Some(format!("{parent}_{own}")),
        None => Some(own),
    }
}

/// A name as it may stand in that of a series.
fn cleaned(name: &str) -> String {
    let is_good = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == ':';
    let name = name.trim().to_lowercase();
    let name = name.replace(|char: char| !is_good(char), "_");
    name.trim_matches('_').to_owned()
}

/// Type and number of a sensor.
type Sensor = (String, u32);

const TYPES: [&str; 13] = [
    "beep_enable",
    "cpu",
    "curr",
    "energy",
    "fan",
    "humidity",
    "in",
    "intrusion",
    "power",
    "pwm",
    "temp",
    "update_interval",
    "vrm",
];

/// `temp1_crit`: type, number, element.
fn sensor(file: &str) -> Option<(Sensor, &str)> {
    let end = file.find(|char: char| char.is_ascii_digit());
    let (kind, rest) = file.split_at(end.unwrap_or(file.len()));
    let digits = rest.find(|char: char| !char.is_ascii_digit());
    let (digits, rest) = rest.split_at(digits.unwrap_or(rest.len()));
    let element = if rest.is_empty() {
        ""
    } else {
        rest.strip_prefix('_')?
    };
    let number = if digits.is_empty() {
        0
    } else {
        digits.parse().ok()?
    };
    TYPES
        .contains(&kind)
        .then(|| ((kind.to_owned(), number), element))
}

fn read_sensors(dir: &Path, sensors: &mut BTreeMap<Sensor, BTreeMap<String, String>>) {
    for (file, path) in read::entries(dir).unwrap_or_default() {
        if let Some((sensor, element)) = sensor(&file)
            && let Some(text) = read::line(path)
        {
            let elements = sensors.entry(sensor).or_default();
            elements.insert(element.to_owned(), text);
        }
    }
}

fn show(
    page: &mut Page,
    chip: &str,
    (kind, number): (&str, u32),
    elements: &BTreeMap<String, String>,
) {
    let sensor = format!("{kind}{number}");
    let of = [("chip", chip), ("sensor", &*sensor)];
    if let Some(label) = elements.get("label") {
        let help = "Label for given chip and sensor";
        let labels = [("chip", chip), ("label", label), ("sensor", &*sensor)];
        page.gauge("node_hwmon_sensor_label", help, &labels, 1.0);
    }
    let whole = elements.get("").and_then(|text| float(text));
    match (kind, whole) {
        ("beep_enable", value) => {
            let is_on = f64::from(u8::from(value == Some(1.0)));
            let help = "Hardware beep enabled";
            page.gauge("node_hwmon_beep_enabled", help, &of, is_on);
            return;
        }
        ("vrm", Some(value)) => {
            let help = "Hardware voltage regulator module version";
            page.gauge("node_hwmon_voltage_regulator_version", help, &of, value);
            return;
        }
        ("update_interval", Some(value)) => {
            let help = "Hardware monitor update interval";
            let name = "node_hwmon_update_interval_seconds";
            page.gauge(name, help, &of, value * 0.001);
            return;
        }
        _ => {}
    }
    let has_whole = elements.contains_key("");
    for (element, text) in elements {
        if element != "label"
            && let Some(value) = float(text)
        {
            let (name, family, help, value) = measured(kind, element, has_whole, value);
            page.add((&name, family, &help), &of, value);
        }
    }
}

/// Name, type, help and value of one element of a sensor.
fn measured(kind: &str, element: &str, has_whole: bool, value: f64) -> (String, Kind, String, f64) {
    let name = match element {
        "input" if has_whole => format!("node_hwmon_{kind}_input"),
        "input" | "" => format!("node_hwmon_{kind}"),
        element => format!("node_hwmon_{kind}_{}", cleaned(element)),
    };
    let gauge =
        |unit: &str, help: String, value: f64| (name.clone() + unit, Kind::Gauge, help, value);
    match (kind, element) {
        (_, "fault") => gauge("", format!("Hardware sensor fault status ({kind})"), value),
        (_, "alarm") => gauge("", format!("Hardware sensor alarm status ({kind})"), value),
        (_, "beep") => gauge(
            "",
            "Hardware monitor sensor has beeping enabled".to_owned(),
            value,
        ),
        ("in" | "cpu", _) => gauge(
            "_volts",
            format!("Hardware monitor for voltage ({element})"),
            value * 0.001,
        ),
        ("temp", element) if element != "type" => {
            let element = if element.is_empty() { "input" } else { element };
            let help = format!("Hardware monitor for temperature ({element})");
            gauge("_celsius", help, value * 0.001)
        }
        ("curr", _) => gauge(
            "_amps",
            format!("Hardware monitor for current ({element})"),
            value * 0.001,
        ),
        ("energy", _) => (
            name + "_joule_total",
            Kind::Counter,
            format!("Hardware monitor for joules used so far ({element})"),
            value / 1_000_000.0,
        ),
        ("power", "accuracy") => gauge(
            "",
            "Hardware monitor power meter accuracy, as a ratio".to_owned(),
            value / 1_000_000.0,
        ),
        ("power", "average_interval" | "average_interval_min" | "average_interval_max") => gauge(
            "_seconds",
            format!("Hardware monitor power usage update interval ({element})"),
            value * 0.001,
        ),
        ("power", _) => gauge(
            "_watt",
            format!("Hardware monitor for power usage in watts ({element})"),
            value / 1_000_000.0,
        ),
        ("humidity", _) => gauge(
            "",
            format!(
                "Hardware monitor for humidity, as a ratio (multiply with 100.0 to get the humidity as a percentage) \
                 ({element})"
            ),
            value / 1_000_000.0,
        ),
        ("fan", "input" | "min" | "max" | "target") => gauge(
            "_rpm",
            format!("Hardware monitor for fan revolutions per minute ({element})"),
            value,
        ),
        _ => gauge(
            "",
            format!("Hardware monitor {kind} element {element}"),
            value,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_elements_of_sensors() {
        let of = |file: &'static str| {
            sensor(file).map(|((kind, number), element)| format!("{kind} {number} {element}"))
        };
        assert_eq!(of("temp12_crit_alarm").unwrap(), "temp 12 crit_alarm");
        assert_eq!(of("pwm1").unwrap(), "pwm 1 ");
        assert_eq!(of("update_interval").unwrap(), "update_interval 0 ");
        for other in ["name", "temp1x", "uevent", "temp99999999999", ""] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(cleaned(" Some-Chip.0_"), "some_chip_0");
    }

    #[test]
    fn a_chip_is_called_by_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let chip = dir.path().join("platform/Coretemp.0");
        let hwmon = chip.join("hwmon/hwmon0");
        std::fs::create_dir_all(&hwmon).unwrap();
        assert_eq!(device(&hwmon), None);
        std::os::unix::fs::symlink(&chip, hwmon.join("device")).unwrap();
        assert_eq!(device(&hwmon).unwrap(), "platform_coretemp_0");
    }
}
