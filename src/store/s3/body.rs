//! A payload as the body of a request: walked, not copied, and walked again when the request is repeated.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use futures_util::Stream as _;
use http_body::{Body, Frame, SizeHint};

use crate::store::{Payload, StoreError};

/// The payload as a body that the SDK can send more than once.
pub(super) fn of(payload: &Payload) -> ByteStream {
    let payload = payload.clone();
    ByteStream::new(SdkBody::retryable(move || {
        SdkBody::from_body_1_x(PayloadBody::over(&payload))
    }))
}

struct PayloadBody {
    source: Source,
    remaining: u64,
}

enum Source {
    Memory {
        frames: Arc<[Bytes]>,
        next: usize,
    },
    /// Locked by nobody: the SDK wants a body that is `Sync`, which a boxed stream is not.
    Stream(Mutex<crate::store::ByteStream>),
}

impl PayloadBody {
    fn over(payload: &Payload) -> Self {
        let source = match payload {
            Payload::Memory(frames) => Source::Memory {
                frames: Arc::clone(frames),
                next: 0,
            },
            Payload::File { .. } | Payload::Objects { .. } => {
                Source::Stream(Mutex::new(payload.stream()))
            }
        };
        Self {
            source,
            remaining: payload.len(),
        }
    }
}

impl Body for PayloadBody {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        let this = &mut *self;
        let next = match &mut this.source {
            Source::Memory { frames, next } => {
                // An empty frame would end the body early.
                while frames.get(*next).is_some_and(Bytes::is_empty) {
                    *next += 1;
                }
                let frame = frames.get(*next).cloned();
                *next += 1;
                Poll::Ready(frame.map(Ok))
            }
            Source::Stream(stream) => {
                Pin::new(stream.get_mut().unwrap_or_else(PoisonError::into_inner))
                    .poll_next(context)
            }
        };
        if let Poll::Ready(Some(Ok(bytes))) = &next {
            this.remaining = this.remaining.saturating_sub(bytes.len() as u64);
        }
        next.map(|next| next.map(|frame| frame.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_walked_again_from_the_start_and_not_copied() {
        let frames: Arc<[Bytes]> = Arc::new([
            Bytes::from_static(b"one"),
            Bytes::new(),
            Bytes::from_static(b"two"),
        ]);
        let body = of(&Payload::Memory(Arc::clone(&frames))).into_inner();
        assert_eq!(body.content_length(), Some(6));
        for _ in 0..2 {
            let again = body.try_clone().expect("it can be repeated");
            let mut stream = ByteStream::new(again);
            let first = stream.next().await.unwrap().unwrap();
            assert_eq!(first.as_ptr(), frames[0].as_ptr());
            assert_eq!(stream.collect().await.unwrap().to_vec(), b"two");
        }
    }
}
