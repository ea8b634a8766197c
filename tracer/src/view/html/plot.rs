//! Drops over time: how many packets vanished in each interval.

use std::fmt::Write as _;

use super::markup::escaped;

/// Most points that are kept of a run of any length.
const MAX_POINTS: usize = 240;

const WIDTH: u64 = 960;
const HEIGHT: u64 = 120;
/// Room for words.
const ABOVE: u64 = 18;
const BELOW: u64 = 22;

/// How many packets had vanished at which time. Where there are more times than
/// room, every other one goes.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// Times (`CLOCK_MONOTONIC`) and counts, the first at the start.
    points: Vec<(u64, u64)>,
    step_ns: u64,
}

impl Timeline {
    pub fn begin(time_ns: u64) -> Self {
        Self {
            points: vec![(time_ns, 0)],
            step_ns: 0,
        }
    }

    /// Is it time for another point?
    pub fn wants(&self, time_ns: u64) -> bool {
        let last = self.points.last().map_or(0, |(time, _)| *time);
        time_ns > last.saturating_add(self.step_ns)
    }

    /// So many by now.
    pub fn add(&mut self, time_ns: u64, drops: u64) {
        if self.points.last().is_some_and(|(time, _)| *time >= time_ns) {
            // The same time, told better.
            if let Some(last) = self.points.last_mut() {
                last.1 = drops;
            }
            return;
        }
        self.points.push((time_ns, drops));
        if self.points.len() > MAX_POINTS {
            let mut n = 0;
            let len = self.points.len();
            self.points.retain(|_| {
                n += 1;
                n % 2 == 1 || n == len
            });
            if let (Some((first, _)), Some((last, _))) = (self.points.first(), self.points.last()) {
                let spans = (self.points.len() as u64).saturating_sub(1).max(1);
                self.step_ns = last.saturating_sub(*first) / spans;
            }
        }
    }

    /// From one time to the next, and how many vanished between them.
    fn spans(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.points.windows(2).filter_map(|pair| match pair {
            [(from, before), (to, after)] if to > from => {
                Some((*from, *to, after.saturating_sub(*before)))
            }
            _ => None,
        })
    }

    /// The plot; `clock` is the time of day of a time. None where there is no
    /// time in it.
    pub fn draw(&self, clock: impl Fn(u64) -> String) -> Option<String> {
        let (first, _) = *self.points.first()?;
        let (last, _) = *self.points.last()?;
        let whole = last.checked_sub(first).filter(|whole| *whole > 0)?;
        // By time, not by interval: these differ in length.
        let rate =
            |(from, to, packets): &(u64, u64, u64)| *packets as f64 * 1e9 / (to - from) as f64;
        let most = self.spans().map(|span| rate(&span)).fold(0.0, f64::max);
        let x = |time: u64| (time - first) as f64 * WIDTH as f64 / whole as f64;
        let mut out = String::new();
        let _ = write!(
            out,
            "<svg role=\"img\" aria-label=\"drops over time\" viewBox=\"0 0 {WIDTH} {0}\" width=\"100%\">\
             <path class=\"axis\" d=\"M0 {1}H{WIDTH}\"/>",
            ABOVE + HEIGHT + BELOW,
            ABOVE + HEIGHT,
        );
        for span in self.spans().filter(|span| span.2 > 0) {
            let (from, to, packets) = span;
            let height = (rate(&span) / most * HEIGHT as f64).max(1.0);
            let _ = write!(
                out,
                "<rect class=\"bar\" x=\"{:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{height:.2}\"><title>{}</title></rect>",
                x(from),
                (ABOVE + HEIGHT) as f64 - height,
                (x(to) - x(from) - 0.5).max(0.8),
                escaped(&format!("{packets} packets until {}", clock(to))),
            );
        }
        let _ = write!(
            out,
            "<text class=\"name\" x=\"0\" y=\"12\">at most {most:.1} packets/s</text>\
             <text class=\"name\" x=\"0\" y=\"{0}\">{1}</text>\
             <text class=\"name\" x=\"{WIDTH}\" y=\"{0}\" text-anchor=\"end\">{2}</text></svg>",
            ABOVE + HEIGHT + 16,
            escaped(&clock(first)),
            escaped(&clock(last)),
        );
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_run_has_a_bounded_plot() {
        let mut timeline = Timeline::begin(5);
        for n in 1..=100_000_u64 {
            let time = 5 + n * 1_000_000_000;
            if timeline.wants(time) || n == 100_000 {
                timeline.add(time, n * 3);
            }
        }
        assert!(timeline.points.len() <= MAX_POINTS);
        let all: u64 = timeline.spans().map(|(.., packets)| packets).sum();
        assert_eq!(all, 300_000);
        let plot = timeline.draw(|time| time.to_string()).unwrap();
        assert!(plot.contains("at most 3.0 packets/s"), "{plot}");
    }

    #[test]
    fn without_time_there_is_no_plot() {
        assert!(Timeline::default().draw(|_| String::new()).is_none());
        assert!(Timeline::begin(7).draw(|_| String::new()).is_none());
    }

    proptest! {
        #[test]
        fn any_times(points in proptest::collection::vec(any::<(u64, u64)>(), 0..600), at in any::<u64>()) {
            let mut timeline = Timeline::begin(at);
            for (time, drops) in points {
                timeline.add(time, drops);
            }
            let _ = timeline.draw(|_| String::new());
        }
    }
}
