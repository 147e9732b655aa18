//! Turns lines of cells into text in which cells below each other begin at the same column.
//!
//! A column is a run of rows that have an ended cell there; it is one blank wider than its widest cell. Empty
//! cells at the start of a row are its levels: they stay tabs.
//!
//! # Invariants
//! No row of the result ends with blanks.

const TAB_WIDTH: usize = 8;

/// Rows, done and being collected until their columns end.
#[derive(Debug, Default)]
pub(super) struct Rows {
    done: String,
    section: Vec<Vec<String>>,
    row: Vec<String>,
}

impl Rows {
    /// Adds text to the cell being written; it may hold line breaks, which then are no row's end.
    pub(super) fn text(&mut self, text: &str) {
        match self.row.last_mut() {
            Some(cell) => cell.push_str(text),
            None => self.row.push(text.to_owned()),
        }
    }

    /// Whether a blank or nothing stands before what is written next.
    pub(super) fn ends_with_blank(&self) -> bool {
        self.row
            .last()
            .is_none_or(|cell| cell.is_empty() || cell.ends_with(' '))
    }

    /// Ends the cell being written.
    pub(super) fn cell(&mut self) {
        if self.row.is_empty() {
            self.row.push(String::new());
        }
        self.row.push(String::new());
    }

    /// Ends the row; with `breaks` every column ends too.
    pub(super) fn end_row(&mut self, breaks: bool) {
        let row = std::mem::take(&mut self.row);
        self.section.push(row);
        if breaks {
            self.end_section();
        }
    }

    /// The text, without blanks at the end.
    pub(super) fn finish(mut self) -> String {
        self.end_row(true);
        self.done
    }

    fn end_section(&mut self) {
        let rows = std::mem::take(&mut self.section);
        let widths = widths(&rows);
        for (row, widths) in rows.iter().zip(&widths) {
            self.write(row, widths);
        }
    }

    fn write(&mut self, row: &[String], widths: &[usize]) {
        let mut line = String::new();
        let mut is_leading = true;
        for (at, cell) in row.iter().enumerate() {
            is_leading &= cell.is_empty();
            line.push_str(cell);
            let Some(width) = widths.get(at) else { break };
            if is_leading {
                let tabs = width.div_ceil(TAB_WIDTH);
                line.extend(std::iter::repeat_n('\t', tabs));
            } else {
                let blanks = width.saturating_sub(cell_width(cell));
                line.extend(std::iter::repeat_n(' ', blanks));
            }
        }
        self.done.push_str(line.trim_end_matches([' ', '\t']));
        self.done.push('\n');
    }
}

/// Characters of the cell's last line, which is what stands before the next cell.
fn cell_width(cell: &str) -> usize {
    cell.chars().count()
}

/// The width of every ended cell of every row. Each cell is looked at twice, however many columns there are.
fn widths(rows: &[Vec<String>]) -> Vec<Vec<usize>> {
    let count = |row: &Vec<String>| row.len().saturating_sub(1);
    let mut all: Vec<Vec<usize>> = rows.iter().map(|row| vec![0; count(row)]).collect();
    // The columns the last row was part of: where each began, and how wide it is so far.
    let mut open: Vec<(usize, usize)> = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        close(&mut all, &mut open, at, count(row));
        for (column, cell) in row.iter().take(count(row)).enumerate() {
            let width = cell_width(cell) + 1;
            match open.get_mut(column) {
                Some((_, widest)) => *widest = width.max(*widest),
                None => open.push((at, width)),
            }
        }
    }
    close(&mut all, &mut open, rows.len(), 0);
    all
}

/// Ends the columns from `keep` on before row `at`.
fn close(all: &mut [Vec<usize>], open: &mut Vec<(usize, usize)>, at: usize, keep: usize) {
    while open.len() > keep
        && let Some((first, width)) = open.pop()
    {
        let column = open.len();
        for widths in all.iter_mut().take(at).skip(first) {
            if let Some(one) = widths.get_mut(column) {
                *one = width;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &[&str]) -> String {
        let mut rows = Rows::default();
        for line in lines {
            let (line, breaks) = line
                .strip_suffix('!')
                .map_or((*line, false), |line| (line, true));
            for (at, cell) in line.split('|').enumerate() {
                if at > 0 {
                    rows.cell();
                }
                rows.text(cell);
            }
            rows.end_row(breaks);
        }
        rows.finish()
    }

    #[test]
    fn cells_below_each_other_begin_at_the_same_column() {
        let lines = ["a|= 1|// x", "bbb|= 22|// y", "c|= 3", "no cell", "d|= 4"];
        assert_eq!(text(&lines), {
            "a   = 1  // x\nbbb = 22 // y\nc   = 3\nno cell\nd = 4\n\n"
        });
    }

    #[test]
    fn a_break_ends_columns_and_empty_cells_in_front_are_tabs() {
        let lines = ["|a|= 1!", "|bbb|= 2", "||x", "|é|= 3  "];
        assert_eq!(text(&lines), "\ta = 1\n\tbbb = 2\n\t\tx\n\té   = 3\n\n");
    }

    #[test]
    fn a_row_of_many_cells_takes_no_longer_than_its_cells() {
        let wide = vec!["x"; 20_000].join("|");
        let mut lines = vec!["a|b"; 20_000];
        lines.push(&wide);
        assert!(text(&lines).len() > 100_000);
    }
}
