//! Connections that tell the lane they belong to what they speak, how many requests they take at a time, that the
//! vendor goes away from them, and that they are gone.
//!
//! Invariants: what passes is not changed, but for HTTP/2's GOAWAY ([`Requests`]). How many requests it takes is read
//! in a connection's first frame, which is the vendor's SETTINGS (RFC 9113 section 3.4); a later change is kept by the
//! HTTP library alone, which then lets requests wait. What is told comes from the other end and is only ever a number:
//! it cannot fail.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::Uri;
use hyper::http::Extensions;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tower::{Service, ServiceExt as _};

use super::BoxError;
use super::goaway::Requests;
use super::max_age::Until;
use crate::http::http2::{Head, LARGEST, SETTINGS};

/// Bytes that are read from an HTTP/2 connection at a time: a TLS record.
const AT_A_TIME: usize = 16 << 10;

/// Bytes of the library's buffer for HTTP/1.1 as it is at first.
const SMALL_BUFFER: usize = 8 << 10;

/// What each answer says of the connection it came by: one thing, since it is copied for each.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionInfo {
    /// What the connection is called.
    pub(super) number: u64,
    /// When it is too old, if it ever is.
    pub(super) until: Option<Until>,
}

/// Who wants to know.
pub(super) trait ConnectionObserver: Send + Sync + 'static {
    /// A connection is there. Its number is what it is called from now on.
    fn opened(&self, is_http_2: bool) -> u64;
    /// It takes so many requests at a time.
    fn takes(&self, connection: u64, streams: usize);
    /// One takes none any more; those that it was sent have their end on it.
    fn goes_away(&self);
    /// It is gone.
    fn closed(&self, connection: u64);
}

/// Makes connections as `C` does.
pub(super) struct ObservedConnector<C> {
    /// Shared: the HTTP library copies its connector for every request, and needs it for few.
    connector: Arc<C>,
    observer: Arc<dyn ConnectionObserver>,
}

/// A connection.
pub(super) struct ObservedStream<S> {
    stream: S,
    number: u64,
    observer: Arc<dyn ConnectionObserver>,
    /// What is known of it, if it speaks that.
    http_2: Option<Box<Http2>>,
    /// Of HTTP/1.1: a request was written, and nothing of the answer came yet.
    awaits_head: bool,
}

/// What an HTTP/2 connection has said.
struct Http2 {
    /// While it has not come whole.
    first: Option<First>,
    requests: Requests,
    bytes: [u8; AT_A_TIME],
}

impl<C> ObservedConnector<C> {
    pub(super) fn new(connector: C, observer: Arc<dyn ConnectionObserver>) -> Self {
        Self { connector: Arc::new(connector), observer }
    }
}

impl<C> Clone for ObservedConnector<C> {
    fn clone(&self) -> Self {
        Self { connector: self.connector.clone(), observer: self.observer.clone() }
    }
}

impl<C, S> Service<Uri> for ObservedConnector<C>
where
    C: Service<Uri, Response = S, Error = BoxError, Future: Send + 'static> + Clone + Send + 'static,
    S: Connection,
{
    type Response = ObservedStream<S>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<ObservedStream<S>, BoxError>> + Send>>;

    /// Each call makes its own ready.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let (connecting, observer) = (C::clone(&self.connector).oneshot(to), self.observer.clone());
        Box::pin(async move {
            let stream = connecting.await?;
            let is_http_2 = stream.connected().is_negotiated_h2();
            // Before the library has it, so that no frame is read of a connection that the lane does not know.
            let number = observer.opened(is_http_2);
            let http_2 = is_http_2.then(|| Box::new(Http2::new()));
            Ok(ObservedStream { stream, number, observer, http_2, awaits_head: false })
        })
    }
}

impl<S> Drop for ObservedStream<S> {
    fn drop(&mut self) {
        self.observer.closed(self.number);
    }
}

impl<S: Connection> Connection for ObservedStream<S> {
    fn connected(&self) -> Connected {
        let below = self.stream.connected();
        let mut said = Extensions::new();
        below.get_extras(&mut said);
        let info = ConnectionInfo { number: self.number, until: said.get().copied() };
        let connected = Connected::new().proxy(below.is_proxied()).extra(info);
        if below.is_negotiated_h2() { connected.negotiated_h2() } else { connected }
    }
}

impl Http2 {
    fn new() -> Self {
        Self { first: Some(First::default()), requests: Requests::new(), bytes: [0; AT_A_TIME] }
    }

    /// Reads until there is something for the library, or the end.
    fn poll_read(
        &mut self,
        stream: &mut (impl Read + Unpin),
        number: u64,
        observer: &dyn ConnectionObserver,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.requests.has_unread() {
            let mut part = ReadBuf::new(&mut self.bytes);
            ready!(Pin::new(&mut *stream).poll_read(cx, part.unfilled()))?;
            let came = part.filled();
            if came.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if let Some(streams) = self.first.as_mut().and_then(|first| first.streams(came)) {
                observer.takes(number, streams);
                self.first = None;
            }
            if self.requests.came(came) {
                observer.goes_away();
            }
        }
        let most = buf.remaining();
        buf.put_slice(self.requests.read(most));
        Poll::Ready(Ok(()))
    }
}

impl<S> ObservedStream<S> {
    /// These were written, as far as `written` says.
    fn wrote(&mut self, bufs: &[IoSlice<'_>], mut written: usize, cx: &Context<'_>) {
        let Some(http_2) = &mut self.http_2 else {
            self.awaits_head = true;
            return;
        };
        for buf in bufs {
            let part = buf.get(..written.min(buf.len())).unwrap_or_default();
            written -= part.len();
            if http_2.requests.sent(part) {
                // It was told that there is nothing to read.
                cx.waker().wake_by_ref();
            }
        }
    }
}

impl<S: Read + Unpin> ObservedStream<S> {
    /// The first byte of an answer, where the library's buffer is a small one; else all that came.
    ///
    /// The library has [`SMALL_BUFFER`] free at each read. What an answer holds of the buffer is not free before its
    /// end, and the next is waited for earlier: so a small one is made anew, and wiped, for each answer, one of twice
    /// the size for every twentieth or so. A buffer that has not as much free is doubled if it holds something: this
    /// byte.
    fn poll_head(&mut self, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() > SMALL_BUFFER {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        } else {
            let mut byte = [0];
            let mut first = ReadBuf::new(&mut byte);
            ready!(Pin::new(&mut self.stream).poll_read(cx, first.unfilled()))?;
            buf.put_slice(first.filled());
        }
        self.awaits_head = false;
        Poll::Ready(Ok(()))
    }
}

impl<S: Read + Unpin> Read for ObservedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match &mut this.http_2 {
            None if this.awaits_head => this.poll_head(cx, buf),
            None => Pin::new(&mut this.stream).poll_read(cx, buf),
            Some(http_2) => http_2.poll_read(&mut this.stream, this.number, &*this.observer, cx, buf),
        }
    }
}

impl<S: Write + Unpin> Write for ObservedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.wrote(&[IoSlice::new(buf)], written, cx);
        Poll::Ready(Ok(written))
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
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.wrote(bufs, written, cx);
        Poll::Ready(Ok(written))
    }
}

/// The first frame, as far as it has come.
#[derive(Default)]
struct First(Vec<u8>);

const MAX_CONCURRENT_STREAMS: u16 = 3;

impl First {
    /// How many requests the other end takes at a time, once it has said so. No word is no limit; so is what is no
    /// SETTINGS, with which the HTTP library ends the connection.
    fn streams(&mut self, more: &[u8]) -> Option<usize> {
        self.0.extend_from_slice(more);
        let (head, rest) = self.0.split_first_chunk()?;
        let Head { length, kind, .. } = Head::read(*head);
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
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Waker;

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Empty};
    use hyper::Request;
    use hyper::client::conn::{http1, http2};
    use hyper::rt::Executor;
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::upstream::pool::fault::Fault;

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

    type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

    /// What the library wants to have run, which runs when it is told to.
    #[derive(Clone, Default)]
    struct ByHand(Arc<Mutex<Vec<Work>>>);

    impl<F: Future<Output = ()> + Send + 'static> Executor<F> for ByHand {
        fn execute(&self, work: F) {
            self.0.lock().unwrap().push(Box::pin(work));
        }
    }

    impl ByHand {
        fn turn(&self) {
            let all = std::mem::take(&mut *self.0.lock().unwrap());
            let left = all.into_iter().filter_map(|mut work| poll(work.as_mut()).is_none().then_some(work));
            let left: Vec<_> = left.collect();
            self.0.lock().unwrap().extend(left);
        }
    }

    fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    #[derive(Default)]
    struct Gone(AtomicBool);

    impl ConnectionObserver for Gone {
        fn opened(&self, _: bool) -> u64 {
            1
        }
        fn takes(&self, _: u64, _: usize) {}
        fn goes_away(&self) {
            self.0.store(true, Ordering::SeqCst);
        }
        fn closed(&self, _: u64) {}
    }

    /// The library has taken the request and not begun to write it, or has just written it, when it reads the GOAWAY.
    /// One that is as many as the connection takes it would forget in that moment, whatever the vendor says of it.
    #[tokio::test]
    async fn a_request_that_is_being_sent_when_the_vendor_goes_away_has_its_own_end() {
        let goaway = |last: u32| frame(7, &[last.to_be_bytes(), [0; 4]].concat());
        for is_written in [false, true] {
            for is_processed in [false, true] {
                let (near, mut far) = tokio::io::duplex(1 << 16);
                let (observer, by_hand) = (Arc::new(Gone::default()), ByHand::default());
                let http_2 = Some(Box::new(Http2::new()));
                let stream = TokioIo::new(near);
                let stream =
                    ObservedStream { stream, number: 1, observer: observer.clone(), http_2, awaits_head: false };
                let builder = http2::Builder::new(by_hand.clone());
                let (mut sender, dispatch) = builder.handshake::<_, Empty<Bytes>>(stream).await.unwrap();
                let mut dispatch = std::pin::pin!(dispatch);
                far.write_all(&frame(SETTINGS, &[0, 3, 0, 0, 0, 1])).await.unwrap();
                by_hand.turn();
                assert!(poll(dispatch.as_mut()).is_none());
                let mut answer = std::pin::pin!(sender.send_request(Request::new(Empty::new())));
                assert!(poll(answer.as_mut()).is_none());
                assert!(poll(dispatch.as_mut()).is_none(), "it has taken the request");
                if is_written {
                    by_hand.turn();
                }
                far.write_all(&goaway(if is_processed { 1 } else { 0 })).await.unwrap();
                by_hand.turn();
                assert!(observer.0.load(Ordering::SeqCst));
                if is_processed {
                    // HEADERS of stream 1 that end it: 200.
                    far.write_all(&[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88]).await.unwrap();
                }
                let mut turns = 0..9;
                let answer = loop {
                    turns.next().expect("an end");
                    let _ = poll(dispatch.as_mut());
                    by_hand.turn();
                    if let Some(answer) = poll(answer.as_mut()) {
                        break answer;
                    }
                };
                let is_answered = answer.is_ok();
                let fault = answer.err().map(|error| Fault::read(error, false));
                assert_eq!(is_answered, is_processed, "{is_written}: {fault:?}");
                assert!(fault.is_none_or(|fault| matches!(fault, Fault::Unprocessed { .. })), "{is_written}");
            }
        }
    }

    #[tokio::test]
    async fn the_buffer_of_a_kept_connection_is_not_made_anew_for_each_answer() {
        const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok";
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let (stream, observer) = (TokioIo::new(near), Arc::new(Gone::default()));
        let stream = ObservedStream { stream, number: 1, observer, http_2: None, awaits_head: false };
        let (mut sender, dispatch) = http1::handshake::<_, Empty<Bytes>>(stream).await.unwrap();
        let mut dispatch = std::pin::pin!(dispatch);
        let (mut kept, mut last) = (0, None);
        for _ in 0..20 {
            let mut answer = std::pin::pin!(sender.send_request(Request::new(Empty::new())));
            assert!(poll(answer.as_mut()).is_none() && poll(dispatch.as_mut()).is_none());
            far.write_all(ANSWER).await.unwrap();
            assert!(poll(dispatch.as_mut()).is_none());
            let answer = poll(answer.as_mut()).unwrap().unwrap();
            // Its head is in use while the next is waited for.
            assert!(poll(dispatch.as_mut()).is_none());
            let place = answer.headers()["x-a"].as_bytes().as_ptr().addr();
            kept += usize::from(last == Some(place - ANSWER.len()));
            last = Some(place);
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
        }
        assert_eq!(kept, 19);
    }
}
