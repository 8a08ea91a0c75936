//! What is put into a store in one call: bytes that can be sent again without their client.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::stream::{self, BoxStream, StreamExt as _};

use super::{Result, StagedFile, Store, StoreError};
use crate::model::{ByteRange, StoreKey};

/// How much of a file is read at a time.
const READ_BYTES: usize = 256 * 1024;

/// Bytes of a known number that can be walked any number of times.
#[derive(Clone)]
pub enum Payload {
    /// Frames as they came, not copied together.
    Memory(Arc<[Bytes]>),
    /// A stretch of a file.
    File {
        /// The file.
        file: Arc<dyn StagedFile>,
        /// Which bytes of it.
        range: ByteRange,
    },
    /// Stretches of objects of a store, read as they are walked.
    Objects {
        /// The store.
        store: Arc<dyn Store>,
        /// Which bytes of which objects, in order.
        slices: Arc<[(StoreKey, ByteRange)]>,
    },
}

impl Payload {
    /// How many bytes.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "the length goes onto the wire; nobody asks whether it is zero"
    )]
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(frames) => frames.iter().map(|frame| frame.len() as u64).sum(),
            Self::File { range, .. } => range.len(),
            Self::Objects { slices, .. } => slices.iter().map(|(_, range)| range.len()).sum(),
        }
    }

    /// The bytes from the start. A file that has become shorter yields an error.
    #[must_use]
    pub fn stream(&self) -> BoxStream<'static, Result<Bytes>> {
        match self {
            Self::Memory(frames) => {
                let frames = Arc::clone(frames);
                let count = frames.len();
                stream::iter(0..count)
                    .map(move |index| Ok(frames[index].clone()))
                    .boxed()
            }
            Self::File { file, range } => file_stream(Arc::clone(file), *range),
            Self::Objects { store, slices } => object_stream(Arc::clone(store), Arc::clone(slices)),
        }
    }
}

fn object_stream(
    store: Arc<dyn Store>,
    slices: Arc<[(StoreKey, ByteRange)]>,
) -> BoxStream<'static, Result<Bytes>> {
    stream::iter(0..slices.len())
        .then(move |index| {
            let (store, slices) = (Arc::clone(&store), Arc::clone(&slices));
            async move {
                let (key, range) = &slices[index];
                store.read(key, Some(*range)).await
            }
        })
        .try_flatten()
        .boxed()
}

fn file_stream(file: Arc<dyn StagedFile>, range: ByteRange) -> BoxStream<'static, Result<Bytes>> {
    stream::try_unfold(range.start(), move |offset| {
        let file = Arc::clone(&file);
        async move {
            if offset == range.end() {
                return Ok(None);
            }
            let wanted = usize::try_from(range.end() - offset)
                .unwrap_or(READ_BYTES)
                .min(READ_BYTES);
            let read = move || {
                let mut buffer = vec![0; wanted];
                let read = file.read_at(offset, &mut buffer)?;
                if read < wanted {
                    let error = std::io::Error::new(
                        std::io::ErrorKind::UnexpectedEof,
                        "a staged file is shorter than what was written to it",
                    );
                    return Err(StoreError::Unavailable(error.into()));
                }
                Ok(Bytes::from(buffer))
            };
            let bytes = tokio::task::spawn_blocking(read)
                .await
                .map_err(|error| StoreError::Unavailable(error.into()))??;
            Ok(Some((bytes, offset + wanted as u64)))
        }
    })
    .boxed()
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}
