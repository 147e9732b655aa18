//! Turns rows into aligned text, and numbers into what people read.

/// Columns are cut so that a line fits this.
const WIDTH_MAX: usize = 100;

/// Rows under a header; columns whose header begins with `<` go to the left, all others to the right.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let names: Vec<&str> = header
        .iter()
        .map(|name| name.trim_start_matches('<'))
        .collect();
    let mut widths: Vec<usize> = names.iter().map(|name| name.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    for row in std::iter::once(&names).chain(rows) {
        let mut line = String::new();
        for ((cell, width), name) in row.iter().zip(&widths).zip(header) {
            let aligned = if name.starts_with('<') {
                format!("  {cell:<width$}")
            } else {
                format!("  {cell:>width$}")
            };
            line.push_str(&aligned);
        }
        text.push_str(&cut(line.trim_end(), WIDTH_MAX));
        text.push('\n');
    }
    text
}

/// At most so many characters.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(most.saturating_sub(3)).collect();
    cut.push_str("...");
    cut
}

/// Bytes with a binary unit.
pub(super) fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut whole, mut tenths, mut unit) = (bytes, 0, 0);
    while whole >= 1024 && unit + 1 < UNITS.len() {
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    match unit {
        0 => format!("{whole} B"),
        _ => format!("{whole}.{tenths} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_to_the_right_and_names_to_the_left() {
        let rows = [
            vec!["a".to_owned(), "1".to_owned()],
            vec!["bcd".to_owned(), "200".to_owned()],
        ];
        let text = table(&["<name", "n"], &rows);
        assert_eq!(text, "  name    n\n  a       1\n  bcd   200\n");
    }

    #[test]
    fn long_lines_are_cut() {
        let text = table(&["<name"], &[vec!["é".repeat(200)]]);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH_MAX));
    }

    #[test]
    fn bytes_are_told_with_a_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (1 << 30, "1.0 GiB"),
        ] {
            assert_eq!(bytes_text(bytes), text);
        }
    }
}
