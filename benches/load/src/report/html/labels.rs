//! Names of lines, in the order in which the lines end.

use super::escape::escape;
use super::plot::{Frame, Line, TOP, put};

/// From one label to the next.
pub(super) const LABEL_GAP: f64 = 15.0;
/// The width of a label's sample of its line.
pub(super) const SAMPLE: f64 = 18.0;
/// The longest name that has room beside a plot.
const BESIDE_MAX: usize = 14;

/// Whether the names stand beside the ends of their lines: they need room for
/// that, and a line alone needs no name.
pub(super) fn beside(lines: &[Line]) -> bool {
    lines.len() > 1 && lines.iter().all(|line| line.name.chars().count() <= BESIDE_MAX)
}

/// Lines by the height at which they end, the highest first.
fn by_end<'a>(frame: &Frame<'a>) -> Vec<(f64, &'a Line)> {
    let end = |line: &Line| line.points.iter().rev().flatten().next().map(|(_, y)| frame.y(*y));
    let mut ends: Vec<(f64, &Line)> =
        frame.plot.lines.iter().filter_map(|line| end(line).map(|y| (y, line))).collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    ends
}

/// Names beside the ends of their lines, moved apart where they would meet.
pub(super) fn draw(frame: &Frame<'_>) -> String {
    let ends = by_end(frame);
    let mut heights: Vec<f64> = ends.iter().map(|(y, _)| *y).collect();
    apart(&mut heights, TOP + 4.0, frame.bottom);
    let mut svg = String::new();
    for ((_, line), y) in ends.iter().zip(heights) {
        let from = frame.right + 8.0;
        put!(svg, "<path class=\"{}\" d=\"M{from:.1} {y:.1}h{SAMPLE}\"/>", line.class());
        put!(svg, "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\">", from + SAMPLE + 5.0, y + 4.0);
        put!(svg, "{}</text>\n", escape(&line.name));
    }
    svg
}

/// Names in a list below the plot.
pub(super) fn list(frame: &Frame<'_>) -> String {
    if frame.plot.lines.len() < 2 {
        return String::new();
    }
    let mut list = "<ul class=\"legend\">\n".to_owned();
    for (_, line) in by_end(frame) {
        put!(list, "<li><svg viewBox=\"0 0 24 8\" aria-hidden=\"true\"><path class=\"{}\" ", line.class());
        put!(list, "d=\"M2 4h20\"/></svg>{}</li>\n", escape(&line.name));
    }
    list + "</ul>"
}

/// Moves sorted heights so far apart that labels do not meet, within bounds.
fn apart(heights: &mut [f64], low: f64, high: f64) {
    let mut floor = low;
    for height in heights.iter_mut() {
        *height = height.max(floor);
        floor = *height + LABEL_GAP;
    }
    let mut ceiling = high;
    for height in heights.iter_mut().rev() {
        *height = height.min(ceiling);
        ceiling = *height - LABEL_GAP;
    }
}
