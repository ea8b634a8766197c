//! `tracer diff A B`: what vanishes in one recording and not in the other.
//!
//! Flows are compared by what they are ([`fate::Id`]). That a flow fares otherwise
//! is a difference only where both recordings could see it.

mod fate;
mod sizes;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use anyhow::Result;
use tracer_common::{
    flow::{ETH_P_IP, ETH_P_IPV6},
    tally::outcome,
};

use self::{
    fate::{Fate, Id},
    sizes::{Of, Sizes},
};
use crate::{
    cli::{Format, Options},
    flows::{Report, Sent, by_any_cpu},
    probes::points::POINTS,
    record::{Begin, Scope},
    report,
    session::Usage,
    story::{Manner, Story},
    terminal,
    view::about::About,
};

/// What one loses more of than the other: shares of all its packets that are so far
/// apart, in percent.
const APART: u64 = 50;
/// And of so many packets.
const MANY: u64 = 20;

/// What a recording says.
struct Run {
    name: String,
    kernel: String,
    points: BTreeSet<String>,
    /// What was asked for.
    scope: Scope,
    report: Report,
    sent: Vec<Sent>,
    sizes: BTreeMap<Of, Sizes>,
    /// Ports and ICMP types of what was sent were not kept, as in recordings of before
    /// 0.1.0.
    coarse: bool,
}

/// What a comparison of two fates comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Different,
    /// It may be different, but for what one recording could not see.
    Unsure(&'static str),
    OnlyA,
    OnlyB,
    Same,
}

struct Compared {
    id: Id,
    a: Fate,
    b: Fate,
    verdict: Verdict,
}

/// Packets of one size, where the flows of their device fare alike.
struct OfSize {
    of: Of,
    class: usize,
    /// Passed, vanished.
    a: (u64, u64),
    b: (u64, u64),
}

/// All that was compared.
struct Comparison {
    flows: Vec<Compared>,
    sizes: Vec<OfSize>,
    /// Devices on which other sizes vanish.
    other_sizes: Vec<Of>,
}

/// Compares two recordings and tells it.
pub fn run(options: &Options, a: &Path, b: &Path) -> Result<u8> {
    report::refuse(&[
        ("--dev", options.dev.is_some()),
        ("--netns", options.netns.is_some()),
        ("--filter", options.filter.is_some()),
        ("--duration", options.duration.is_some()),
        ("--all-drops", options.all_drops),
    ])?;
    let (a, b) = (Run::read(a)?, Run::read(b)?);
    let comparison = compare(&a, &b);
    let text = match options.format {
        Format::Json => view::lines(&a, &b, &comparison),
        Format::Markdown | Format::Html => {
            let text = "diff has --format table, lines or json";
            return Err(Usage(text.to_owned()).into());
        }
        Format::Table | Format::Lines => view::render(&a, &b, &comparison),
    };
    terminal::print(&text)?;
    Ok(comparison.exit_status(&a, &b))
}

impl Comparison {
    fn exit_status(&self, a: &Run, b: &Run) -> u8 {
        let is_complete = a.report.is_certain() && b.report.is_certain();
        let same = self.count(|verdict| verdict == Verdict::Same);
        let comparable = self.flows.is_empty() || same > 0;
        // What vanishes in one, and was not there in the other.
        let is_alone = |flow: &&Compared| match flow.verdict {
            Verdict::OnlyA => flow.a.vanishes(),
            Verdict::OnlyB => flow.b.vanishes(),
            _ => false,
        };
        let alone = self.flows.iter().any(|flow| is_alone(&flow));
        if self.different() > 0 {
            1
        } else if is_complete && comparable && self.unsure() == 0 && !alone {
            0
        } else {
            crate::COULD_NOT_TRACE
        }
    }

    fn count(&self, is: impl Fn(Verdict) -> bool) -> usize {
        self.flows.iter().filter(|flow| is(flow.verdict)).count()
    }

    fn different(&self) -> usize {
        self.count(|verdict| verdict == Verdict::Different) + self.sizes.len()
    }

    fn unsure(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Unsure(_))) + self.other_sizes.len()
    }
}

impl Run {
    fn read(path: &Path) -> Result<Self> {
        let name = report::shown(path);
        let begin = |begin: Begin| {
            let manner = Manner {
                format: Format::Json,
                stack: false,
                appended: false,
                ledgers: false,
            };
            let coarse = !begin.keeps_ports();
            let points = begin.start.attached.iter();
            let points = points.map(|attached| attached.point.clone()).collect();
            let story = Story::new(begin.start, manner, About::default(), io::sink());
            Ok((story, begin.scope, coarse, points))
        };
        let (read, whole) = report::take_in(path, begin, |(story, ..), event| story.take(event))?;
        let (mut story, scope, coarse, points) = read;
        if !whole {
            story.break_off();
        }
        let report = story.report();
        let book = story.book();
        // Some of those that were counted as lost only arrived: where it is so, they
        // say nothing.
        let mut lost: BTreeMap<(u32, u32), i128> = BTreeMap::new();
        for (key, tally) in &book.counts().likes {
            *lost.entry((key.netns, key.ifindex)).or_default() += i128::from(tally.lost);
        }
        for row in &report.rows {
            let key = &row.evidence.key;
            if key.outcome == outcome::LOST_LATER {
                let sender = (key.sender_netns, key.sender_ifindex);
                *lost.entry(sender).or_default() -= i128::from(row.count);
            }
        }
        let likes: Vec<_> = book
            .counts()
            .likes
            .iter()
            .map(|(key, tally)| (*key, *tally))
            .collect();
        let mut sizes = BTreeMap::new();
        for (key, tally) in &by_any_cpu(&likes) {
            if lost.get(&(key.netns, key.ifindex)) != Some(&0) {
                continue;
            }
            let of = |family| Of {
                device: book.name_of((key.netns, key.ifindex)),
                netns: fate::namespace(book.netns_label(key.netns).as_deref()),
                family,
            };
            sizes::add(&mut sizes, of, key, tally);
        }
        Ok(Self {
            name,
            kernel: story.start().kernel.clone(),
            points,
            // Stacks are no part of what is compared, nor is what else ran; and a
            // namespace has another number each time.
            scope: Scope {
                stack: false,
                command: Vec::new(),
                netns: scope.netns.map(|netns| {
                    match netns.bytes().all(|byte| byte.is_ascii_digit()) {
                        true => "net".to_owned(),
                        false => netns,
                    }
                }),
                ..scope
            },
            sent: book.sent(),
            sizes,
            coarse,
            report,
        })
    }

    /// How each flow fared that a user, or another host, has sent: the kernel's
    /// own housekeeping comes when it comes.
    fn fates(&self, coarse: bool) -> BTreeMap<Id, Fate> {
        let mut fates: BTreeMap<Id, Fate> = BTreeMap::new();
        for row in self.report.rows.iter().filter(|row| !row.is_kernels()) {
            let id = match coarse {
                true => Id::of(row).coarse(),
                false => Id::of(row),
            };
            fates.entry(id).or_default().add(row);
        }
        for sent in self.sent.iter().filter(|sent| sent.dst != [0; 16]) {
            let id = match coarse {
                true => Id::of_sent(sent).coarse(),
                false => Id::of_sent(sent),
            };
            fates.entry(id).or_default().sent += sent.packets;
        }
        fates
    }

    /// Were packets of this device sent of which it was not kept where to?
    fn has_coarse(&self, id: &Id) -> bool {
        self.sent.iter().any(|sent| {
            sent.dst == [0; 16]
                && matches!(sent.ethertype, ETH_P_IP | ETH_P_IPV6)
                && sent.ethertype == id.family
                && sent.device == id.device
                && fate::namespace(sent.netns.as_deref()) == id.netns
        })
    }

    /// Could it see that packets vanish like this?
    fn could_see(&self, fate: &Fate) -> bool {
        let has = |point: &&str| self.points.contains(*point);
        fate.needs.iter().all(|any| any.iter().any(has))
    }

    /// The points that the other had and this one did not, but for those that it has
    /// no use for.
    fn without<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let conditional = |name: &str| {
            let mut points = POINTS.iter();
            points.any(|point| point.name == name && point.without_reasons)
        };
        other
            .points
            .difference(&self.points)
            .map(String::as_str)
            .filter(|point| !conditional(point))
            .collect()
    }
}

fn compare(a: &Run, b: &Run) -> Comparison {
    let coarse = a.coarse || b.coarse;
    let (mut of_a, mut of_b) = (a.fates(coarse), b.fates(coarse));
    // That packets arrived is not counted: those that one end sends, the other gets.
    let others = |fates: &BTreeMap<Id, Fate>| -> BTreeSet<Id> {
        let sent = fates
            .iter()
            .filter(|(id, fate)| !id.arriving && fate.is_seen());
        sent.map(|(id, _)| Id {
            device: String::new(),
            netns: None,
            arriving: true,
            ..id.clone()
        })
        .collect()
    };
    let (gets_a, gets_b) = (others(&of_a), others(&of_b));
    let ids: BTreeSet<Id> = of_a.keys().chain(of_b.keys()).cloned().collect();
    let mut flows: Vec<Compared> = ids
        .into_iter()
        .map(|id| {
            let fates = [&mut of_a, &mut of_b].map(|fates| fates.remove(&id).unwrap_or_default());
            let [fate_a, fate_b] = fates;
            let anywhere = Id {
                device: String::new(),
                netns: None,
                ..id.clone()
            };
            let seen = [
                fate_a.is_seen() || gets_a.contains(&anywhere),
                fate_b.is_seen() || gets_b.contains(&anywhere),
            ];
            Compared {
                verdict: verdict(&id, (a, &fate_a), (b, &fate_b), seen),
                id,
                a: fate_a,
                b: fate_b,
            }
        })
        .collect();
    flows.sort_by(|x, y| (x.verdict, &x.id).cmp(&(y.verdict, &y.id)));
    let (sizes, other_sizes) = compare_sizes(a, b, &flows);
    Comparison {
        flows,
        sizes,
        other_sizes,
    }
}

fn verdict(
    id: &Id,
    (run_a, a): (&Run, &Fate),
    (run_b, b): (&Run, &Fate),
    seen: [bool; 2],
) -> Verdict {
    let absent = |run: &Run, only| match run.has_coarse(id) {
        true => Verdict::Unsure("one did not keep apart where all packets went"),
        false => only,
    };
    match seen {
        [true, false] => return absent(run_b, Verdict::OnlyA),
        [false, true] => return absent(run_a, Verdict::OnlyB),
        _ => {}
    }
    let is_complete = run_a.report.is_certain() && run_b.report.is_certain();
    if a.stages() != b.stages() {
        // A stage that is not there was not, or was not seen.
        return if !is_complete {
            Verdict::Unsure("not everything was counted")
        } else if run_a.scope != run_b.scope {
            Verdict::Unsure("they were made with other options")
        } else if !run_a.could_see(b) || !run_b.could_see(a) {
            Verdict::Unsure("one was traced without what shows it")
        } else {
            Verdict::Different
        };
    }
    if a.causes() != b.causes() {
        return if !a.is_proved() || !b.is_proved() {
            Verdict::Unsure("the causes are not both proved")
        } else if !run_a.without(run_b).is_empty() || !run_b.without(run_a).is_empty() {
            Verdict::Unsure("one was traced without what may tell the cause")
        } else {
            Verdict::Different
        };
    }
    if a.vanishes() && a.sources.is_disjoint(&b.sources) {
        return Verdict::Unsure("they come from other addresses");
    }
    if is_complete && are_apart(a.of_all(), b.of_all()) {
        return Verdict::Different;
    }
    Verdict::Same
}

/// Does one lose much more of its packets than the other?
fn are_apart((lost_a, of_a): (u64, u64), (lost_b, of_b): (u64, u64)) -> bool {
    let share = |lost: u64, of: u64| lost.saturating_mul(100) / of.max(1);
    of_a.min(of_b) >= MANY && share(lost_a, of_a).abs_diff(share(lost_b, of_b)) >= APART
}

/// Sizes, on devices whose flows of a family tell nothing.
fn compare_sizes(a: &Run, b: &Run, flows: &[Compared]) -> (Vec<OfSize>, Vec<Of>) {
    let is_told = |of: &Of| {
        flows.iter().any(|flow| {
            flow.verdict != Verdict::Same
                && (flow.a.vanishes() || flow.b.vanishes())
                && (&flow.id.device, &flow.id.netns, flow.id.family)
                    == (&of.device, &of.netns, of.family)
        })
    };
    let (mut different, mut others) = (Vec::new(), Vec::new());
    if !a.report.is_certain() || !b.report.is_certain() || a.scope != b.scope {
        return (different, others);
    }
    for (of, of_a) in &a.sizes {
        let Some(of_b) = b.sizes.get(of).filter(|_| !is_told(of)) else {
            continue;
        };
        let classes = sizes::differ(of_a, of_b);
        if classes.is_empty() && sizes::are_others(of_a, of_b) {
            others.push(of.clone());
        }
        different.extend(classes.into_iter().map(|class| OfSize {
            of: of.clone(),
            class,
            a: of_a[&class],
            b: of_b[&class],
        }));
    }
    (different, others)
}

#[cfg(test)]
mod tests;
