//! The way of a full cell to the store.
//!
//! A flight is a task of its own: it goes on when its writer is displaced, keeps its cell reserved until the call has
//! returned, and if nobody waits for it any more, brings home what it got by itself.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::buffer::Frame;
use super::live::{Change, Live};
use super::settle::blocking;
use super::{EngineError, Inner, Result};
use crate::catalog::{Intent, IntentKind};
use crate::model::upload::StoreUploadId;
use crate::model::{ByteRange, Cell, PartNumber, PartReceipt, StoreKey};
use crate::store::{self, About, MadeOf, Parts, Payload, Put, Shape, StoreError};

/// A cell on its way; it ends with a [`Landing`]. Dropping it lets the flight go on alone.
pub(super) struct Flight {
    cell: Cell,
    pub(super) saved: Saved,
    result: oneshot::Receiver<Result<PartReceipt>>,
}

/// Whether the very bytes that fly were committed from the tail in the meantime.
#[derive(Clone, Default)]
pub(super) struct Saved(Arc<AtomicBool>);

impl Saved {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How a flight ended.
pub(super) struct Landing {
    pub(super) cell: Cell,
    pub(super) result: Result<PartReceipt>,
}

impl Future for Flight {
    type Output = Landing;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Landing> {
        let cell = self.cell;
        Pin::new(&mut self.result)
            .poll(context)
            .map(|received| Landing {
                cell,
                result: received.unwrap_or_else(|_| {
                    Err(StoreError::Unavailable("the call was given up".into()).into())
                }),
            })
    }
}

/// Keeps a cell to one call at a time.
pub(super) struct Reserved {
    live: Arc<Live>,
    number: PartNumber,
}

impl Reserved {
    /// `None` if a call is on its way for this cell.
    pub(super) fn take(live: &Arc<Live>, number: PartNumber) -> Option<Self> {
        live.state().busy.insert(number).then(|| Self {
            live: Arc::clone(live),
            number,
        })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.live.state().busy.remove(&self.number);
        self.live.changed.notify_waiters();
    }
}

/// Sends a cell from memory. When it lands after its writer has gone, it is recorded if its bytes were saved to the tail; if
/// they were not, others may have come for them, and nothing knows that this part holds the right ones.
pub(super) fn launch(
    engine: &Arc<Inner>,
    live: &Arc<Live>,
    cell: Cell,
    frames: &[Frame],
) -> Flight {
    let (reply, result) = oneshot::channel();
    let reserved = Reserved::take(live, cell.number);
    let payload = Payload::Memory(frames.iter().map(|frame| frame.bytes.clone()).collect());
    let kept = frames.to_vec();
    let (engine, live) = (Arc::clone(engine), Arc::clone(live));
    let flying = engine.budget.fly();
    let saved = Saved::default();
    let is_saved = saved.clone();
    tokio::spawn(async move {
        let result = put_cell(&engine, &live, cell, payload).await;
        drop((kept, flying));
        if let Err(Ok(receipt)) = reply.send(result)
            && is_saved.is_set()
            && let Err(error) = record_part(&engine, &live, receipt).await
        {
            tracing::warn!(upload = %live.id, part = %cell.number, %error, "a part that landed late could not be recorded; it is sent again");
        }
        drop(reserved);
        engine.kick_settling(&live);
    });
    Flight {
        cell,
        saved,
        result,
    }
}

/// Commits the receipt of a part whose bytes were in the tail, and then removes them there.
pub(super) async fn record_part(
    engine: &Arc<Inner>,
    live: &Arc<Live>,
    receipt: PartReceipt,
) -> Result<()> {
    let number = receipt.number;
    live.commit(
        engine,
        Change {
            parts: vec![receipt],
            ..Change::default()
        },
    )
    .await?;
    clear_tail(engine, live, number).await;
    Ok(())
}

/// Removes what the tail has of a cell whose part is recorded.
pub(super) async fn clear_tail(engine: &Arc<Inner>, live: &Live, number: PartNumber) {
    if !live.state().spooled.remove(&number) {
        return;
    }
    let (engine, id) = (Arc::clone(engine), live.id);
    let removed = tokio::task::spawn_blocking(move || engine.spool.remove_cell(id, number)).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(upload = %id, part = %number, %error, "a spool file could not be removed; pruning will");
    }
}

/// Puts a cell into the store: as the whole object if it is all of the upload, else as a part of its multipart upload.
pub(super) async fn put_cell(
    engine: &Inner,
    live: &Live,
    cell: Cell,
    payload: Payload,
) -> Result<PartReceipt> {
    let Shape::Parts(parts) = engine.store.shape() else {
        return Err(StoreError::Refused("this store takes no parts".into()).into());
    };
    let whole = live
        .length()
        .is_some_and(|length| cell.range.start() == 0 && cell.range.end() == length.get());
    if whole && live.store_upload_id().is_none() {
        announce_object(engine, live).await?;
        let Put { etag, checksum } = parts.put(&live.store_key(), payload, &about(live)).await?;
        return Ok(PartReceipt {
            number: cell.number,
            range: cell.range,
            etag,
            checksum,
        });
    }
    let key = &live.store_key();
    let of = to_be_made_of(engine, live).await?;
    let (number, range) = (cell.number, cell.range);
    let mut gone_before = false;
    loop {
        let id = begin(engine, live, parts, of).await?;
        let put = parts
            .put_part(key, &id, number, range, payload.clone(), live.made_of())
            .await;
        match put {
            Err(error @ StoreError::NotFound) if !gone_before => {
                check_gone(engine, live, parts, &id, error).await?;
                gone_before = true;
            }
            put => {
                let receipt = put?;
                let mut state = live.state();
                if state.snapshot.upload.store_upload_id.as_ref() == Some(&id) {
                    state.landed_in = Some(id);
                    state.missing_since = None;
                    return Ok(receipt);
                }
                // Meanwhile another cell was told that this multipart upload is not there, and began a new one.
            }
        }
    }
}

/// The store says that it does not have a multipart upload. `Ok` if another can take its place: nothing has landed in it.
pub(super) async fn check_gone(
    engine: &Inner,
    live: &Live,
    parts: &dyn Parts,
    id: &StoreUploadId,
    error: StoreError,
) -> Result<()> {
    let listed = parts.multipart_of(&live.store_key()).await?;
    if listed.iter().any(|found| found.id == *id) {
        let why = "the store does not find a multipart upload that it lists";
        return Err(StoreError::Unavailable(why.into()).into());
    }
    {
        let mut state = live.state();
        if state.snapshot.upload.store_upload_id.as_ref() != Some(id) {
            return Ok(());
        }
        if state.snapshot.parts.is_empty() && state.landed_in.as_ref() != Some(id) {
            state.snapshot.upload.store_upload_id = None;
            return Ok(());
        }
    }
    engine.missing(live, error).await
}

/// Announces, once, that an object is about to be put under the upload's key.
pub(super) async fn announce_object(engine: &Inner, live: &Live) -> Result<()> {
    if live.state().object_announced {
        return Ok(());
    }
    announce(engine, live, IntentKind::Object).await?;
    live.state().object_announced = true;
    Ok(())
}

async fn announce(engine: &Inner, live: &Live, kind: IntentKind) -> Result<()> {
    let (epoch, now) = (live.epoch(), engine.clock.now());
    let intent = Intent {
        upload: live.id,
        kind,
        key: live.store_key(),
        store_upload_id: None,
        created_at: now,
    };
    engine
        .catalog
        .announce(intent, epoch)
        .await
        .map_err(|error| live.catalog_failed(error))
}

/// The upload's multipart upload, begun if there is none. What a crash left between announcing and naming one is removed first.
pub(super) async fn begin(
    engine: &Inner,
    live: &Live,
    parts: &dyn Parts,
    of: MadeOf,
) -> Result<StoreUploadId> {
    let _one_at_a_time = live.beginning.lock().await;
    if let Some(id) = live.store_upload_id() {
        return Ok(id);
    }
    if live.state().lost {
        return Err(EngineError::Displaced);
    }
    let intents = engine.catalog.intents(live.id).await?;
    let announced = (intents.iter()).any(|intent| intent.kind == IntentKind::Multipart);
    if intents.is_empty() && !live.state().snapshot.direct.is_empty() {
        stage(engine, live).await?;
    }
    // First of all, since it tells whether the upload is still ours.
    announce(engine, live, IntentKind::Multipart).await?;
    if announced {
        for stray in parts.multipart_of(&live.store_key()).await? {
            parts.abort(&live.store_key(), &stray.id).await?;
        }
    }
    let id = parts.begin(&live.store_key(), &about(live), of).await?;
    engine
        .catalog
        .name_multipart(live.id, live.epoch(), id.clone(), of == MadeOf::Unchecked)
        .await
        .map_err(|error| live.catalog_failed(error))?;
    let mut state = live.state();
    state.snapshot.upload.store_upload_id = Some(id.clone());
    state.snapshot.upload.unchecked = of == MadeOf::Unchecked;
    drop(state);
    Ok(id)
}

/// An upload that parts may come to past the server is brought together under a staged key, and has its own only when it is known
/// to be what was declared.
async fn stage(engine: &Inner, live: &Live) -> Result<()> {
    let key = StoreKey::staged(live.id);
    engine
        .catalog
        .stage(live.id, live.epoch(), key.clone())
        .await
        .map_err(|error| live.catalog_failed(error))?;
    live.state().snapshot.upload.store_key = key;
    Ok(())
}

/// What the upload's multipart upload is to be made of, if it is begun now. Parts that clients put come without a checksum,
/// and not every store takes them beside others.
pub(super) async fn to_be_made_of(engine: &Inner, live: &Live) -> Result<MadeOf> {
    let has_urls = !live.state().snapshot.direct.is_empty();
    match engine.store.direct() {
        Some(direct) if has_urls && !direct.mixes().await? => Ok(MadeOf::Unchecked),
        _ => Ok(MadeOf::Parts),
    }
}

impl Live {
    /// What the upload's multipart upload was begun to be made of.
    fn made_of(&self) -> MadeOf {
        if self.state().snapshot.upload.unchecked {
            MadeOf::Unchecked
        } else {
            MadeOf::Parts
        }
    }
}

/// What goes with the upload's object.
pub(super) fn about(live: &Live) -> About {
    About {
        upload: live.id,
        content_type: live.state().snapshot.upload.declared.content_type.clone(),
    }
}

/// A cell of the tail, as it is sent.
pub(super) async fn tail_payload(
    engine: &Arc<Inner>,
    live: &Live,
    cell: Cell,
) -> store::Result<Payload> {
    let (spool, id) = (Arc::clone(&engine.spool), live.id);
    let file = blocking(move || spool.existing_cell(id, cell.number)).await?;
    let range = ByteRange::new(0, cell.range.len()).ok_or(StoreError::NotFound)?;
    Ok(Payload::File { file, range })
}
