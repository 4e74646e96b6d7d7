//! One plot as inline SVG.
//!
//! ```text
//! y label
//! tick ┤  ╱╲        ── first line      labels in the order in which the lines
//! tick ┤ ╱  ╲______ ── second line     end; long ones are a list below
//!      └┬────┬────┬
//!       ticks, x label
//! ```

use super::axis::Axis;
use super::escape::escape;
use super::labels::{self, LABEL_GAP, SAMPLE};
use super::thin::{Keep, Point, Reach, thin};

/// A figure's width in its own units: little more than a phone's, so that text
/// is never scaled below what can be read.
const WIDTH: f64 = 400.0;
/// Its height, where the labels do not need more.
const HEIGHT: f64 = 225.0;
/// Room above for the label of the y axis.
pub(super) const TOP: f64 = 26.0;
/// Room below for ticks and the label of the x axis.
const BOTTOM: f64 = 40.0;
/// The width of a character, at most on average.
const CHARACTER: f64 = 7.0;
/// A plot with its title.
#[derive(Debug)]
pub(super) struct Plot {
    /// What it shows, in a sentence.
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
    /// What to say of stretches of x: its beginning, its end and the words.
    pub(super) tips: Vec<(f64, f64, String)>,
}

/// One line of a plot.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    /// Which of the line styles of the style sheet it has.
    pub(super) style: usize,
    pub(super) points: Vec<Point>,
    /// What is drawn of it where it is long.
    pub(super) keep: Keep,
    /// Whether it is drawn wide, for another that often hides it.
    pub(super) wide: bool,
    /// Points to mark, each with what to say of it.
    pub(super) marks: Vec<(f64, f64, String)>,
}

/// The rectangle in which lines are drawn.
pub(super) struct Frame<'a> {
    pub(super) plot: &'a Plot,
    left: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

impl Frame<'_> {
    fn x(&self, value: f64) -> f64 {
        self.left + (self.right - self.left) * self.plot.x.position(value)
    }

    pub(super) fn y(&self, value: f64) -> f64 {
        self.bottom - (self.bottom - TOP) * self.plot.y.position(value)
    }
}

impl Plot {
    /// Its `figure`. A plot without a line is left out.
    pub(super) fn draw(&self) -> String {
        if self.lines.iter().all(|line| line.points.iter().flatten().next().is_none()) {
            return String::new();
        }
        let beside = labels::beside(&self.lines);
        let labels = self.lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
        let ticks = self.y.ticks.iter().map(|(_, text)| text.chars().count()).max().unwrap_or(0);
        let height =
            if beside { HEIGHT.max(TOP + BOTTOM + LABEL_GAP * self.lines.len() as f64) } else { HEIGHT };
        let frame = Frame {
            plot: self,
            left: 10.0 + CHARACTER * ticks as f64,
            // Half of the last tick's text is to the right of it.
            right: WIDTH - if beside { SAMPLE + 14.0 + CHARACTER * labels as f64 } else { 24.0 },
            bottom: height - BOTTOM,
        };
        // A number is not parted from its unit at the end of a line.
        let units = [" %", " ms", " µs"].map(|unit| (unit, unit.replace(' ', "\u{a0}")));
        let title = units.iter().fold(escape(&self.title), |title, (unit, kept)| title.replace(unit, kept));
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">\n");
        svg.push_str(&frame.axes());
        for line in &self.lines {
            svg.push_str(&frame.line(line));
        }
        svg.push_str(&frame.tips());
        if beside {
            svg.push_str(&labels::draw(&frame));
        }
        let list = if beside { String::new() } else { labels::list(&frame) };
        format!("<figure><figcaption>{title}</figcaption>\n{svg}</svg>{list}</figure>\n")
    }
}

/// Writes to a `String`, which cannot fail.
macro_rules! put {
    ($to:expr, $($arguments:tt)*) => {{
        let _written = std::fmt::Write::write_fmt(&mut $to, format_args!($($arguments)*));
    }};
}
pub(super) use put;

impl Frame<'_> {
    fn axes(&self) -> String {
        let mut svg = String::new();
        let Self { plot, left, right, bottom } = self;
        for (value, text) in &plot.y.ticks {
            let y = self.y(*value);
            put!(svg, "<path class=\"grid\" d=\"M{left:.1} {y:.1}H{right:.1}\"/>");
            put!(
                svg,
                "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                left - 6.0,
                y + 4.0,
                escape(text)
            );
        }
        for (value, text) in &plot.x.ticks {
            let (x, y) = (self.x(*value), bottom + 16.0);
            put!(svg, "<path class=\"grid\" d=\"M{x:.1} {TOP}V{:.1}\"/>", bottom + 3.0);
            put!(svg, "<text class=\"middle\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(text));
        }
        put!(svg, "<path class=\"axis\" d=\"M{left:.1} {TOP}V{bottom:.1}H{right:.1}\"/>");
        put!(svg, "<text class=\"name\" x=\"2\" y=\"13\">{}</text>", escape(&plot.y.label));
        let middle = f64::midpoint(*left, *right);
        put!(svg, "<text class=\"name middle\" x=\"{middle:.1}\" y=\"{:.1}\">", bottom + 34.0);
        put!(svg, "{}</text>\n", escape(&plot.x.label));
        svg
    }

    fn line(&self, line: &Line) -> String {
        let thinned = thin(&line.points, line.keep);
        let mut svg = self.band(&thinned.band, line.style);
        let mut path = String::new();
        let mut down = false;
        for (at, point) in thinned.line.iter().enumerate() {
            let Some((x, y)) = point else {
                down = false;
                continue;
            };
            put!(path, "{}{:.1} {:.1}", if down { 'L' } else { 'M' }, self.x(*x), self.y(*y));
            // A point between two gaps is a dot: a line of no length, with round ends.
            if !down && thinned.line.get(at + 1).copied().flatten().is_none() {
                path.push_str("h0");
            }
            down = true;
        }
        put!(svg, "<path class=\"{}\" d=\"{path}\"/>\n", line.class());
        for (x, y, tip) in &line.marks {
            put!(
                svg,
                "<circle class=\"s{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\">",
                line.style,
                self.x(*x),
                self.y(*y)
            );
            put!(svg, "<title>{}</title></circle>\n", escape(tip));
        }
        svg
    }

    /// There along the upper edge and back along the lower one.
    fn band(&self, band: &[Reach], style: usize) -> String {
        let mut svg = String::new();
        for stretch in band.split(Option::is_none).filter(|stretch| !stretch.is_empty()) {
            let there = stretch.iter().flatten().map(|(x, _, high)| (x, high));
            let back = stretch.iter().rev().flatten().map(|(x, low, _)| (x, low));
            let mut path = String::new();
            for (x, y) in there.chain(back) {
                let step = if path.is_empty() { 'M' } else { 'L' };
                put!(path, "{step}{:.1} {:.1}", self.x(*x), self.y(*y));
            }
            put!(svg, "<path class=\"band s{style}\" d=\"{path}Z\"/>\n");
        }
        svg
    }

    fn tips(&self) -> String {
        let mut svg = String::new();
        for (begin, end, tip) in &self.plot.tips {
            let (begin, end) = (self.x(*begin), self.x(*end));
            let (width, height) = (end - begin, self.bottom - TOP);
            put!(
                svg,
                "<rect class=\"tip\" x=\"{begin:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height:.1}\">"
            );
            put!(svg, "<title>{}</title></rect>\n", escape(tip));
        }
        svg
    }
}

impl Line {
    /// Its classes of the style sheet.
    pub(super) fn class(&self) -> String {
        format!("line s{}{}", self.style, if self.wide { " wide" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<Vec<Point>>) -> Plot {
        let line = |(style, points)| Line {
            name: format!("line {style}"),
            style,
            points,
            keep: Keep::Middle,
            wide: false,
            marks: Vec::new(),
        };
        Plot {
            title: "a < b".into(),
            x: Axis::seconds(10.0),
            y: Axis::linear("y", [10.0].into_iter()),
            lines: points.into_iter().enumerate().map(line).collect(),
            tips: Vec::new(),
        }
    }

    #[test]
    fn a_gap_parts_a_line_and_a_lone_point_is_a_dot() {
        let points = vec![Some((0.0, 0.0)), Some((1.0, 0.0)), None, Some((5.0, 0.0)), None, Some((9.0, 0.0))];
        let svg = plot(vec![points]).draw();
        let path = svg.split("line s0\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(path.matches('M').count(), 3, "{path}");
        assert_eq!((path.matches('L').count(), path.matches("h0").count()), (1, 2), "{path}");
        assert!(svg.contains("a &lt; b") && !svg.contains("a < b"));
    }

    #[test]
    fn a_plot_without_a_point_is_left_out() {
        assert_eq!(plot(vec![vec![None, None], vec![]]).draw(), "");
    }

    #[test]
    fn a_long_line_has_a_band_that_ends_at_gaps() {
        let mut points: Vec<Point> = (0..1_000).map(|at| Some((f64::from(at) / 100.0, 5.0))).collect();
        points[500] = None;
        let svg = plot(vec![points]).draw();
        assert_eq!(svg.matches("band s0").count(), 2, "{svg}");
    }

    #[test]
    fn long_names_are_a_list_below() {
        let mut plot = plot(vec![vec![Some((0.0, 1.0))], vec![Some((0.0, 2.0))]]);
        assert!(!plot.draw().contains("<ul"));
        plot.lines[0].name = "a name & more than is room for".into();
        let svg = plot.draw();
        let list = svg.split("<ul").nth(1).unwrap();
        let (higher, lower) =
            (list.find("line 1").unwrap(), list.find("a name &amp; more than is room for").unwrap());
        assert!(higher < lower && !svg.contains("class=\"label\""), "{svg}");
    }

    #[test]
    fn labels_follow_the_ends_of_their_lines_and_never_meet() {
        let svg = plot(
            (0..12).map(|line| vec![Some((0.0, 0.0)), Some((9.0, 5.0 + 0.01 * f64::from(line)))]).collect(),
        )
        .draw();
        let labels: Vec<(f64, &str)> = svg
            .split("class=\"label\"")
            .skip(1)
            .map(|label| {
                let y = label.split("y=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
                (y, label.split('>').nth(1).unwrap().split('<').next().unwrap())
            })
            .collect();
        assert_eq!((labels.len(), labels[0].1, labels[11].1), (12, "line 11", "line 0"));
        // Rounded to a tenth.
        assert!(labels.windows(2).all(|pair| pair[1].0 - pair[0].0 > LABEL_GAP - 0.2), "{labels:?}");
    }
}
