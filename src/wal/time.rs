//! Turns times as people write them into milliseconds since the Unix epoch, and back.

const DAY_MS: i64 = 86_400_000;

/// Reads `2026-11-21T09:30:00Z` (RFC 3339, with fraction and offset) or `1795253400.5` (Unix
/// seconds).
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    unix_seconds(text).or_else(|| rfc3339(text)).ok_or_else(|| {
        format!("{text:?} is neither RFC 3339 (2026-11-21T09:30:00Z) nor Unix seconds")
    })
}

/// Writes RFC 3339 in UTC with milliseconds; what no calendar has, as milliseconds.
pub(crate) fn format(unix_ms: i64) -> String {
    let (days, ms) = (unix_ms.div_euclid(DAY_MS), unix_ms.rem_euclid(DAY_MS));
    let (year, month, day) = date_of(days);
    if !(0..=9999).contains(&year) {
        return format!("{unix_ms} ms");
    }
    let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
    let (second, ms) = (ms / 1000 % 60, ms % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

fn unix_seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_negative = whole.starts_with('-');
    let whole: i64 = whole.parse().ok()?;
    let ms = milliseconds(fraction)?;
    let ms = if is_negative { -ms } else { ms };
    whole.checked_mul(1000)?.checked_add(ms)
}

/// The digits behind a point; what is finer than a millisecond is cut off.
fn milliseconds(digits: &str) -> Option<i64> {
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let three: String = digits.chars().chain("00".chars()).take(3).collect();
    three.parse().ok()
}

fn rfc3339(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at_checked(zone)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let days = days_of(year, month, day);
    // 60 is a leap second; a date that no month has does not come back.
    let is_valid = hour < 24 && minute < 60 && second <= 60 && date_of(days) == (year, month, day);
    let seconds = (hour * 60 + minute) * 60 + second - offset_seconds(zone)?;
    is_valid.then_some(days * DAY_MS + seconds * 1000 + milliseconds(fraction)?)
}

fn offset_seconds(zone: &str) -> Option<i64> {
    let sign = match zone.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return (zone.len() == 1).then_some(0),
    };
    let [hours, minutes] = numbers(zone.get(1..)?, ':', [2, 2])?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60)
}

/// Exactly these many digits, with `between` between them.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut numbers = [0; N];
    let mut parts = text.split(between);
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        let is_number = part.len() == digits && part.bytes().all(|digit| digit.is_ascii_digit());
        *number = is_number.then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(numbers)
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar. Years begin in March here, so that
/// the leap day is the last of its year; 146097 days are 400 years.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let month = (month + 9) % 12;
    let of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    year.div_euclid(400) * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year
        - 719_468
}

/// Year, month and day; the inverse of [`days_of`].
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let day_of_era = days.rem_euclid(146_097);
    let leaps = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (of_era * 365 + of_era / 4 - of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = days.div_euclid(146_097) * 400 + of_era;
    if month < 10 {
        (year, month + 3, day)
    } else {
        (year + 1, month - 9, day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        for (text, expected) in [
            ("0", 0),
            ("1795253400", 1_795_253_400_000),
            ("1795253400.25", 1_795_253_400_250),
            ("-1.5", -1500),
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-21T09:30:00Z", 1_795_253_400_000),
            ("2026-11-21t09:30:00.1239z", 1_795_253_400_123),
            ("2026-11-21 10:30:00+01:00", 1_795_253_400_000),
            ("2026-11-21T04:00:00-05:30", 1_795_253_400_000),
            ("2000-02-29T00:00:00Z", 951_782_400_000),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-11-21",
            "2026-11-21T09:30Z",
            "2026-11-21T09:30:00",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T09:30:00.Z",
            "1.",
            "1.x",
            "2026-11-21T09:30:00+25:00",
            "2026-11-21T09:30:00Zulu",
            "2026-11-21T09:30:00+é",
            "99999999999999999999",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_day_of_centuries_comes_back() {
        for day in (-800_000..800_000).step_by(7) {
            let (year, month, of_month) = date_of(day);
            assert_eq!(days_of(year, month, of_month), day);
        }
        for ms in [0, 1_795_253_400_123, -1, 951_782_399_999] {
            assert_eq!(parse(&format(ms)), Ok(ms), "{}", format(ms));
        }
        assert_eq!(format(1_795_253_400_123), "2026-11-21T09:30:00.123Z");
        assert!(format(i64::MAX).ends_with(" ms"));
    }
}
