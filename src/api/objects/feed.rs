//! How a form's parser is fed.
//!
//! The parser takes all that its stream has, each time that it is asked for something, and keeps what it has no use for yet. So it
//! is given one frame, and only when it has said that what it has is not enough. Until the file has been found, everything
//! that a parser without enough has been given is beside the file: this is what makes the limit exact, however the form is
//! cut into frames, and it bounds what is kept to the limit and a frame.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;

use super::form::FormError;
use super::parse::MAX_FORM_BYTES;
use crate::engine::Body;

/// What decides what the parser is given. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Feed(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    gate: Gate,
    in_file: bool,
    given: u64,
    of_file: u64,
}

/// Whether the parser is given something when it looks, which it does more than once in one go.
#[derive(Debug, Default, PartialEq, Eq)]
enum Gate {
    /// It has to see first whether what it has is enough.
    #[default]
    Shut,
    /// It is given the next frame.
    Open,
    /// There was none yet; the body wakes the task.
    Waiting,
}

impl Feed {
    /// What the parser sees of a body.
    pub(super) fn of(&self, body: Body) -> Fed {
        Fed {
            body,
            feed: self.clone(),
            rest: Bytes::new(),
        }
    }

    /// Asks the parser for something, and feeds it until it answers.
    pub(super) async fn ask<T>(&self, mut parser: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        self.lock().gate = Gate::Shut;
        poll_fn(|cx| {
            let answer = parser(cx);
            if answer.is_pending() {
                let before = std::mem::replace(&mut self.lock().gate, Gate::Open);
                if before != Gate::Waiting {
                    cx.waker().wake_by_ref();
                }
            }
            answer
        })
        .await
    }

    /// The file has been found: what comes now is not limited here.
    pub(super) fn begin_file(&self) {
        self.lock().in_file = true;
    }

    /// Some of what was given was the file's.
    pub(super) fn count_file(&self, bytes: &Bytes) {
        self.lock().of_file += bytes.len() as u64;
    }

    /// The file's end has been found.
    pub(super) fn end_file(&self) {
        self.lock().in_file = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How much the parser may still be given.
    fn left(&self) -> usize {
        if self.in_file {
            return usize::MAX;
        }
        let left = (MAX_FORM_BYTES + self.of_file).saturating_sub(self.given);
        usize::try_from(left).unwrap_or(usize::MAX)
    }
}

/// The body as the parser gets it.
pub(super) struct Fed {
    body: Body,
    feed: Feed,
    /// What was too much of a frame.
    rest: Bytes,
}

impl Stream for Fed {
    type Item = Result<Bytes, FormError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { body, feed, rest } = self.get_mut();
        let mut state = feed.lock();
        if state.gate != Gate::Open {
            // Whoever asks the parser opens it.
            return Poll::Pending;
        }
        let left = state.left();
        if left == 0 {
            return Poll::Ready(Some(Err(FormError::TooMuch)));
        }
        if rest.is_empty() {
            state.gate = Gate::Waiting;
            match ready!(body.as_mut().poll_next(cx)) {
                Some(Ok(frame)) => *rest = frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(FormError::Body(error)))),
                None => return Poll::Ready(None),
            }
        }
        state.gate = Gate::Shut;
        let piece = rest.split_to(rest.len().min(left));
        state.given += piece.len() as u64;
        Poll::Ready(Some(Ok(piece)))
    }
}
