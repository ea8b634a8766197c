//! What a process has in the kernel, and whether it is gone.

use std::{collections::HashSet, fs};

use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};
use rustix::process::Pid;

use super::wait_for;

/// Programs, maps and links by their ids, which are not used again soon:
/// other tracers on the machine do not disturb.
#[derive(Debug, Default)]
pub struct Loaded {
    programs: HashSet<u32>,
    maps: HashSet<u32>,
    links: HashSet<u32>,
}

impl Loaded {
    /// Everything that this process holds a file descriptor of.
    #[track_caller]
    pub fn by(pid: Pid) -> Self {
        let mut loaded = Self::default();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it runs") {
            // One that was closed meanwhile.
            let Ok(text) = entry.and_then(|entry| fs::read_to_string(entry.path())) else {
                continue;
            };
            for line in text.lines() {
                let Some((key, value)) = line.split_once(':') else {
                    continue;
                };
                let ids = match key {
                    "prog_id" => &mut loaded.programs,
                    "map_id" => &mut loaded.maps,
                    "link_id" => &mut loaded.links,
                    _ => continue,
                };
                ids.extend(value.trim().parse::<u32>());
            }
        }
        assert!(!loaded.programs.is_empty(), "no programs: {loaded:?}");
        assert!(!loaded.maps.is_empty(), "no maps: {loaded:?}");
        loaded
    }

    /// Is nothing of it left?
    pub fn is_gone(&self) -> bool {
        // What goes while the list is read is an error in it.
        let programs = loaded_programs().flatten().map(|program| program.id());
        let maps = loaded_maps().flatten().map(|map| map.id());
        let links = loaded_links().flatten().map(|link| link.id());
        self.programs.is_disjoint(&programs.collect())
            && self.maps.is_disjoint(&maps.collect())
            && self.links.is_disjoint(&links.collect())
    }

    /// Waits until nothing of it is left; the kernel takes its time to free.
    pub fn wait_until_gone(&self) {
        wait_for(format!("{self:?} to go"), || self.is_gone().then_some(()));
    }
}
