//! Copying an object of any size to another key, on the store's side.

use futures_util::{StreamExt as _, TryStreamExt as _};

use super::{About, MadeOf, Parts, Result, Stored};
use crate::model::{ByteRange, Length, PartNumber, StoreKey};

/// How large the pieces are that a large object is copied in: far below the 5 GiB that S3 takes in one call, so that several
/// are copied at once.
pub const PIECE_BYTES: u64 = 1 << 30;
/// How many pieces are on their way at once.
const AT_ONCE: usize = 4;

/// Copies an object of `size` bytes in one call, or in pieces if it is larger than `piece` bytes.
///
/// `Taken` if something is at `key` already, where the store looks. Repeatable: what an earlier try began under `key` and
/// did not finish is removed. So nobody else may begin anything under it meanwhile.
pub async fn to_key(
    parts: &dyn Parts,
    source: &StoreKey,
    size: Length,
    key: &StoreKey,
    about: &About,
    piece: u64,
) -> Result<Stored> {
    if size.get() <= piece {
        return parts.copy(source, size, key, about).await;
    }
    for begun in parts.multipart_of(key).await? {
        parts.abort(key, &begun.id).await?;
    }
    let upload = parts.begin(key, about, MadeOf::Unchecked).await?;
    let ranges = (0..size.get().div_ceil(piece))
        .filter_map(|n| ByteRange::new(n * piece, ((n + 1) * piece).min(size.get())));
    let copies: Vec<_> = (1..)
        .map(PartNumber)
        .zip(ranges)
        .map(|(number, range)| parts.copy_part(key, &upload, number, range, source, Some(range)))
        .collect();
    let mut receipts: Vec<_> = futures_util::stream::iter(copies)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    receipts.sort_by_key(|receipt: &crate::model::PartReceipt| receipt.number);
    parts.finish(key, &upload, &receipts, size).await
}
