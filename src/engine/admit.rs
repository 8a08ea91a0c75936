//! Letting a write in: everything that can be checked before the first byte of its body.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::complete::agree_on_length;
use super::lease::Ask;
use super::live::{Change, Live, Opened, State};
use super::patience::Patience;
use super::status::status_of;
use super::write::Writer;
use super::{Body, Conflict, EngineError, Expected, Inner, Result, Status, Write, Written};
use crate::model::upload::{Role, Snapshot};
use crate::model::{
    ByteRange, Length, Object, Offset, Plan, Upload, UploadId, UploadKey, UploadState,
};
use crate::store::{Shape, StoreError};

/// How long what was found of the disk's room is believed: the writes themselves tell when it is full.
const ROOM_KNOWN_FOR: Duration = Duration::from_millis(100);

/// A write that was let in.
pub(super) enum Admitted {
    /// To an upload that takes bytes.
    Writer(Box<Writer>),
    /// Again to one that is completed: fine if the bytes are the same.
    Repeat {
        engine: Arc<Inner>,
        object: Box<Object>,
        start: Offset,
        end: Option<Offset>,
        written: Written,
    },
}

impl Expected {
    /// Whether anything is asked of the body.
    pub(super) fn asks(&self) -> bool {
        !matches!(self, Self::Known(digests) if digests.is_empty())
    }
}

impl Inner {
    pub(super) async fn admit(self: &Arc<Self>, write: Write) -> Result<Admitted> {
        loop {
            if let Some(admitted) = self.try_admit(&write).await? {
                return Ok(admitted);
            }
            tokio::task::yield_now().await;
        }
    }

    /// `None` if the upload ended, or changed hands, between finding it and working on it.
    async fn try_admit(self: &Arc<Self>, write: &Write) -> Result<Option<Admitted>> {
        let live = match self.open(write.id, &write.key).await? {
            Opened::Live(live) => live,
            Opened::Waiting(_) => return Err(EngineError::Unwritable),
            Opened::Ended(upload) => return self.admit_repeat(&upload, write).map(Some),
        };
        if live.role() == Role::Final || live.plan == Plan::Adopted {
            return Err(EngineError::Unwritable);
        }
        self.check_size(&live, write)?;
        self.check_room().await?;
        let open_end = write.length.map_or(self.open_end(&live), Length::get);
        let end = write.end.map_or(open_end, Offset::get);
        let ask = Ask {
            range: ByteRange::new(write.start.get(), end),
            append_at: write.append.then_some(write.start),
            max_parallel: self.settings.max_parallel_chunks,
        };
        let lease = match live.lease(ask).await {
            Err(EngineError::Displaced) if live.state().lost => return Ok(None),
            lease => lease?,
        };
        // Only a write that is let in changes anything. Its body may be empty, so that no other commit would follow.
        let news = write.length.is_some() && live.length().is_none();
        fix_length(&live, write.length)?;
        if news {
            live.commit(self, Change::default()).await?;
        }
        let writer = Writer::new(Arc::clone(self), live, lease, write.clone());
        Ok(Some(Admitted::Writer(Box::new(writer))))
    }

    /// Checks a range against the upload's length and the limits, and a length that the request tells.
    fn check_size(&self, live: &Live, write: &Write) -> Result<()> {
        let max = self.largest_for(live);
        let end = write.end.unwrap_or(write.start);
        if Length(end.get()) > max || write.length.is_some_and(|length| length > max) {
            return Err(EngineError::TooLarge { max });
        }
        let most = self.settings.max_checksummed_chunk_bytes;
        let bytes = end.get().saturating_sub(write.start.get());
        if write.digests.asks() && bytes > most {
            return Err(EngineError::TooLarge { max: Length(most) });
        }
        agree_on_length(live.length(), write.length)?;
        match live.length().or(write.length) {
            Some(length) if end.get() > length.get() => Err(EngineError::RangeMismatch {
                conflict: Conflict::Beyond,
                detail: format!(
                    "the range ends at byte {end}, beyond the upload's length of {length}"
                ),
                length: Some(length),
                expected_offset: Some(live.offset()),
            }),
            _ => check_length(&live.state(), write.length),
        }
    }

    /// Where a body of unknown length has to end.
    pub(super) fn open_end(&self, live: &Live) -> u64 {
        live.length()
            .unwrap_or_else(|| self.largest_for(live))
            .get()
    }

    /// Bodies are refused while the disk below has too little left.
    pub(super) async fn check_room(self: &Arc<Self>) -> Result<()> {
        let free = self.room().await?;
        if free < self.settings.min_free_bytes {
            let why = format!("{free} bytes are left on the disk, less than spool.min_free_bytes");
            return Err(StoreError::Full(why.into()).into());
        }
        Ok(())
    }

    /// How many bytes the disk below has left, or had a moment ago.
    async fn room(self: &Arc<Self>) -> Result<u64> {
        let known = *self.room.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, free)) = known
            && at.elapsed() < ROOM_KNOWN_FOR
        {
            return Ok(free);
        }
        let engine = Arc::clone(self);
        let spool_free = super::settle::blocking(move || engine.spool.free_bytes()).await?;
        let store_free = match self.store.shape() {
            Shape::InPlace(files) => files.free_bytes().await?,
            Shape::Parts(_) => u64::MAX,
        };
        let free = spool_free.min(store_free);
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), free));
        Ok(free)
    }

    fn admit_repeat(self: &Arc<Self>, upload: &Upload, write: &Write) -> Result<Admitted> {
        let object = match &upload.state {
            UploadState::Completed { object, .. } => object.clone(),
            UploadState::Failed { reason, .. } => {
                return Err(EngineError::Failed { reason: *reason });
            }
            _ => return Err(EngineError::Gone),
        };
        if upload.role == Role::Final {
            return Err(EngineError::Unwritable);
        }
        let size = Offset(object.size.get());
        if write.append && write.start != size {
            return Err(EngineError::OutOfOrder { expected: size });
        }
        agree_on_length(upload.length, write.length).map_err(|_| EngineError::Completed)?;
        if write.end.unwrap_or(write.start).get() > object.size.get() {
            return Err(EngineError::Completed);
        }
        let written = Written {
            offset: size,
            length: Some(object.size),
            expires_at: upload.expires_at,
        };
        Ok(Admitted::Repeat {
            engine: Arc::clone(self),
            object: Box::new(object),
            start: write.start,
            end: write.end,
            written,
        })
    }

    /// Reads a body that repeats bytes of a completed upload beside what is stored. It has to be as long as its range, as
    /// for any upload. One without an end may stop anywhere: what it brought is there, and more was not claimed.
    pub(super) async fn compare_repeat(
        &self,
        object: &Object,
        start: Offset,
        end: Option<Offset>,
        mut body: Body,
    ) -> Result<()> {
        let mut at = start.get();
        let reach = end.map_or(object.size.get(), Offset::get);
        let mut stored = match ByteRange::new(at, reach) {
            None => futures_util::stream::empty().boxed(),
            range => match self.store.read(&object.key, range).await {
                Err(StoreError::NotFound) => return Err(EngineError::Completed),
                stored => stored?,
            },
        };
        let offset = Offset(object.size.get());
        let mismatch = |conflict, detail: String| EngineError::RangeMismatch {
            conflict,
            detail,
            length: Some(object.size),
            expected_offset: Some(offset),
        };
        let mut expected = bytes::Bytes::new();
        let mut patience = Patience::new(self.settings.body_pace);
        loop {
            let since = Instant::now();
            let sent = tokio::time::timeout(patience.left(), body.next()).await;
            let bytes = match &sent {
                Ok(Some(Ok(bytes))) => bytes.len(),
                _ => 0,
            };
            let enough = patience.waited(since.elapsed(), bytes);
            let sent = match sent {
                Ok(sent) => enough.and(sent.transpose()),
                Err(_) => enough.and(Err(super::BodyError::Stalled(
                    self.settings.body_pace.stall,
                ))),
            };
            let Some(mut sent) =
                sent.map_err(|source| EngineError::BodyBroken { offset, source })?
            else {
                if end.is_some() && at < reach {
                    let detail = format!("the body ended at byte {at}, before its range did");
                    return Err(mismatch(Conflict::Short, detail));
                }
                return Ok(());
            };
            while !sent.is_empty() {
                if at == reach {
                    // Beyond the range it contradicts itself; beyond the object it is something else.
                    let detail = "the body has more bytes than its range".to_owned();
                    return Err(end.map_or(EngineError::Completed, |_| {
                        mismatch(Conflict::Beyond, detail)
                    }));
                }
                if expected.is_empty() {
                    expected = stored
                        .next()
                        .await
                        .transpose()?
                        .ok_or(EngineError::Completed)?;
                }
                let both = sent.len().min(expected.len());
                if sent.split_to(both) != expected.split_to(both) {
                    return Err(EngineError::Completed);
                }
                at += both as u64;
            }
        }
    }

    pub(super) async fn displace(
        self: &Arc<Self>,
        id: UploadId,
        key: &UploadKey,
        length: Option<Length>,
    ) -> Result<Written> {
        let live = match self.open(id, key).await? {
            Opened::Live(live) => live,
            Opened::Waiting(_) => return Err(EngineError::Unwritable),
            Opened::Ended(upload) => return answer_ended(&upload, length),
        };
        if length.is_some() && live.plan == Plan::Adopted {
            return Err(EngineError::Unwritable);
        }
        if length.is_some_and(|length| length > self.largest_for(&live)) {
            return Err(EngineError::TooLarge {
                max: self.largest_for(&live),
            });
        }
        let news = length.is_some() && live.length().is_none();
        fix_length(&live, length)?;
        live.displace_all().await?;
        if news {
            live.commit(self, Change::default()).await?;
        }
        Ok(Written {
            offset: live.offset(),
            length: live.length(),
            expires_at: live.expires_at(),
        })
    }

    pub(super) async fn halt(self: &Arc<Self>, id: UploadId, key: &UploadKey) -> Result<Status> {
        let snapshot = match self.open(id, key).await? {
            Opened::Live(live) => {
                live.find_unread().await;
                live.displace_all().await?;
                live.state().snapshot.clone()
            }
            Opened::Waiting(upload) | Opened::Ended(upload) => Snapshot::of_new(*upload),
        };
        status_of(snapshot, key)
    }
}

pub(super) fn answer_ended(upload: &Upload, length: Option<Length>) -> Result<Written> {
    match &upload.state {
        UploadState::Completed { object, .. } => {
            agree_on_length(upload.length, length)?;
            Ok(Written {
                offset: Offset(object.size.get()),
                length: Some(object.size),
                expires_at: upload.expires_at,
            })
        }
        UploadState::Failed { reason, .. } => Err(EngineError::Failed { reason: *reason }),
        _ => Err(EngineError::Gone),
    }
}

/// Fixes an upload's length in memory; it is committed with whatever comes next.
pub(super) fn fix_length(live: &Live, told: Option<Length>) -> Result<()> {
    let mut state = live.state();
    check_length(&state, told)?;
    if told.is_some() {
        state.snapshot.upload.length = told;
    }
    Ok(())
}

/// Whether a length that is told can be the upload's.
fn check_length(state: &State, told: Option<Length>) -> Result<()> {
    let Some(told) = told else { return Ok(()) };
    agree_on_length(state.snapshot.upload.length, Some(told))?;
    let there = state.reach();
    if told.get() < there {
        return Err(EngineError::RangeMismatch {
            conflict: Conflict::Lengths,
            detail: format!("the length {told} is less than the {there} bytes that are there"),
            length: None,
            expected_offset: Some(state.snapshot.received.contiguous()),
        });
    }
    Ok(())
}
