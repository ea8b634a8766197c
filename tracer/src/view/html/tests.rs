use crate::{
    devices::Device,
    flows::Selected,
    judge::{self, Confidence, tests::sit},
    probes::{Attached, Missing},
};

use super::*;

/// Whatever a host may call its things.
const HOSTILE: &str =
    "</td></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[2J";

fn row(name: &str) -> Row {
    let mut evidence = sit();
    evidence.kind = name.to_owned();
    evidence.reason = Some(name.to_owned());
    evidence.device = Some(
        Device {
            name: name.as_bytes().to_vec(),
            encap: Some(name.to_owned()),
            key: Some(name.to_owned()),
            ..Device::default()
        }
        .into(),
    );
    evidence.place = Some(judge::Place {
        function: name.to_owned(),
        offset: 1,
        module: Some(name.to_owned()),
    });
    let (cause, _) = judge::judge(&evidence);
    Row {
        evidence,
        cause,
        confidence: Confidence::Unknown,
        count: 3,
        last_ns: 5,
        rate: 0.0,
        stack: Vec::new(),
        path: vec![name.to_owned(), name.to_owned()],
        netns: Some(name.to_owned()),
    }
}

fn page(name: &str) -> String {
    let start = Start {
        kernel: name.to_owned(),
        arch: name.to_owned(),
        config: [(name.to_owned(), name.to_owned())].into(),
        attached: vec![Attached {
            point: name.to_owned(),
            target: name.to_owned(),
            way: name.to_owned().into(),
            module: Some(name.to_owned()),
        }],
        missing: vec![Missing {
            point: name.to_owned(),
            why: name.to_owned(),
            lost: name.to_owned().into(),
        }],
        ..Start::default()
    };
    let mut about = About {
        recording: Some((name.to_owned(), name.to_owned())),
        part: vec![("--filter", name.to_owned())],
        ..About::default()
    };
    about.scope.command = vec![name.to_owned()];
    let mut timeline = Timeline::begin(0);
    timeline.add(5_000_000_000, 3);
    let page = Page {
        start: &start,
        about: &about,
        timeline: &timeline,
        clock: |time: u64| format!("{time}{name}"),
        stack: true,
    };
    let report = Report {
        rows: vec![row(name)],
        selected: Some(Selected {
            of: 4,
            undecided: 1,
            devices_whole: true,
        }),
        ..Report::default()
    };
    render(&page, &report)
}

/// The names of the elements, if each is closed where it has to be.
fn elements(page: &str) -> Vec<String> {
    let mut open: Vec<&str> = Vec::new();
    let mut all = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a page");
    while let Some((_, tail)) = rest.split_once('<') {
        let (tag, tail) = tail.split_once('>').expect("a whole tag");
        rest = tail;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else {
            let name = tag.split([' ', '/']).next().expect("a name");
            all.push(name.to_owned());
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            if !tag.ends_with('/') {
                open.push(name);
            }
            if name == "style" {
                // Not markup, but its own.
                rest = &rest[rest.find("</style>").expect("its end")..];
            }
        }
    }
    assert!(open.is_empty(), "{open:?}");
    all
}

#[test]
fn a_page_is_well_formed() {
    let all = elements(&page("t0"));
    for element in ["html", "svg", "details", "table", "rect"] {
        assert!(all.iter().any(|one| one == element), "{element}");
    }
}

#[test]
fn names_are_no_markup() {
    let hostile = page(HOSTILE);
    // The same elements as with any other name.
    assert_eq!(elements(&hostile), elements(&page("t0")));
    for evil in ["<script", "<img", "\x1b", "onerror=alert(2)>"] {
        assert!(!hostile.contains(evil), "{evil}");
    }
}

#[test]
fn a_page_needs_nothing_else() {
    let page = page("t0");
    for fetched in [
        "http:", "https:", "src=", "url(", "@import", "<link", "<script",
    ] {
        assert!(!page.contains(fetched), "{fetched}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn the_way_is_drawn_from_end_to_end() {
    let drawn = path::draw(&row("t0"));
    let inner = drawn.find(">inner packet<").expect("what was sent");
    let tunnel = drawn.find(">tunnel<").expect("the tunnel");
    let end = drawn.find(">freed in<").expect("the end");
    assert!(inner < tunnel && tunnel < end, "{drawn}");
    assert_eq!(
        drawn.matches("class=\"way\"").count(),
        2 + drawn.matches(">route<").count()
    );
}

/// In a real browser: what it makes of the page, with names of any sort.
#[test]
fn a_browser_shows_the_page() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let chromium = std::env::split_paths(&path)
        .map(|directory| directory.join("chromium"))
        .find(|program| program.is_file());
    let Some(chromium) = chromium else {
        eprintln!("skipped: needs chromium");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    for (name, evil) in [("t0", false), (HOSTILE, true)] {
        let file = directory.path().join("page.html");
        std::fs::write(&file, page(name)).unwrap();
        let output = std::process::Command::new(&chromium)
            // As root there is no sandbox; the page is our own.
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
            .arg(format!("--user-data-dir={}", directory.path().display()))
            .arg(format!("file://{}", file.display()))
            .output()
            .unwrap();
        let dom = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && dom.contains("</html>"),
            "{output:?}"
        );
        assert!(dom.contains("<title>tracer: 3 packets vanished in tunnels</title>"));
        let count = |what: &str| dom.matches(what).count();
        assert_eq!(
            (count("<script"), count("<img"), count("<svg")),
            (0, 0, 2),
            "{dom}"
        );
        assert_eq!(count("<details"), 2);
        assert!(!evil || dom.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(!complaints.contains("CONSOLE"), "{complaints}");
    }
}
