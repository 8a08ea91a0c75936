//! What was seen, as the table in `docs/faults.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::cell::Cell;
use crate::scenes::{Phase, SCENES, Strike, Wrong};
use crate::support::s3::Op;

const OPS: [Op; 13] = [
    Op::CreateMultipartUpload,
    Op::UploadPart,
    Op::UploadPartCopy,
    Op::CompleteMultipartUpload,
    Op::AbortMultipartUpload,
    Op::ListMultipartUploads,
    Op::ListParts,
    Op::PutObject,
    Op::CopyObject,
    Op::HeadObject,
    Op::GetObject,
    Op::DeleteObject,
    Op::HeadBucket,
];

/// Where the tables begin in the document; what is above is written by hand.
const MARK: &str =
    "<!-- What follows is written by the test: JUMAR_WRITE_DOCS=1 cargo test --test faults -->\n";

/// The tables: one a phase, a row a call in a scene.
pub(crate) fn render(seen: &[(Cell, String)]) -> String {
    let seen: BTreeMap<String, &String> = seen
        .iter()
        .map(|(cell, seen)| (cell.name(), seen))
        .collect();
    let mut text = String::new();
    for phase in Phase::ALL {
        let _ = write!(text, "\n## {}\n\n| call | what it is for |", title(phase));
        for wrong in Wrong::ALL {
            let _ = write!(text, " {} |", wrong.name());
        }
        text.push('\n');
        text.push_str(&"|---".repeat(2 + Wrong::ALL.len()));
        text.push_str("|\n");
        for op in OPS {
            let mut scenes = SCENES
                .iter()
                .filter(|scene| scene.phase == phase && scene.ops.contains(&op))
                .peekable();
            if scenes.peek().is_none() {
                let _ = write!(text, "| {op:?} | - |");
                text.push_str(&" - |".repeat(Wrong::ALL.len()));
                text.push('\n');
            }
            for scene in scenes {
                let _ = write!(text, "| {op:?} | {} |", scene.kind.name());
                for wrong in Wrong::ALL {
                    let of = |strike| {
                        let cell = Cell {
                            scene,
                            op,
                            wrong,
                            strike,
                            usual: 0,
                        };
                        seen.get(&cell.name()).map_or("-", |seen| seen.as_str())
                    };
                    let (once, lasting) = (of(Strike::Once), of(Strike::Lasting));
                    if once == lasting {
                        let _ = write!(text, " {once} |");
                    } else {
                        let _ = write!(text, " {once}<br>{lasting} |");
                    }
                }
                text.push('\n');
            }
        }
    }
    text
}

fn title(phase: Phase) -> &'static str {
    match phase {
        Phase::Chunk => "Taking a chunk",
        Phase::Complete => "Completing",
        Phase::Abort => "Aborting",
        Phase::Prune => "Pruning",
        Phase::StartUp => "Starting up",
    }
}

/// What is written by hand, and what the test writes below it.
fn document() -> (String, String) {
    let document = std::fs::read_to_string(path()).expect("docs/faults.md");
    let (by_hand, written) = document.split_once(MARK).expect("the mark");
    (by_hand.to_owned(), written.to_owned())
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md")
}

/// Writes the tables into the document.
pub(crate) fn write(tables: &str) {
    let (by_hand, _) = document();
    std::fs::write(path(), format!("{by_hand}{MARK}{tables}")).expect("written");
}

/// Holds the tables against those in the document: the same calls in the same scenes, and each way to fail met or not. What a
/// client heard is not compared: whether a call is tried again before its client is answered is a matter of the machine's speed.
pub(crate) fn compare(tables: &str) {
    let (_, written) = document();
    let differing: Vec<_> = (written.lines().map(shape))
        .zip(tables.lines().map(shape))
        .filter(|(written, seen)| written != seen)
        .map(|(written, seen)| format!("  docs: {written}\n  seen: {seen}"))
        .collect();
    assert!(
        differing.is_empty() && written.lines().count() == tables.lines().count(),
        "docs/faults.md does not have the cells that are seen (JUMAR_WRITE_DOCS=1 writes it anew):\n{}",
        differing.join("\n")
    );
}

/// A line of a table without what its cells say.
fn shape(line: &str) -> String {
    let cells: Vec<_> = line.split(" | ").collect();
    match cells.as_slice() {
        [call, scene, outcomes @ ..] if !outcomes.is_empty() => {
            let met = |outcome: &&str| {
                if outcome.trim_end_matches(" |") == "-" {
                    "-"
                } else {
                    "x"
                }
            };
            let met: Vec<_> = outcomes.iter().map(met).collect();
            format!("{call} | {scene} | {}", met.join(" | "))
        }
        _ => line.to_owned(),
    }
}
