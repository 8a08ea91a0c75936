//! What is particular to SQLite, beside the suite that every catalog runs.

use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::catalog::conformance;

/// An empty catalog in a folder of its own.
async fn empty() -> (Arc<dyn Catalog>, TempDir) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("new/folder/jumar.db");
    migrate(&path).expect("migrated");
    let catalog = SqliteCatalog::open(&path, Synchronous::Normal).expect("opened");
    (Arc::new(catalog), folder)
}

conformance::suite!(empty);
