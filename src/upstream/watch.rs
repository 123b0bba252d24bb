//! Connections that tell the lane they belong to what they speak, how many requests they take at a time, and that they
//! are gone.
//!
//! Invariants: what passes is not changed. Only a connection's first frame is read, which is the vendor's SETTINGS (RFC
//! 9113 section 3.4); a later change is kept by the HTTP library alone, which then lets requests wait. What is told comes
//! from the other end and is only ever a number: it cannot fail.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::Uri;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tower::Service;

use super::BoxError;

/// What a connection is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number(pub(super) u64);

/// Who wants to know.
pub(super) trait Told: Send + Sync + 'static {
    /// A connection is there. Its number is what it is called from now on.
    fn opened(&self, is_http_2: bool) -> u64;
    /// It takes so many requests at a time.
    fn takes(&self, connection: u64, streams: usize);
    /// It is gone.
    fn closed(&self, connection: u64);
}

/// Makes connections as `C` does.
#[derive(Clone)]
pub(super) struct Watching<C> {
    connector: C,
    told: Arc<dyn Told>,
}

/// A connection.
pub(super) struct Watched<S> {
    stream: S,
    number: u64,
    told: Arc<dyn Told>,
    /// While it has not come whole.
    first: Option<First>,
}

impl<C> Watching<C> {
    pub(super) fn new(connector: C, told: Arc<dyn Told>) -> Self {
        Self { connector, told }
    }
}

impl<C, S> Service<Uri> for Watching<C>
where
    C: Service<Uri, Response = S, Error = BoxError, Future: Send + 'static>,
    S: Connection,
{
    type Response = Watched<S>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Watched<S>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let (connecting, told) = (self.connector.call(to), self.told.clone());
        Box::pin(async move {
            let stream = connecting.await?;
            let is_http_2 = stream.connected().is_negotiated_h2();
            let number = told.opened(is_http_2);
            Ok(Watched { stream, number, told, first: is_http_2.then(First::default) })
        })
    }
}

impl<S> Drop for Watched<S> {
    fn drop(&mut self) {
        self.told.closed(self.number);
    }
}

impl<S: Connection> Connection for Watched<S> {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(Number(self.number))
    }
}

impl<S: Read + Unpin> Read for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(first) = &mut this.first else { return Pin::new(&mut this.stream).poll_read(cx, buf) };
        let mut bytes = [0; 512];
        let room = buf.remaining().min(bytes.len());
        let mut part = ReadBuf::new(bytes.get_mut(..room).unwrap_or_default());
        ready!(Pin::new(&mut this.stream).poll_read(cx, part.unfilled()))?;
        buf.put_slice(part.filled());
        if let Some(streams) = first.streams(part.filled()) {
            this.told.takes(this.number, streams);
            this.first = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Write + Unpin> Write for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

/// The first frame, as far as it has come.
#[derive(Default)]
struct First(Vec<u8>);

/// A frame's head: length, kind, flags, stream.
const HEAD: usize = 9;
/// No frame is larger before our own SETTINGS say so (RFC 9113 section 4.2).
const LARGEST: usize = 16 << 10;
const SETTINGS: u8 = 4;
const MAX_CONCURRENT_STREAMS: u16 = 3;

impl First {
    /// How many requests the other end takes at a time, once it has said so. No word is no limit; so is what is no
    /// SETTINGS, with which the HTTP library ends the connection.
    fn streams(&mut self, more: &[u8]) -> Option<usize> {
        self.0.extend_from_slice(more);
        let (head, rest) = self.0.split_at_checked(HEAD)?;
        let &[high, middle, low, kind, ..] = head else { return None };
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if kind != SETTINGS || length > LARGEST {
            return Some(usize::MAX);
        }
        let settings = rest.get(..length)?.as_chunks::<6>().0;
        // The last of one kind counts.
        let limit = settings.iter().rev().find(|&&[a, b, ..]| u16::from_be_bytes([a, b]) == MAX_CONCURRENT_STREAMS);
        let Some(&[_, _, value @ ..]) = limit else { return Some(usize::MAX) };
        Some(usize::try_from(u32::from_be_bytes(value)).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, 0, 0, 0, 0, 0], payload].concat()
    }

    #[test]
    fn the_limit_is_read_however_the_frame_is_cut_and_no_word_is_no_limit() {
        let setting = |id: u8, value: u8| vec![0, id, 0, 0, 0, value];
        for (bytes, streams) in [
            (frame(SETTINGS, &setting(3, 7)), 7),
            (frame(SETTINGS, &[setting(4, 9), setting(3, 7), setting(1, 1)].concat()), 7),
            (frame(SETTINGS, &[setting(3, 9), setting(3, 0)].concat()), 0),
            (frame(SETTINGS, &[]), usize::MAX),
            (frame(SETTINGS, &setting(4, 9)), usize::MAX),
            (frame(SETTINGS, &[0, 3, 0]), usize::MAX),
            (frame(0, &setting(3, 7)), usize::MAX),
            (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), usize::MAX),
        ] {
            assert_eq!(First::default().streams(&[&bytes[..], b"what follows"].concat()), Some(streams), "{bytes:?}");
            let mut first = First::default();
            let said: Vec<_> = bytes.iter().filter_map(|byte| first.streams(&[*byte])).collect();
            assert_eq!(said.first(), Some(&streams), "{bytes:?}");
        }
    }
}
