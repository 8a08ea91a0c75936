//! What `jumar check` finds out about a store.

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was tried, in a few words.
    pub what: &'static str,
    /// How it went.
    pub outcome: Outcome,
}

/// How a trial went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It works; with a word on how where that helps.
    Works(String),
    /// The store can't; the server does without. The text names the setting to choose, if there is one.
    Without(String),
    /// The server cannot work with it. The text says what to do.
    Broken(String),
}
