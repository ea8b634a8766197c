//! The figures as Markdown, with the bars they are held to.

use std::{fmt::Write as _, fs, process::Command, time::Duration};

use super::{
    Cost, Costs,
    load::Load,
    measure::median,
    profile::Profile,
    storm::{BUSY, FLOWS, Kept, STORM, Takes},
    variant::Variant,
};
use crate::process;

/// What is written before and behind the figures.
const METHOD: &str = include_str!("method.md");
const GROWTH: &str = include_str!("growth.md");

pub struct Report<'a> {
    pub costs: &'a Costs,
    pub profiles: &'a [Profile],
    pub kept: &'a Kept,
    pub notes: &'a [String],
    pub took: Duration,
}

/// A figure that was promised.
struct Bar {
    what: String,
    at_most: f64,
    /// NaN where it was not measured.
    figure: f64,
    unit: &'static str,
}

impl Bar {
    fn verdict(&self) -> String {
        let Self {
            at_most, figure, ..
        } = *self;
        if figure.is_nan() {
            "not measured".to_owned()
        } else if figure <= at_most {
            "met".to_owned()
        } else if at_most == 0.0 {
            format!("**not met**, by {}", number(figure))
        } else {
            let more = (figure / at_most - 1.0) * 100.0;
            format!("**not met**, by {more:.0} %")
        }
    }
}

impl Report<'_> {
    pub fn render(&self) -> anyhow::Result<String> {
        let date = process::read(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
        let mut out = format!(
            "# Performance\n\n{METHOD}\nWritten by `cargo xtask bench --write` on {}, in {:.0} s, on {}.\n\n",
            date.trim(),
            self.took.as_secs_f64(),
            machine(),
        );
        out += "## The bars\n\n| bar | at most | measured | |\n| --- | --- | --- | --- |\n";
        for bar in self.bars() {
            let _ = writeln!(
                out,
                "| {} | {} {unit} | {} {unit} | {} |",
                bar.what,
                number(bar.at_most),
                number(bar.figure),
                bar.verdict(),
                unit = bar.unit
            );
        }
        for (load, costs) in self.costs {
            out += &table(*load, costs);
            let mut profiles = self.profiles.iter();
            if let Some(profile) = profiles.find(|profile| profile.load == *load) {
                out += &where_it_goes(profile);
            }
        }
        out += &self.storms();
        out += &self.takes();
        if !self.notes.is_empty() {
            out += "\n## Notes of this run\n\n";
            for note in self.notes {
                let _ = writeln!(out, "- {note}");
            }
        }
        out.push('\n');
        out += GROWTH;
        Ok(out)
    }

    fn cost(&self, load: Load, variant: Variant) -> Option<&Cost> {
        let (_, costs) = self.costs.iter().find(|(known, _)| *known == load)?;
        let (_, cost) = costs.iter().find(|(known, _)| *known == variant)?;
        (!cost.times.is_empty()).then_some(cost)
    }

    /// What the variant adds to a packet, best chunk against best chunk.
    fn added(&self, load: Load, variant: Variant) -> f64 {
        match (self.cost(load, variant), self.cost(load, Variant::Nothing)) {
            (Some(with), Some(without)) => with.times.minimum() - without.times.minimum(),
            _ => f64::NAN,
        }
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |what: String, at_most: f64, figure: f64, unit| Bar {
            what,
            at_most,
            figure,
            unit,
        };
        let ratio = |load, ours, theirs| self.added(load, ours) / self.added(load, theirs);
        let mut bars = Vec::new();
        for (load, short) in [
            (Load::ClosedPort, "closed port"),
            (Load::NoFdb, "vxlan without entry"),
        ] {
            bars.push(bar(
                format!("{short}: counting, of bpftrace's count by reason and location"),
                1.0,
                ratio(load, Variant::Counting, Variant::ReasonCount),
                "×",
            ));
            bars.push(bar(
                format!("{short}: recording every drop, of perf record"),
                0.9,
                ratio(load, Variant::Recording, Variant::Perf),
                "×",
            ));
        }
        let storm = self.kept.storms.iter().rev().find(|storm| {
            storm.rate > 0.9 * f64::from(STORM) && storm.title.starts_with("recording")
        });
        bars.push(bar(
            "records lost, every one of 200,000 drops/s recorded".to_owned(),
            0.0,
            storm.map_or(f64::NAN, |storm| storm.lost as f64),
            "",
        ));
        let wrong: u64 = self
            .kept
            .storms
            .iter()
            .map(|storm| storm.sent.abs_diff(storm.counted))
            .chain(
                [Load::ClosedPort, Load::NoFdb]
                    .into_iter()
                    .flat_map(|load| [(load, Variant::Counting), (load, Variant::Recording)])
                    .filter_map(|(load, variant)| self.cost(load, variant))
                    .map(|cost| cost.sent.abs_diff(cost.seen.unwrap_or_default())),
            )
            .sum();
        bars.push(bar(
            "packets that the sender and tracer disagree about, at any rate".to_owned(),
            0.0,
            wrong as f64,
            "",
        ));
        for (load, what, at_most) in [
            (Load::Healthy, "a packet that passes a tunnel", 250.0),
            (Load::Beside, "a packet beside a tunnel", 30.0),
            (Load::NoTunnel, "a packet on a host without tunnels", 30.0),
        ] {
            bars.push(bar(
                what.to_owned(),
                at_most,
                self.added(load, Variant::Counting),
                "ns",
            ));
        }
        let kept = self.kept;
        let megabytes = |takes: &Takes| takes.resident as f64 / f64::from(1 << 20);
        bars.extend([
            bar(
                "exec to attached (median)".to_owned(),
                200.0,
                median(&kept.ready) * 1000.0,
                "ms",
            ),
            bar(
                "resident at rest".to_owned(),
                20.0,
                megabytes(&kept.at_rest),
                "MB",
            ),
            bar(
                format!("resident with {FLOWS} flows"),
                60.0,
                megabytes(&kept.many_flows),
                "MB",
            ),
            bar(
                "processor at rest".to_owned(),
                1.0,
                kept.at_rest.processor * 100.0,
                "%",
            ),
            bar(
                format!("processor at {BUSY} drops/s"),
                25.0,
                kept.busy.processor * 100.0,
                "%",
            ),
        ]);
        bars
    }

    fn storms(&self) -> String {
        let mut out = "\n## Storms\n\nInto the vxlan device without an entry; lost records are details, never counts.\n\n\
             | | drops/s | sent | counted | records | lost | complete |\n| --- | --- | --- | --- | --- | --- | --- |\n"
            .to_owned();
        for storm in &self.kept.storms {
            let _ = writeln!(
                out,
                "| {} | {:.0} | {} | {} | {} | {} | {} |",
                storm.title,
                storm.rate,
                storm.sent,
                storm.counted,
                storm.records,
                storm.lost,
                if storm.complete { "yes" } else { "no" },
            );
        }
        out
    }

    fn takes(&self) -> String {
        let kept = self.kept;
        let mut out =
            "\n## What it takes\n\n| | resident, MB | processor, % of one |\n| --- | --- | --- |\n"
                .to_owned();
        for (what, takes) in [
            (
                "at rest, no tunnel on the host",
                kept.at_rest_without_tunnels,
            ),
            ("at rest", kept.at_rest),
            ("50,000 drops/s, watching", kept.busy),
            ("50,000 drops/s, recording", kept.busy_recording),
            (
                "100,000 flows, each twice, at 50,000 drops/s",
                kept.many_flows,
            ),
        ] {
            let _ = writeln!(
                out,
                "| {what} | {:.1} | {:.1} |",
                takes.resident as f64 / f64::from(1 << 20),
                takes.processor * 100.0
            );
        }
        let least = |of: &[f64]| of.iter().copied().fold(f64::INFINITY, f64::min) * 1000.0;
        let _ = writeln!(
            out,
            "\nFrom exec to attached: {:.0} ms at best, {:.0} ms in the median of {}. From SIGTERM to gone: {:.0} ms in the median, 300 of which are for packets still on their way.",
            least(&kept.ready),
            median(&kept.ready) * 1000.0,
            kept.ready.len(),
            median(&kept.detached) * 1000.0,
        );
        out
    }
}

/// One load's costs.
fn table(load: Load, costs: &[(Variant, Cost)]) -> String {
    let mut out = format!(
        "\n## {}\n\n| attached | best chunk, ns | added | median, ns | added | sent | seen | lost |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        load.title()
    );
    let nothing = costs
        .iter()
        .find(|(variant, _)| *variant == Variant::Nothing)
        .map(|(_, cost)| (cost.times.minimum(), cost.times.median()));
    for (variant, cost) in costs {
        if cost.times.is_empty() {
            continue;
        }
        let (minimum, middle) = (cost.times.minimum(), cost.times.median());
        let added = |figure: f64, of: Option<f64>| match of {
            Some(of) if *variant != Variant::Nothing => format!("{:+.0}", figure - of),
            _ => "–".to_owned(),
        };
        let seen = match cost.seen {
            Some(seen) if load.drops() => seen.to_string(),
            _ => "–".to_owned(),
        };
        let _ = writeln!(
            out,
            "| {} | {minimum:.0} | {} | {middle:.0} | {} | {} | {seen} | {}{} |",
            variant.title(),
            added(minimum, nothing.map(|(minimum, _)| minimum)),
            added(middle, nothing.map(|(_, middle)| middle)),
            cost.sent,
            cost.lost,
            match cost.incomplete {
                0 => String::new(),
                n => format!(" (incomplete ×{n})"),
            }
        );
    }
    out
}

/// The programs' shares of a packet.
fn where_it_goes(profile: &Profile) -> String {
    let of_packet = |n: u64| n as f64 / (profile.packets.max(1)) as f64;
    let programs = profile
        .spent
        .iter()
        // What others' packets do on the machine does not count.
        .filter(|spent| of_packet(spent.runs) > 0.01)
        .map(|spent| {
            let runs = of_packet(spent.runs);
            let times = match runs.round() {
                1.0 => String::new(),
                _ => format!("{runs:.1} × "),
            };
            let each = spent.nanoseconds as f64 / spent.runs as f64;
            format!("`{}` {times}{each:.0}", spent.name)
        });
    let programs: Vec<String> = programs.collect();
    if programs.is_empty() {
        return "\nNo program ran for these packets.\n".to_owned();
    }
    format!(
        "\nBy program, in ns by the kernel's own count, which adds to each what an empty one shows: {}.\n",
        programs.join(", ")
    )
}

fn number(figure: f64) -> String {
    if figure.is_nan() {
        "–".to_owned()
    } else if figure.abs() >= 10.0 || figure == figure.trunc() {
        format!("{figure:.0}")
    } else {
        format!("{figure:.2}")
    }
}

/// Processor, kernel, number of processors.
fn machine() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of = |name: &str| {
        processors
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map_or("", |(_, value)| value.trim())
    };
    let virtual_machine = if of("flags").split(' ').any(|flag| flag == "hypervisor") {
        ", a virtual machine"
    } else {
        ""
    };
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let count = processors
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    format!(
        "{} × {} (family {}, model {}){virtual_machine}, Linux {release}",
        count,
        of("model name"),
        of("cpu family"),
        of("model"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::profile::Spent;

    fn bar(at_most: f64, figure: f64) -> String {
        let what = String::new();
        Bar {
            what,
            at_most,
            figure,
            unit: "",
        }
        .verdict()
    }

    #[test]
    fn bars_say_by_how_much() {
        assert_eq!(bar(1.0, 0.99), "met");
        assert_eq!(bar(200.0, 250.0), "**not met**, by 25 %");
        assert_eq!(bar(0.0, 0.0), "met");
        assert_eq!(bar(0.0, 17.0), "**not met**, by 17");
        assert_eq!(bar(1.0, f64::NAN), "not measured");
    }

    #[test]
    fn a_table_shows_what_was_added() {
        let cost = |chunks: &[u64], seen| {
            let mut cost = Cost {
                sent: 20,
                seen,
                ..Cost::default()
            };
            cost.times.add(chunks, 10);
            cost
        };
        let text = table(
            Load::NoFdb,
            &[
                (Variant::Nothing, cost(&[0, 10_000, 12_000], None)),
                (Variant::Counting, cost(&[0, 13_000, 16_000], Some(19))),
            ],
        );
        assert!(
            text.contains("| nothing | 1000 | – | 1100 | – | 20 | – | 0 |"),
            "{text}"
        );
        assert!(
            text.contains("| tracer counting | 1300 | +300 | 1450 | +350 | 20 | 19 | 0 |"),
            "{text}"
        );
    }

    #[test]
    fn a_profile_is_of_one_packet() {
        let spent = |name: &str, runs, nanoseconds| Spent {
            name: name.to_owned(),
            runs,
            nanoseconds,
        };
        let text = where_it_goes(&Profile {
            load: Load::NoFdb,
            packets: 1000,
            spent: vec![
                spent("start", 2000, 800_000),
                spent("end", 1001, 100_100),
                spent("rare", 3, 900),
            ],
        });
        assert!(
            text.contains("shows: `start` 2.0 × 400, `end` 100."),
            "{text}"
        );
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(number(0.0), "0");
        assert_eq!(number(0.876), "0.88");
        assert_eq!(number(247.3), "247");
    }
}
