//! What carries events is handed over when the other end's system has acknowledged it, which the test says here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;

use tokio::io::ReadBuf;

use super::*;
use crate::kernel::testing::pass;

/// What the other end says by resetting the connection.
const RESET: u64 = u64::MAX - 1;

/// A connection whose other end acknowledges as many bytes as it is told to.
struct Far {
    stream: DuplexStream,
    written: u64,
    acknowledged: Arc<AtomicU64>,
    /// The most that a read had room for.
    room: Arc<AtomicU64>,
}

impl Arrives for Far {
    fn written(&self) -> u64 {
        self.written
    }

    fn acknowledged(&self) -> Option<u64> {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        Some(if acknowledged == RESET { 0 } else { acknowledged.min(self.written) })
    }

    fn is_reset(&self) -> bool {
        self.acknowledged.load(Ordering::SeqCst) == RESET
    }

    fn be_sparing(&self) {}
    fn give_up(&self) {}
}

impl AsyncRead for Far {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        self.room.fetch_max(buf.remaining() as u64, Ordering::SeqCst);
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Far {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let said = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(taken)) = &said {
            self.written += *taken as u64;
        }
        said
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A caller; how its answers end; how many bytes its system has acknowledged.
fn far() -> (DuplexStream, mpsc::UnboundedReceiver<How>, Arc<AtomicU64>, Tasks) {
    let (near, stream) = duplex(1 << 20);
    let (tell, told) = mpsc::unbounded_channel();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let far = Far { stream, written: 0, acknowledged: Arc::clone(&acknowledged), room: Arc::default() };
    (near, told, acknowledged, serving(far, tell))
}

fn serving(far: Far, tell: mpsc::UnboundedSender<How>) -> Tasks {
    let tasks = Tasks::new();
    let conn = Arc::new(Conn::new(Peer::Unix { uid: None }, None));
    tasks.spawn(Kind::Connection, serve(far, conn, telling(tell), limits(), tasks.stopping()));
    tasks
}

#[tokio::test(start_paused = true)]
async fn the_buffer_that_requests_are_read_into_stays_as_small_as_it_begins() {
    let (mut caller, stream) = duplex(1 << 20);
    let room = Arc::new(AtomicU64::new(0));
    let (tell, _told) = mpsc::unbounded_channel();
    let far = Far { stream, written: 0, acknowledged: Arc::default(), room: Arc::clone(&room) };
    let _tasks = serving(far, tell);
    for _ in 0..3 {
        caller.write_all(GET).await.unwrap();
        read_some(&mut caller, RESPONSE).await;
        pass(Duration::from_millis(1)).await;
    }
    assert_eq!(room.load(Ordering::SeqCst), 8192, "of hyper's own, which each idle connection keeps");
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_handed_over_when_all_of_it_is_acknowledged_and_not_before() {
    let (mut caller, mut told, acknowledged, _tasks) = far();
    caller.write_all(GET).await.unwrap();
    read_some(&mut caller, RESPONSE).await;
    acknowledged.store(RESPONSE as u64, Ordering::SeqCst);
    pass(Duration::from_secs(5)).await;
    assert!(told.try_recv().is_err(), "the head has bytes, too");
    acknowledged.store(u64::MAX, Ordering::SeqCst);
    let began = Instant::now();
    assert_eq!(told.recv().await, Some(How::HandedOver));
    assert!(began.elapsed() <= Duration::from_millis(250), "{:?}", began.elapsed());
    // Who asks again makes us look.
    acknowledged.store(0, Ordering::SeqCst);
    caller.write_all(GET).await.unwrap();
    read_some(&mut caller, RESPONSE).await;
    acknowledged.store(u64::MAX, Ordering::SeqCst);
    let began = Instant::now();
    caller.write_all(GET).await.unwrap();
    assert_eq!((told.recv().await, began.elapsed()), (Some(How::HandedOver), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn who_acknowledges_nothing_is_cut_when_patience_is_over_and_who_is_slow_is_not() {
    let (mut caller, mut told, acknowledged, _tasks) = far();
    caller.write_all(GET).await.unwrap();
    let began = Instant::now();
    // The system of ours took all of it at once.
    assert_eq!(told.recv().await, Some(How::Cut));
    let after = began.elapsed();
    assert!((WRITE_TIMEOUT..WRITE_TIMEOUT + Duration::from_secs(1)).contains(&after), "{after:?}");
    drop((caller, acknowledged));

    let (mut caller, mut told, acknowledged, _tasks) = far();
    caller.write_all(GET).await.unwrap();
    let began = Instant::now();
    while told.try_recv() != Ok(How::HandedOver) {
        assert!(began.elapsed() < 2 * WRITE_TIMEOUT);
        pass(Duration::from_secs(4)).await;
        acknowledged.fetch_add(4 << 10, Ordering::SeqCst);
        pass(Duration::from_millis(300)).await;
    }
    assert!(began.elapsed() > WRITE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn of_a_caller_that_leaves_what_was_acknowledged_is_handed_over_and_the_rest_is_not() {
    let (mut caller, mut told, acknowledged, _tasks) = far();
    for _ in 0..2 {
        caller.write_all(GET).await.unwrap();
        // The rest, less than the head has, is there as well.
        read_some(&mut caller, RESPONSE).await;
        pass(Duration::from_millis(1)).await;
    }
    acknowledged.store(RESPONSE as u64 + 1000, Ordering::SeqCst);
    drop(caller);
    assert_eq!((told.recv().await, told.recv().await), (Some(How::HandedOver), Some(How::Cut)));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_closes_waits_a_moment_for_the_acknowledgement() {
    const LAST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let all = u64::MAX;
    for (after, says, how) in [(300, all, How::HandedOver), (1500, all, How::Cut), (300, RESET, How::Cut)] {
        let (mut caller, mut told, acknowledged, tasks) = far();
        caller.write_all(LAST).await.unwrap();
        let began = Instant::now();
        tasks.spawn(Kind::Linger, async move {
            pass(Duration::from_millis(after)).await;
            acknowledged.store(says, Ordering::SeqCst);
        });
        // Our end is closed when it has come, or will not come, or not in time.
        caller.read_to_end(&mut Vec::new()).await.unwrap();
        let closed = began.elapsed().as_millis();
        let at_most = if says == RESET { 2 * u128::from(after) } else { 1010 };
        assert!((u128::from(after).min(1000)..=at_most).contains(&closed), "{closed}");
        assert_eq!((told.recv().await, began.elapsed().as_millis()), (Some(how), closed));
    }
}
