//! Reads the sources and fails on an arrow that runs the wrong way: `api → engine → {catalog, store} → model`.

use std::fs;
use std::path::{Path, PathBuf};

/// What each module may use of the crate. `model` is below everything, and a module may always use itself.
const ARROWS: [(&str, &[&str]); 12] = [
    ("model", &[]),
    ("clock", &["model"]),
    ("failpoints", &[]),
    ("catalog", &["clock", "failpoints", "model"]),
    ("store", &["clock", "failpoints", "model"]),
    ("engine", &["catalog", "store", "clock", "model"]),
    ("auth", &["catalog", "clock", "model"]),
    ("config", &["auth", "engine", "model", "jobs", "telemetry"]),
    ("telemetry", &["config"]),
    ("jobs", &["engine"]),
    ("api", &["auth", "engine", "model", "clock", "telemetry"]),
    (
        "app",
        &[
            "api",
            "auth",
            "catalog",
            "clock",
            "config",
            "engine",
            "jobs",
            "model",
            "store",
            "telemetry",
        ],
    ),
];

/// Crates that only some modules may name.
const FOREIGN: [(&str, &[&str]); 8] = [
    ("hyper", &["api"]),
    ("rustls", &["api"]),
    ("tokio_rustls", &["api"]),
    ("axum", &["api"]),
    ("rusqlite", &["catalog"]),
    ("aws_sdk_s3", &["store"]),
    ("jsonwebtoken", &["auth"]),
    ("anyhow", &["cli"]),
];

/// What SQL begins with, in the capitals that we write it in.
const SQL: [&str; 5] = [
    "SELECT ",
    "INSERT INTO ",
    "DELETE FROM ",
    "CREATE TABLE ",
    "BEGIN IMMEDIATE",
];

struct Source {
    path: PathBuf,
    /// From `src` on, without `.rs` and `mod`.
    modules: Vec<String>,
    /// Its code, without comments and without its tests.
    code: String,
}

impl Source {
    fn layer(&self) -> &str {
        &self.modules[0]
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.file_stem().expect("a name").to_string_lossy();
            let for_tests = name == "tests" || name.ends_with("_tests");
            if path.extension().is_none_or(|ending| ending != "rs") || for_tests {
                continue;
            }
            let below = path
                .strip_prefix(&root)
                .expect("below src")
                .with_extension("");
            let modules = below
                .components()
                .map(|part| part.as_os_str().to_string_lossy().into_owned())
                .filter(|part| part != "mod")
                .collect();
            let text = fs::read_to_string(&path).expect("a source");
            let code = code_of(&text);
            found.push(Source {
                path,
                modules,
                code,
            });
        }
    }
    assert!(found.len() > 40, "the sources are found");
    found
}

/// The code before the tests at the file's end, without comments.
fn code_of(text: &str) -> String {
    let tests = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    text[..tests]
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The names that follow `prefix` in the code, also those in braces (`prefix{a::x, b}`).
fn named_after(code: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let listed = rest.strip_prefix('{').map_or(vec![rest], |list| {
            let mut depth = 0;
            let end = list
                .find(|c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    depth < 0
                })
                .unwrap_or(list.len());
            let mut depth = 0;
            list[..end]
                .split(|c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    c == ',' && depth == 0
                })
                .collect()
        });
        names.extend(listed.into_iter().map(|item| {
            item.trim_start()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect::<String>()
        }));
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn the_reader_sees_what_it_has_to() {
    let code = "use crate::{model::{A, B}, store};\nfn f() { crate::engine::x(); my_crate::y() }";
    assert_eq!(named_after(code, "crate::"), ["model", "store", "engine"]);
    assert_eq!(code_of("a\n  // crate::b\n#[cfg(test)]\nmod tests {"), "a");
}

#[test]
fn arrows_run_one_way() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some((_, allowed)) = ARROWS.iter().find(|(layer, _)| *layer == source.layer()) else {
            continue;
        };
        for name in named_after(&source.code, "crate::") {
            let known = ARROWS.iter().any(|(layer, _)| *layer == name) || name == "cli";
            if known && name != source.layer() && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{} uses crate::{name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn foreign_crates_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, homes) in FOREIGN {
            let used = source
                .code
                .match_indices(&format!("{name}::"))
                .any(|(at, _)| {
                    let before = source.code[..at].chars().next_back();
                    before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
                });
            if used && !homes.contains(&source.layer()) {
                wrong.push(format!("{} names {name}", source.path.display()));
            }
        }
        if source.layer() != "catalog" {
            let sql = SQL.iter().filter(|word| source.code.contains(**word));
            wrong.extend(sql.map(|word| format!("{} has SQL: {word}", source.path.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn protocols_do_not_look_at_each_other() {
    const PROTOCOLS: [&str; 4] = ["native", "tus", "ietf", "direct"];
    let mut wrong = Vec::new();
    for source in sources() {
        let own = source.modules.get(1).map_or("", String::as_str);
        if source.layer() != "api" || !PROTOCOLS.contains(&own) {
            continue;
        }
        for prefix in ["crate::api::", "super::", "super::super::"] {
            for name in named_after(&source.code, prefix) {
                if PROTOCOLS.contains(&name.as_str()) && name != own {
                    wrong.push(format!("{} uses {name}", source.path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
