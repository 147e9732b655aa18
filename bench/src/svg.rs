//! Turns numbers with names into SVG: bars, and lines.
//!
//! Colours are chosen for light and dark pages; the drawing has no background of its own and asks the
//! reader's `prefers-color-scheme`. Text is real text, so that it can be searched and read aloud.

/// Of a drawing, in its own units.
const WIDTH: f64 = 720.0;
const TITLE_HEIGHT: f64 = 34.0;
/// Of the names beside bars, and of the numbers behind them.
const NAMES_WIDTH: f64 = 270.0;
const VALUES_WIDTH: f64 = 70.0;
const BAR_HEIGHT: f64 = 18.0;
const BAR_STEP: f64 = 26.0;
/// Of the area of lines, and around it.
const LINES_HEIGHT: f64 = 220.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 150.0;
/// Least distance of two names behind lines.
const NAME_STEP: f64 = 15.0;
/// Gridlines, about.
const TICKS: f64 = 4.0;
/// How many colours there are.
const COLOURS: usize = 4;
const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #57606a }
.title { font-size: 14px; font-weight: 600; fill: #24292f }
.grid { stroke: #d0d7de; stroke-width: 1 }
.goal { stroke: #24292f; stroke-width: 2 }
.line { fill: none; stroke-width: 2 }
.c0 { fill: #0969da; stroke: #0969da } .c1 { fill: #8c959f; stroke: #8c959f }
.c2 { fill: #bf8700; stroke: #bf8700 } .c3 { fill: #8250df; stroke: #8250df }
rect { stroke: none !important }
@media (prefers-color-scheme: dark) {
text { fill: #9198a1 }
.title { fill: #f0f6fc }
.grid { stroke: #3d444d }
.goal { stroke: #f0f6fc }
.c0 { fill: #4493f8; stroke: #4493f8 } .c1 { fill: #656c76; stroke: #656c76 }
.c2 { fill: #d29922; stroke: #d29922 } .c3 { fill: #ab7df8; stroke: #ab7df8 }
}
";

/// One bar.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    /// Beside it.
    pub(crate) name: String,
    /// How long it is.
    pub(crate) value: f64,
    /// Behind it.
    pub(crate) text: String,
    /// A mark across it.
    pub(crate) goal: Option<f64>,
    /// Which colour.
    pub(crate) colour: usize,
}

/// Horizontal bars on one scale that begins at 0.
#[derive(Clone, Debug)]
pub(crate) struct Bars {
    /// Above.
    pub(crate) title: String,
    /// From above to below.
    pub(crate) bars: Vec<Bar>,
}

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Behind its last point.
    pub(crate) name: String,
    /// From left to right.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Lines over one another, on a scale that begins at 0.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    /// Above.
    pub(crate) title: String,
    /// Under the places they are of, and under all.
    pub(crate) x_ticks: Vec<(f64, String)>,
    pub(crate) x_name: String,
    /// Where lines are cut off, if they would be higher.
    pub(crate) y_max: Option<f64>,
    /// How a value is told.
    pub(crate) y_text: fn(f64) -> String,
    /// The lines.
    pub(crate) lines: Vec<Line>,
}

impl Bars {
    /// The drawing.
    pub(crate) fn svg(&self) -> String {
        let values = self.bars.iter().flat_map(|bar| [Some(bar.value), bar.goal]);
        let most = values.flatten().fold(0.0, f64::max);
        let scale = |value: f64| share(value, most) * (WIDTH - NAMES_WIDTH - VALUES_WIDTH);
        let mut body = String::new();
        let mut top = TITLE_HEIGHT;
        for bar in &self.bars {
            let middle = top + BAR_HEIGHT * 0.72;
            body.push_str(&text(NAMES_WIDTH - 8.0, middle, "end", &bar.name));
            body.push_str(&format!(
                "<rect class=\"c{}\" x=\"{NAMES_WIDTH:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR_HEIGHT:.1}\" rx=\"2\"/>\n",
                bar.colour % COLOURS,
                scale(bar.value)
            ));
            if let Some(goal) = bar.goal {
                let x = NAMES_WIDTH + scale(goal);
                body.push_str(&line("goal", (x, top - 3.0), (x, top + BAR_HEIGHT + 3.0)));
            }
            let end = scale(bar.value).max(scale(bar.goal.unwrap_or(0.0)));
            body.push_str(&text(NAMES_WIDTH + end + 6.0, middle, "start", &bar.text));
            top += BAR_STEP;
        }
        document(&self.title, top + 4.0, &body)
    }
}

impl Lines {
    /// The drawing.
    pub(crate) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let highest = points().map(|point| point.1).fold(0.0, f64::max);
        let step = round_step(highest.min(self.y_max.unwrap_or(f64::MAX)) / TICKS);
        let most = (highest / step).ceil().max(1.0) * step;
        let most = most.min(self.y_max.unwrap_or(f64::MAX));
        let xs = || {
            points()
                .map(|point| point.0)
                .chain(self.x_ticks.iter().map(|tick| tick.0))
        };
        let (low, high) = (xs().fold(f64::MAX, f64::min), xs().fold(f64::MIN, f64::max));
        let x_at =
            |x: f64| LEFT + 12.0 + share(x - low, high - low) * (WIDTH - LEFT - RIGHT - 24.0);
        let y_at = |y: f64| TITLE_HEIGHT + LINES_HEIGHT * (1.0 - share(y, most));
        let mut body = self.grid(step, most, y_at);
        let bottom = y_at(0.0);
        for (x, name) in &self.x_ticks {
            body.push_str(&text(x_at(*x), bottom + 18.0, "middle", name));
        }
        let middle = LEFT.midpoint(WIDTH - RIGHT);
        body.push_str(&text(middle, bottom + 36.0, "middle", &self.x_name));
        let ends = self
            .lines
            .iter()
            .map(|line| line.points.last().map_or(0.0, |end| y_at(end.1)));
        let names = apart(&ends.collect::<Vec<_>>(), bottom);
        for ((number, line), name_y) in self.lines.iter().enumerate().zip(names) {
            body.push_str(&self.curve(line, number, &x_at, &y_at));
            let x = line.points.last().map_or(LEFT, |end| x_at(end.0));
            body.push_str(&text(x + 10.0, name_y + 4.0, "start", &line.name));
        }
        document(&self.title, bottom + 46.0, &body)
    }

    fn grid(&self, step: f64, most: f64, y_at: impl Fn(f64) -> f64) -> String {
        let mut grid = String::new();
        let mut value = 0.0;
        while value <= most * 1.001 {
            let y = y_at(value);
            grid.push_str(&line("grid", (LEFT, y), (WIDTH - RIGHT, y)));
            grid.push_str(&text(LEFT - 8.0, y + 4.0, "end", &(self.y_text)(value)));
            value += step;
        }
        grid
    }

    fn curve(
        &self,
        line: &Line,
        number: usize,
        x_at: &dyn Fn(f64) -> f64,
        y_at: &dyn Fn(f64) -> f64,
    ) -> String {
        let colour = number % COLOURS;
        let places = line.points.iter().map(|(x, y)| (x_at(*x), y_at(*y)));
        let path: Vec<_> = places
            .clone()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let mut curve = format!(
            "<polyline class=\"line c{colour}\" style=\"fill:none\" points=\"{}\"/>\n",
            path.join(" ")
        );
        for ((x, y), (_, value)) in places.zip(&line.points) {
            curve.push_str(&format!(
                "<circle class=\"c{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"><title>{}: {}</title></circle>\n",
                escape(&line.name),
                escape(&(self.y_text)(*value))
            ));
        }
        curve
    }
}

/// Which part of the most a value is: from 0 to 1.
fn share(value: f64, most: f64) -> f64 {
    if most > 0.0 {
        (value / most).clamp(0.0, 1.0)
    } else {
        0.0
    }
}

/// 1, 2 or 5 times a power of ten, not less than `least`.
fn round_step(least: f64) -> f64 {
    if !(least > 0.0 && least.is_finite()) {
        return 1.0;
    }
    let power = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps
        .into_iter()
        .find(|step| *step >= least * 0.999)
        .unwrap_or(power * 10.0)
}

/// Heights that are not nearer to each other than names can be, in the same order, down to `lowest`.
fn apart(heights: &[f64], lowest: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by(|a, b| heights[*a].total_cmp(&heights[*b]));
    let mut placed = heights.to_vec();
    let mut least = f64::MIN;
    for at in &order {
        placed[*at] = heights[*at].max(least);
        least = placed[*at] + NAME_STEP;
    }
    let mut most = lowest;
    for at in order.iter().rev() {
        placed[*at] = placed[*at].min(most);
        most = placed[*at] - NAME_STEP;
    }
    placed
}

fn line(class: &str, from: (f64, f64), to: (f64, f64)) -> String {
    format!(
        "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>\n",
        from.0, from.1, to.0, to.1
    )
}

fn text(x: f64, y: f64, anchor: &str, content: &str) -> String {
    let content = escape(content);
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{content}</text>\n")
}

fn document(title: &str, height: f64, body: &str) -> String {
    let title = escape(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" width=\"{WIDTH:.0}\" \
         height=\"{height:.0}\" role=\"img\" aria-label=\"{title}\">\n<style>\n{STYLE}</style>\n\
         <text class=\"title\" x=\"8.0\" y=\"20.0\">{title}</text>\n{body}</svg>\n"
    )
}

/// What stands for a text in markup.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // Not allowed in XML, not even as a reference.
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_texts_is_escaped() {
        assert_eq!(
            escape("a < b & \"c\" > d"),
            "a &lt; b &amp; &quot;c&quot; &gt; d"
        );
        assert_eq!(escape("tab\tnul\0é"), "tab nul é");
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let bar = |name: &str, value, goal| Bar {
            name: name.to_owned(),
            value,
            text: format!("{value}"),
            goal,
            colour: 0,
        };
        let svg = Bars {
            title: "A & B".to_owned(),
            bars: vec![bar("one", 50.0, None), bar("two", 100.0, Some(75.0))],
        }
        .svg();
        let (_, drawn) = svg.split_once("</style>\n").unwrap();
        // Golden: 380 units wide at most, the goal at three quarters of them.
        assert_eq!(
            drawn,
            "<text class=\"title\" x=\"8.0\" y=\"20.0\">A &amp; B</text>\n\
             <text x=\"262.0\" y=\"47.0\" text-anchor=\"end\">one</text>\n\
             <rect class=\"c0\" x=\"270.0\" y=\"34.0\" width=\"190.0\" height=\"18.0\" rx=\"2\"/>\n\
             <text x=\"466.0\" y=\"47.0\" text-anchor=\"start\">50</text>\n\
             <text x=\"262.0\" y=\"73.0\" text-anchor=\"end\">two</text>\n\
             <rect class=\"c0\" x=\"270.0\" y=\"60.0\" width=\"380.0\" height=\"18.0\" rx=\"2\"/>\n\
             <line class=\"goal\" x1=\"555.0\" y1=\"57.0\" x2=\"555.0\" y2=\"81.0\"/>\n\
             <text x=\"656.0\" y=\"73.0\" text-anchor=\"start\">100</text>\n</svg>\n"
        );
    }

    #[test]
    fn lines_stay_within_their_area_even_when_cut_off() {
        let svg = Lines {
            title: "t".to_owned(),
            x_ticks: vec![(1.0, "1".into()), (2.0, "2".into())],
            x_name: "x".to_owned(),
            y_max: Some(100.0),
            y_text: |value| format!("{value}"),
            lines: vec![Line {
                name: "l".to_owned(),
                points: vec![(1.0, 0.0), (2.0, 5000.0)],
            }],
        }
        .svg();
        assert!(svg.contains("points=\"92.0,254.0 558.0,34.0\""), "{svg}");
    }

    #[test]
    fn nothing_to_draw_is_no_error() {
        let none = Lines {
            title: String::new(),
            x_ticks: vec![],
            x_name: String::new(),
            y_max: None,
            y_text: |value| format!("{value}"),
            lines: vec![],
        };
        assert!(!none.svg().contains("NaN"));
    }

    #[test]
    fn steps_of_a_grid_are_round_and_names_apart() {
        for (least, step) in [
            (0.9, 1.0),
            (1.1, 2.0),
            (230.0, 500.0),
            (7e6, 1e7),
            (0.0, 1.0),
        ] {
            assert!((round_step(least) - step).abs() < step * 1e-9, "{least}");
        }
        assert_eq!(apart(&[20.0, 10.0, 100.0], 200.0), [25.0, 10.0, 100.0]);
        assert_eq!(apart(&[19.0, 20.0], 20.0), [5.0, 20.0]);
    }
}
