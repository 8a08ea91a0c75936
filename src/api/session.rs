//! A session in JSON, as native answers a creation with it, and whatever else leaves an upload to be gone on with natively.

use serde::Serialize;

use crate::model::{Length, RangeSet, Timestamp, Upload, UploadKey};

/// A session with the key that opens it. The key is shown this once.
#[derive(Debug, Serialize)]
pub struct SessionJson {
    upload_id: String,
    upload_key: String,
    chunk_size: u64,
    max_parallel_chunks: usize,
    length: Option<u64>,
    expires_at: Timestamp,
    received: Vec<(u64, u64)>,
}

/// How a client is advised to send.
#[derive(Debug, Clone, Copy)]
pub struct Advice {
    /// How many bytes at a time.
    pub chunk_size: u64,
    /// How many chunks at once.
    pub max_parallel_chunks: usize,
}

impl SessionJson {
    /// An upload that takes bytes.
    #[must_use]
    pub fn new(upload: &Upload, key: &UploadKey, received: &RangeSet, advice: Advice) -> Self {
        Self {
            upload_id: upload.id.to_string(),
            upload_key: key.reveal(),
            chunk_size: advice.chunk_size,
            // Chunks that overtake each other would be refused.
            max_parallel_chunks: if upload.declared.sequential {
                1
            } else {
                advice.max_parallel_chunks
            },
            length: upload.length.map(Length::get),
            expires_at: upload.expires_at,
            received: pairs(received),
        }
    }
}

/// Ranges as JSON has them.
#[must_use]
pub fn pairs(ranges: &RangeSet) -> Vec<(u64, u64)> {
    ranges
        .iter()
        .map(|range| (range.start(), range.end()))
        .collect()
}
