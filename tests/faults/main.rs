//! The fault matrix: every call that the server makes to a bucket, in every way that it can go wrong, in everything that the server
//! does. What clients see of it is the table in `docs/faults.md`; what has to hold is asserted for each cell.
//!
//! `JUMAR_WRITE_DOCS=1` writes the table anew. `JUMAR_FAULTS=start-up/CopyObject` runs only the cells whose names contain this.

#![expect(
    clippy::unwrap_used,
    reason = "everything here is a test, also what is no test function"
)]

#[path = "../support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "what the tests share is offered before the last test uses it"
)]
mod support;

mod audit;
mod bench;
mod cell;
mod client;
mod scenes;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use cell::Cell;
use scenes::{SCENES, Strike};

/// How many cells run at once: they wait more than they work.
const AT_ONCE: usize = 32;

/// What each scene calls when nothing goes wrong, and how often.
type Calls = BTreeMap<String, usize>;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_call_fails_in_every_way_and_nothing_is_lost() {
    let only = std::env::var("JUMAR_FAULTS").unwrap_or_default();
    let mut sound = Vec::new();
    for scene in &SCENES {
        let seen = cell::without_fault(scene).await;
        let calls: Vec<_> = scene.ops.iter().map(|op| format!("{op:?}")).collect();
        let never: Vec<_> = (calls.iter())
            .filter(|call| !seen.contains_key(*call))
            .collect();
        assert!(never.is_empty(), "{scene:?} makes no {never:?}: {seen:?}");
        sound.push(Arc::new(seen));
    }
    for scene in &SCENES {
        let listed = |call: &String| {
            let mut same = SCENES.iter().filter(|other| other.phase == scene.phase);
            same.any(|other| other.ops.iter().any(|op| format!("{op:?}") == *call))
        };
        let at = SCENES.iter().position(|other| std::ptr::eq(other, scene));
        let unlisted: Vec<_> = sound[at.unwrap()]
            .keys()
            .filter(|call| !listed(call))
            .collect();
        assert!(
            unlisted.is_empty(),
            "{scene:?} makes calls that no scene of its phase lists: {unlisted:?}"
        );
    }

    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    let mut names = BTreeMap::new();
    for cell in cells(&sound) {
        if !cell.name().contains(&only) {
            continue;
        }
        let (name, places) = (cell.name(), Arc::clone(&places));
        let handle = running.spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            let seen = cell.run().await;
            (cell, seen)
        });
        names.insert(handle.id(), name);
    }
    let mut seen = Vec::new();
    let mut broken = Vec::new();
    while let Some(done) = running.join_next().await {
        match done {
            Ok(done) => seen.push(done),
            Err(error) => broken.push(names[&error.id()].clone()),
        }
    }
    broken.sort();
    assert!(
        broken.is_empty(),
        "{} cells are broken:\n{}",
        broken.len(),
        broken.join("\n")
    );
    if !only.is_empty() {
        for (cell, seen) in seen {
            println!("{}: {seen}", cell.name());
        }
    } else if std::env::var_os("JUMAR_WRITE_DOCS").is_some() {
        table::write(&table::render(&seen));
    } else {
        table::compare(&table::render(&seen));
    }
}

fn cells(sound: &[Arc<Calls>]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (scene, sound) in SCENES.iter().zip(sound) {
        for op in scene.ops {
            for wrong in scenes::wrongs_of(*op) {
                for strike in [Strike::Once, Strike::Lasting] {
                    cells.push(Cell {
                        scene,
                        op: *op,
                        wrong,
                        strike,
                        usual: sound[&format!("{op:?}")],
                    });
                }
            }
        }
    }
    cells
}
