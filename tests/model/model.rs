//! The model: what a client may conclude about its upload from what it sent and what it heard.
//!
//! For each byte: whether it was ever handed over (the most that may be claimed), and whether an answer said that it is there
//! (the least). Beside that: whether somebody asked to end the upload, and what was told of its object.

use bytes::Bytes;
use jumar::model::{Handle, Timestamp};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::client::Answer;
use crate::ground::{MAX_AGE, RETENTION, SESSION_TTL};

/// What is wrong, in a sentence that begins with the invariant's name.
pub(crate) type Verdict = Result<(), String>;

/// An upload as its clients know it.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Upload {
    pub(crate) handle: Handle,
    pub(crate) content: Bytes,
    /// The server was told its length.
    pub(crate) length_told: bool,
    /// Its digest was declared: the right one, or a wrong one.
    pub(crate) declared: Option<bool>,
    /// When each byte was first handed over.
    sent: Vec<Option<Timestamp>>,
    /// Which bytes an answer said are there.
    told: Vec<bool>,
    born: Timestamp,
    /// It was alive then.
    alive_at: Timestamp,
    /// Where the client believes that it ends.
    pub(crate) offset: u64,
    /// Somebody has asked to end it.
    pub(crate) end_asked: bool,
    /// It was told that it is ended.
    pub(crate) ended: bool,
    /// It was told that it is completed.
    pub(crate) completed: bool,
    /// What was told of its object.
    object: Option<Value>,
}

/// What was known when a request was sent.
pub(crate) struct Before {
    told: Vec<bool>,
    pub(crate) ended: bool,
    completed: bool,
}

impl Upload {
    pub(crate) fn new(
        handle: Handle,
        content: Bytes,
        declared: Option<bool>,
        now: Timestamp,
    ) -> Self {
        Self {
            handle,
            sent: vec![None; content.len()],
            told: vec![false; content.len()],
            content,
            length_told: false,
            declared,
            born: now,
            alive_at: now,
            offset: 0,
            end_asked: false,
            ended: false,
            completed: false,
            object: None,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.content.len() as u64
    }

    pub(crate) fn before(&self) -> Before {
        Before {
            told: self.told.clone(),
            ended: self.ended,
            completed: self.completed,
        }
    }

    /// Bytes are handed over.
    pub(crate) fn hand_over(&mut self, start: usize, end: usize, now: Timestamp) {
        for sent in &mut self.sent[start..end] {
            sent.get_or_insert(now);
        }
    }

    /// An answer said that these bytes are there. They cannot have been committed before they were sent, so the upload was alive
    /// then.
    fn tell(&mut self, start: u64, end: u64) -> Verdict {
        for at in place(start)..place(end) {
            let Some(sent) = self.sent[at] else {
                return Err(format!(
                    "exact_bytes: byte {at} is said to be there and was never sent"
                ));
            };
            if !std::mem::replace(&mut self.told[at], true) {
                self.alive_at = self.alive_at.max(sent);
            }
        }
        Ok(())
    }

    /// The bytes that nobody has said are there.
    pub(crate) fn is_told(&self, start: u64, end: u64) -> bool {
        self.told[place(start)..place(end)].iter().all(|told| *told)
    }

    fn may_be_expired(&self, now: Timestamp) -> bool {
        now >= self.alive_at.after(SESSION_TTL) || now >= self.born.after(MAX_AGE)
    }

    /// What every answer about the upload has to keep.
    pub(crate) fn judge(&mut self, before: &Before, answer: &Answer, now: Timestamp) -> Verdict {
        match answer.status {
            500 | 501 | 502 | 504.. => {
                return Err(format!("a fault of the server: {}", answer.shown()));
            }
            404 if now < self.born.after(RETENTION) => {
                return Err("never_back: its client has the key, and it is not found".to_owned());
            }
            // In tus that is also what has failed.
            410 if self.declared == Some(false) => {}
            410 if !self.end_asked && (before.completed || !self.may_be_expired(now)) => {
                return Err("never_back: it is gone, and nobody ended it".to_owned());
            }
            404 | 410 => self.ended = true,
            200..300 if before.ended => {
                return Err(format!(
                    "it was ended, and there it is again: {}",
                    answer.shown()
                ));
            }
            _ => {}
        }
        if answer.json()["code"] == "upload_failed" && self.declared != Some(false) {
            return Err(format!("never_back: it failed: {}", answer.json()));
        }
        if answer.json()["code"] == "upload_completed" {
            // Or as good as: one that is being put together cannot be changed either.
            self.tell(0, self.len())?;
        }
        if let Some(offset) = answer.offset() {
            self.judge_offset(before, offset)?;
        }
        Ok(())
    }

    fn judge_offset(&mut self, before: &Before, offset: u64) -> Verdict {
        let there = before.told.iter().take_while(|told| **told).count() as u64;
        if offset < there {
            return Err(format!("never_back: the offset is {offset}, after {there}"));
        }
        if offset > self.len() {
            return Err(format!(
                "exact_bytes: the offset is {offset} of {}",
                self.len()
            ));
        }
        self.offset = self.offset.max(offset);
        self.tell(0, offset)
    }

    /// A body was taken.
    pub(crate) fn judge_chunk(
        &mut self,
        start: u64,
        end: u64,
        corrupt: bool,
        answer: &Answer,
    ) -> Verdict {
        if !answer.is_success() {
            return Ok(());
        }
        if corrupt {
            return Err(format!(
                "exact_bytes: a body with a wrong digest was taken: {}",
                answer.shown()
            ));
        }
        self.tell(start, end)
    }

    /// The answer of the native status.
    pub(crate) fn judge_status(&mut self, before: &Before, answer: &Answer) -> Verdict {
        if answer.status != 200 {
            return Ok(());
        }
        let json = answer.json();
        let mut there = vec![false; self.content.len()];
        for range in json["received"].as_array().into_iter().flatten() {
            let (start, end) = (number(&range[0]), number(&range[1]));
            if start >= end || end > self.len() {
                return Err(format!(
                    "exact_bytes: it is said to have {range} of {} bytes",
                    self.len()
                ));
            }
            there[place(start)..place(end)].fill(true);
            self.tell(start, end)?;
        }
        let lost = (0..there.len()).find(|at| before.told[*at] && !there[*at]);
        if let Some(at) = lost.filter(|_| json["state"] != "failed") {
            return Err(format!(
                "never_back: byte {at} was there: {}",
                json["received"]
            ));
        }
        let length = &json["length"];
        if !length.is_null() && number(length) != self.len() {
            return Err(format!(
                "its length is said to be {length}, not {}",
                self.len()
            ));
        }
        match json["state"].as_str() {
            Some("completed") => self.judge_object(&json["object"]),
            Some("failed") if self.declared == Some(false) => Ok(()),
            Some("pending" | "uploading" | "assembling") if before.completed => Err(format!(
                "told_once: it was completed, and is {}",
                json["state"]
            )),
            Some("pending" | "uploading" | "assembling") => Ok(()),
            _ => Err(format!(
                "never_back: it is {}: {}",
                json["state"], json["failure_reason"]
            )),
        }
    }

    pub(crate) fn judge_completion(&mut self, before: &Before, answer: &Answer) -> Verdict {
        let json = answer.json();
        if matches!(answer.status, 200 | 201) {
            return self.judge_object(&json["object"]);
        }
        for range in json["missing"].as_array().into_iter().flatten() {
            let (start, end) = (place(number(&range[0])), place(number(&range[1])));
            if before.told[start..end.min(before.told.len())]
                .iter()
                .any(|told| *told)
            {
                return Err(format!(
                    "never_back: {range} was there, and is said to be missing"
                ));
            }
        }
        if answer.status == 422 && self.declared != Some(false) {
            return Err("exact_bytes: the digest is said to be wrong".to_owned());
        }
        Ok(())
    }

    /// It was told that it is completed.
    pub(crate) fn complete(&mut self) -> Verdict {
        self.completed = true;
        if self.declared == Some(false) {
            return Err(
                "exact_bytes: it is completed, and its digest is not the declared one".to_owned(),
            );
        }
        self.tell(0, self.len())
    }

    fn judge_object(&mut self, object: &Value) -> Verdict {
        self.complete()?;
        let sha256 = hex::encode(Sha256::digest(&self.content));
        if object["digest"]["sha-256"] != *sha256 || object["size"] != self.len() {
            return Err(format!(
                "exact_bytes: it is completed with another content: {object}"
            ));
        }
        // A link is signed anew for each answer.
        let mut object = object.clone();
        object["url"] = Value::Null;
        match &self.object {
            Some(before) if *before != object => Err(format!(
                "told_once: its object was {before}, and is {object}"
            )),
            _ => {
                self.object = Some(object);
                Ok(())
            }
        }
    }

    /// What a client sends next: the first stretch that it does not know to be there.
    pub(crate) fn missing(&self, received: &Value) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut at = 0;
        for range in received.as_array().into_iter().flatten() {
            let (start, end) = (number(&range[0]), number(&range[1]));
            if at < start {
                missing.push((at, start));
            }
            at = at.max(end);
        }
        if at < self.len() {
            missing.push((at, self.len()));
        }
        missing
    }
}

fn place(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn number(json: &Value) -> u64 {
    json.as_u64().unwrap_or(u64::MAX)
}
