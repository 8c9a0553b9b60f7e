//! The chart of a scale study: efficiency above, latencies below, over the number of shards.

use std::error::Error;

use cluster_sim::scale::Row;
use plotters::coord::Shift;
use plotters::prelude::*;

const SIZE: (u32, u32) = (900, 760);
/// Height of the upper chart.
const HALF: i32 = 380;

/// Draws it as SVG.
pub(super) fn svg(rows: &[Row]) -> Result<String, String> {
    let mut text = String::new();
    draw(rows, &mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

/// A line of the chart.
struct Line {
    name: &'static str,
    color: RGBColor,
    of: fn(&Row) -> f64,
}

fn draw(rows: &[Row], text: &mut String) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (upper, lower) = root.split_vertically(HALF);
    let efficiency = [Line { name: "efficiency", color: BLUE, of: |row| row.efficiency }];
    panel(&upper, rows, ("Efficiency against one shard", "efficiency", 1.1), &efficiency)?;
    let latencies = [
        Line { name: "receipt, p50", color: BLUE, of: |row| row.receipt_ms.p50 },
        Line { name: "receipt, p99", color: CYAN, of: |row| row.receipt_ms.p99 },
        Line { name: "applied in another shard, p50", color: RED, of: |row| row.applied_ms.p50 },
        Line { name: "applied in another shard, p99", color: MAGENTA, of: |row| row.applied_ms.p99 },
    ];
    let slowest = rows.iter().flat_map(|row| latencies.iter().map(move |line| (line.of)(row))).fold(1.0, f64::max);
    panel(&lower, rows, ("Latency", "milliseconds", slowest * 1.1), &latencies)?;
    root.present()?;
    Ok(())
}

/// One chart: each cluster stands at the logarithm of its shards.
fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    rows: &[Row],
    (caption, unit, highest): (&str, &str, f64),
    lines: &[Line],
) -> Result<(), Box<dyn Error>> {
    let place = |row: &Row| f64::from(row.shards).log2();
    let last = rows.iter().map(place).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 20))
        .margin(15)
        .x_label_area_size(45)
        .y_label_area_size(65)
        .build_cartesian_2d(0.0..last, 0.0..highest)?;
    chart
        .configure_mesh()
        .x_labels(rows.len().max(2))
        .x_label_formatter(&|place: &f64| format!("{:.0}", place.exp2()))
        .x_desc("shards")
        .y_desc(unit)
        .draw()?;
    for line in lines {
        let color = line.color;
        let points: Vec<(f64, f64)> = rows.iter().map(|row| (place(row), (line.of)(row))).collect();
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)).point_size(3))?
            .label(line.name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    Ok(())
}
