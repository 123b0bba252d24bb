mod arriving;
mod early;

use super::*;
use crate::http::body::Frames;
use crate::http::body::handover::{Delivered, Ending};
use crate::kernel::clock::Clock;
use crate::kernel::conn::places::Door;
use crate::kernel::conn::{AcceptPauses, Peer};
use crate::kernel::task::{Kind, Tasks};
use crate::kernel::testing::pass;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Bytes of a response: one frame, taken whole by the HTTP machinery long before it is written.
const RESPONSE: usize = 50_000;
/// Bytes the "socket" holds.
const SOCKET: usize = 1000;

/// How long a caller may take nothing.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection is kept without a request.
const IDLE: Duration = Duration::from_secs(120);

fn limits() -> Limits {
    Limits {
        door: Door::alone(1),
        header_read_timeout: Duration::from_secs(1),
        idle_timeout: IDLE,
        write_timeout: WRITE_TIMEOUT,
        connections: Gauge::default(),
        pauses: AcceptPauses::uncounted(Clock::system()),
    }
}

/// How a response ended.
#[derive(Debug, PartialEq, Eq)]
enum How {
    HandedOver,
    Cut,
}

#[derive(Debug)]
struct Tell(mpsc::UnboundedSender<How>, How);

impl Ending for Tell {
    fn is_awaited(&self) -> bool {
        true
    }

    fn flushed(self: Box<Self>) -> Option<Box<dyn Delivered>> {
        Some(self)
    }
}

impl Delivered for Tell {
    fn acknowledged(mut self: Box<Self>) {
        self.1 = How::HandedOver;
    }
}

/// What is written is at the other end.
impl Arrives for DuplexStream {
    fn written(&self) -> u64 {
        0
    }

    fn acknowledged(&self) -> Option<u64> {
        None
    }

    fn is_reset(&self) -> bool {
        false
    }

    fn be_sparing(&self) {}
    fn give_up(&self) {}
}

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = self.0.send(std::mem::replace(&mut self.1, How::Cut));
    }
}

/// A served connection's other end, and how its responses end.
fn connect(socket: usize) -> (DuplexStream, mpsc::UnboundedReceiver<How>, Tasks) {
    let (near, far) = duplex(socket);
    let (tell, told) = mpsc::unbounded_channel();
    let conn = Arc::new(Conn::new(Peer::Unix { uid: None }, None));
    let limits = limits();
    let tasks = Tasks::new();
    tasks.spawn(Kind::Connection, serve(far, conn, telling(tell), limits, tasks.stopping()));
    (near, told, tasks)
}

/// Answers with [`RESPONSE`] bytes, and tells how each answer ended.
fn telling(
    tell: mpsc::UnboundedSender<How>,
) -> impl Fn(Arc<Conn>, Request<Inbound>) -> std::future::Ready<Response<Body>> + Send + Sync + 'static {
    move |_, _| {
        let mut frames = Frames::default();
        frames.share(Bytes::from(vec![b'x'; RESPONSE]));
        let mut body = frames.into_body();
        body.on_end(Box::new(Tell(tell.clone(), How::Cut)));
        std::future::ready(Response::new(body))
    }
}

async fn read_some(stream: &mut DuplexStream, bytes: usize) {
    let mut some = vec![0; bytes];
    stream.read_exact(&mut some).await.unwrap();
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_response_is_handed_over_when_its_last_byte_was_written_and_not_before() {
    let (mut caller, mut told, _tasks) = connect(SOCKET);
    caller.write_all(GET).await.unwrap();
    // All but what the socket still holds, and the last of what it does not.
    read_some(&mut caller, RESPONSE - SOCKET).await;
    pass(Duration::from_millis(1)).await;
    assert!(told.try_recv().is_err());
    read_some(&mut caller, SOCKET).await;
    assert_eq!(told.recv().await, Some(How::HandedOver));
}

#[tokio::test]
async fn the_buffer_of_a_busy_connection_is_not_made_anew_for_each_request() {
    let ((mut caller, far), (tell, mut places)) = (duplex(SOCKET), mpsc::unbounded_channel());
    let conn = Arc::new(Conn::new(Peer::Unix { uid: None }, None));
    let handler = move |_, request: Request<Inbound>| {
        tell.send(request.headers()["host"].as_bytes().as_ptr().addr()).unwrap();
        async move {
            // Its head is in use until here.
            drop(request);
            Response::new(Body::from(Bytes::from_static(b"ok")))
        }
    };
    let tasks = Tasks::new();
    tasks.spawn(Kind::Connection, serve(far, conn, handler, limits(), tasks.stopping()));
    let (mut kept, mut last) = (0, None);
    for _ in 0..40 {
        caller.write_all(GET).await.unwrap();
        let place = places.recv().await.unwrap();
        kept += usize::from(last == Some(place - GET.len()));
        last = Some(place);
        let mut answer = [0; SOCKET];
        let mut read = 0;
        while !answer[..read].ends_with(b"\r\n\r\nok") {
            read += caller.read(&mut answer[read..]).await.unwrap();
        }
    }
    assert!(kept >= 30, "{kept}");
}

#[tokio::test]
async fn one_header_more_than_are_taken_is_refused() {
    for (headers, status) in [(MAX_HEADERS, "200"), (MAX_HEADERS + 1, "431")] {
        let (mut caller, _told, _tasks) = connect(1 << 20);
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(headers - 1));
        caller.write_all(head.as_bytes()).await.unwrap();
        let mut line = [0; 12];
        caller.read_exact(&mut line).await.unwrap();
        assert_eq!(&line[9..], status.as_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_before_the_last_byte_was_written_cuts_it() {
    let (mut caller, mut told, _tasks) = connect(SOCKET);
    caller.write_all(GET).await.unwrap();
    read_some(&mut caller, RESPONSE - SOCKET).await;
    drop(caller);
    assert_eq!(told.recv().await, Some(How::Cut));
}

#[tokio::test(start_paused = true)]
async fn over_http2_a_response_beyond_the_callers_window_is_not_handed_over() {
    let (caller, mut told, tasks) = connect(1 << 20);
    let (mut sender, connection) = http2::Builder::new(hyper_util::rt::TokioExecutor::new())
        .initial_stream_window_size(u32::try_from(RESPONSE).unwrap() - 10)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(caller))
        .await
        .unwrap();
    tasks.spawn(Kind::Linger, async { drop(connection.await) });
    let mut ask = || sender.send_request(Request::get("http://a/").body(Empty::new()).unwrap());

    let unread = ask().await.unwrap();
    pass(Duration::from_secs(1)).await;
    assert!(told.try_recv().is_err(), "ten bytes have no room at the caller");
    drop(unread);
    assert_eq!(told.recv().await, Some(How::Cut));

    let mut body = ask().await.unwrap().into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(read, RESPONSE);
    assert_eq!(told.recv().await, Some(How::HandedOver));
}

#[tokio::test(start_paused = true)]
async fn many_streams_of_one_connection_end_each_by_itself() {
    let (caller, mut told, tasks) = connect(SOCKET);
    let (sender, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(hyper_util::rt::TokioExecutor::new(), TokioIo::new(caller))
            .await
            .unwrap();
    tasks.spawn(Kind::Linger, async { drop(connection.await) });
    let asked = (0..50).map(|n| {
        let mut sender = sender.clone();
        async move {
            let answer = sender.send_request(Request::get("http://a/").body(Empty::new()).unwrap()).await.unwrap();
            let mut body = answer.into_body();
            // Every fifth leaves early.
            while let Some(frame) = body.frame().await {
                frame.unwrap();
                if n % 5 == 0 {
                    break;
                }
            }
        }
    });
    futures_util::future::join_all(asked).await;
    let mut handed_over = 0;
    for _ in 0..50 {
        handed_over += usize::from(told.recv().await == Some(How::HandedOver));
    }
    // A response may have been on its way whole before its reader left.
    assert!((40..=50).contains(&handed_over), "{handed_over}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_ends_in_time_also_after_half_a_preface() {
    for beginning in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
        let (mut caller, _told, _tasks) = connect(SOCKET);
        caller.write_all(beginning).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), caller.read_to_end(&mut rest)).await;
        assert_eq!((ended.unwrap().unwrap(), rest.len()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_a_handler_ends_answers_what_is_in_hand_and_takes_no_more() {
    let handler = |conn: Arc<Conn>, _: Request<Inbound>| async move {
        conn.end_soon();
        Response::new(Body::from(Bytes::from_static(b"last")))
    };
    let start = || {
        let (near, far) = duplex(1 << 16);
        let conn = Arc::new(Conn::new(Peer::Unix { uid: None }, None));
        let tasks = Tasks::new();
        let limits = limits();
        tasks.spawn(Kind::Connection, serve(far, conn, handler, limits, tasks.stopping()));
        (near, tasks)
    };
    let (mut caller, _tasks) = start();
    caller.write_all(&[GET, GET].concat()).await.unwrap();
    let mut answers = String::new();
    caller.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("last").count(), 1, "{answers}");
    assert!(answers.to_ascii_lowercase().contains("connection: close"), "{answers}");

    let (caller, tasks) = start();
    let (mut sender, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(hyper_util::rt::TokioExecutor::new(), TokioIo::new(caller))
            .await
            .unwrap();
    let ended = tokio::join!(connection, async {
        let answer = sender.send_request(Request::get("http://a/").body(Empty::new()).unwrap()).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "last");
    });
    assert!(ended.0.is_ok());
    drop(tasks);
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_without_requests_is_ended_after_a_while() {
    let (caller, _told, tasks) = connect(1 << 20);
    let (mut sender, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(hyper_util::rt::TokioExecutor::new(), TokioIo::new(caller))
            .await
            .unwrap();
    let (tell, ended) = tokio::sync::oneshot::channel();
    tasks.spawn(Kind::Linger, async move {
        let _ = tell.send(connection.await.is_ok());
    });
    let began = Instant::now();
    for _ in 0..3 {
        let answer = sender.send_request(Request::get("http://a/").body(Empty::new()).unwrap()).await.unwrap();
        answer.into_body().collect().await.unwrap();
        pass(IDLE - Duration::from_secs(1)).await;
    }
    assert!(sender.is_ready(), "each request begins the time anew");
    assert_eq!(ended.await, Ok(true), "by GOAWAY");
    assert!(began.elapsed() < 3 * IDLE + Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_whose_peer_answers_nothing_is_cut_also_in_the_middle_of_a_head() {
    let (mut caller, _told, _tasks) = connect(1 << 20);
    caller.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let began = Instant::now();
    let mut all = Vec::new();
    // A head that never ends makes no request.
    caller.write_all(b"\0\0\x01\x01\0\0\0\0\x01\x82").await.unwrap();
    let _ = caller.read_to_end(&mut all).await;
    assert!(began.elapsed() < IDLE + Duration::from_secs(30), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_takes_nothing_of_its_answer_is_cut_when_patience_is_over() {
    let (mut caller, mut told, _tasks) = connect(SOCKET);
    caller.write_all(GET).await.unwrap();
    let began = Instant::now();
    assert_eq!(told.recv().await, Some(How::Cut));
    assert_eq!(began.elapsed().as_secs(), WRITE_TIMEOUT.as_secs());
    // A slow one is not, as long as it goes on.
    let (mut caller, mut told, _tasks) = connect(SOCKET);
    caller.write_all(GET).await.unwrap();
    let began = Instant::now();
    for _ in 0..RESPONSE / SOCKET {
        pass(Duration::from_millis(900)).await;
        read_some(&mut caller, SOCKET).await;
    }
    read_some(&mut caller, 50).await;
    assert_eq!(told.recv().await, Some(How::HandedOver));
    assert!(began.elapsed() > WRITE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn over_http2_a_stream_that_takes_nothing_is_reset_and_the_connection_stays() {
    let (caller, mut told, tasks) = connect(1 << 20);
    let (mut sender, connection) = http2::Builder::new(hyper_util::rt::TokioExecutor::new())
        .initial_stream_window_size(1000)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(caller))
        .await
        .unwrap();
    tasks.spawn(Kind::Linger, async { drop(connection.await) });
    let mut ask = || sender.send_request(Request::get("http://a/").body(Empty::new()).unwrap());
    let began = Instant::now();
    let unread = ask().await.unwrap();
    assert_eq!(told.recv().await, Some(How::Cut));
    assert_eq!(began.elapsed().as_secs(), WRITE_TIMEOUT.as_secs());
    assert!(unread.into_body().collect().await.is_err());
    let read = ask().await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(read.len(), RESPONSE);
    assert_eq!(told.recv().await, Some(How::HandedOver));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_keeps_the_end_waiting_no_longer_than_its_time() {
    let time = Duration::from_secs(30);
    let (tell, mut told) = mpsc::unbounded_channel();
    let handler = move |_: Arc<Conn>, request: Request<Inbound>| {
        let tell = tell.clone();
        async move {
            tell.send(crate::http::body::read_up_to(request.into_body(), 1000, time, |_| true).await).unwrap();
            Response::new(Body::default())
        }
    };
    let (mut caller, far) = duplex(1 << 16);
    let limits = limits();
    let tasks = Tasks::new();
    let conn = Arc::new(Conn::new(Peer::Unix { uid: None }, None));
    tasks.spawn(Kind::Connection, serve(far, conn, handler, limits, tasks.stopping()));
    caller.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    let began = Instant::now();
    let read = loop {
        match tokio::time::timeout(Duration::from_secs(1), told.recv()).await {
            Ok(read) => break read.unwrap(),
            Err(_) => caller.write_all(b"1\r\nx\r\n").await.unwrap(),
        }
    };
    assert_eq!((read, began.elapsed()), (Err(crate::http::body::Unread::TooSlow), time));
}

/// Answers in few words, as an admitted request of `a`, unless the path is `/stranger`. `/slow` is ten seconds in hand,
/// `/late` is a moment under way before it is admitted.
async fn greet(conn: Arc<Conn>, request: Request<Inbound>) -> Response<Body> {
    let path = request.uri().path();
    if path == "/late" {
        pass(Duration::from_millis(100)).await;
    }
    if path != "/stranger" {
        let occupied = conn.occupy("a");
        if path == "/slow" {
            pass(Duration::from_secs(10)).await;
        }
        drop(occupied);
    }
    Response::new(Body::from(Bytes::from_static(b"hello")))
}

/// A connection with a place behind this door.
async fn place(door: &Door, tasks: &Tasks) -> DuplexStream {
    let (near, far) = duplex(1 << 16);
    let place = door.enter().await;
    let conn = Arc::new(Conn::new(Peer::Unix { uid: None }, None).seated(place.seat()));
    let serving = serve(far, conn, greet, limits(), tasks.stopping());
    tasks.spawn(Kind::Connection, async move {
        serving.await;
        drop(place);
    });
    near
}

async fn ask(caller: &mut DuplexStream, path: &str) {
    caller.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with("hello") {
        answer.push(char::from(caller.read_u8().await.unwrap()));
    }
}

/// How long until it is closed, with nothing more said.
async fn closes_after(caller: &mut DuplexStream) -> Duration {
    let began = Instant::now();
    assert_eq!(caller.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn an_http1_connection_is_kept_without_a_request_but_not_with_half_a_one() {
    let (door, tasks) = (Door::alone(10), Tasks::new());
    let head_time = limits().header_read_timeout;
    let mut caller = place(&door, &tasks).await;
    for _ in 0..3 {
        ask(&mut caller, "/").await;
        pass(IDLE - Duration::from_millis(10)).await;
    }
    ask(&mut caller, "/").await;
    assert_eq!(closes_after(&mut caller).await, IDLE);
    // Also who was never admitted: that costs it its place where one is needed.
    let mut stranger = place(&door, &tasks).await;
    ask(&mut stranger, "/stranger").await;
    assert_eq!(closes_after(&mut stranger).await, IDLE);

    let mut slow = place(&door, &tasks).await;
    ask(&mut slow, "/").await;
    pass(IDLE / 2).await;
    slow.write_all(b"GET / HT").await.unwrap();
    // The wait for the rest begins with the first byte, and no byte after it begins it anew.
    pass(head_time / 2).await;
    slow.write_all(b"TP/1.1").await.unwrap();
    assert_eq!(closes_after(&mut slow).await, head_time / 2);
    // Sent ahead, it waits for its turn, and has its time after the answer.
    let mut ahead = place(&door, &tasks).await;
    ahead.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT").await.unwrap();
    pass(head_time / 2).await;
    let began = Instant::now();
    let mut answer = String::new();
    ahead.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("hello") && began.elapsed() == head_time / 2, "{answer}");
}

#[tokio::test(start_paused = true)]
async fn whose_place_is_needed_goes_at_once_and_a_known_http2_caller_hears_it_in_time() {
    let (door, tasks) = (Door::alone(1), Tasks::new());
    for says in ["", "GET / HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0"] {
        let mut stranger = place(&door, &tasks).await;
        stranger.write_all(says.as_bytes()).await.unwrap();
        pass(Duration::from_millis(1)).await;
        let mut known = place(&door, &tasks).await;
        let began = Instant::now();
        let _ = stranger.read_to_end(&mut Vec::new()).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        ask(&mut known, "/").await;
        let next = place(&door, &tasks).await;
        assert_eq!(closes_after(&mut known).await, Duration::ZERO);
        drop(next);
        pass(Duration::from_millis(1)).await;
    }

    let caller = place(&door, &tasks).await;
    let (mut sender, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(hyper_util::rt::TokioExecutor::new(), TokioIo::new(caller))
            .await
            .unwrap();
    let (tell, ended) = tokio::sync::oneshot::channel();
    tasks.spawn(Kind::Linger, async move {
        let _ = tell.send(connection.await.is_ok());
    });
    let answer = sender.send_request(Request::get("http://a/").body(Empty::new()).unwrap()).await.unwrap();
    answer.into_body().collect().await.unwrap();
    let began = Instant::now();
    let _next = place(&door, &tasks).await;
    assert_eq!(ended.await, Ok(true), "by GOAWAY");
    assert!(began.elapsed() <= FAREWELL);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_admitted_requests_and_for_silent_callers_a_moment_only() {
    const HTTP2: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0";
    // Its window for answers shut, and GET / on stream 1.
    const SHUT: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\u{6}\u{4}\0\0\0\0\0\0\u{4}\0\0\0\0\
                        \0\0\u{16}\u{1}\u{5}\0\0\0\u{1}\u{2}\u{3}GET\u{4}\u{9}/stranger\u{6}\u{4}http";
    for says in ["", "GET / HT", HTTP2, SHUT, "POST /stranger HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n"] {
        let (door, tasks) = (Door::alone(10), Tasks::new());
        let mut stranger = place(&door, &tasks).await;
        stranger.write_all(says.as_bytes()).await.unwrap();
        pass(Duration::from_millis(300)).await;
        let began = Instant::now();
        assert_eq!(tasks.finish(Duration::from_secs(60)).await, 0, "{says:?}");
        assert!(began.elapsed() <= PARTING, "{says:?}: {:?}", began.elapsed());
    }
    let (door, tasks) = (Door::alone(10), Tasks::new());
    let mut admitted = place(&door, &tasks).await;
    admitted.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    pass(Duration::from_secs(1)).await;
    let mut answer = String::new();
    let (cut, read) = tokio::join!(tasks.finish(Duration::from_secs(60)), admitted.read_to_string(&mut answer));
    assert!(cut == 0 && read.is_ok() && answer.ends_with("hello"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_keeps_its_connections_place_in_the_last_moment_is_told_that_it_is_the_last() {
    let (door, tasks) = (Door::alone(1), Tasks::new());
    let mut known = place(&door, &tasks).await;
    ask(&mut known, "/").await;
    known.write_all(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    pass(Duration::from_millis(1)).await;
    let next = place(&door, &tasks).await;
    drop(next);
    let mut answer = String::new();
    known.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("hello") && answer.contains("connection: close"), "{answer}");
    assert!(!answer.contains("keep-alive"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_ends_the_connection_and_the_answer_says_so() {
    let handler = |_: Arc<Conn>, request: Request<Inbound>| async move {
        let read = crate::http::body::read_up_to(request.into_body(), 1000, Duration::from_secs(30), |_| true).await;
        assert!(read.is_err());
        Response::new(Body::default())
    };
    for breaks in ["1\r\nxx\r\n", "x\r\n", "0\r\nno trailer\r\n\r\n"] {
        let (mut caller, far) = duplex(1 << 16);
        let tasks = Tasks::new();
        let conn = Arc::new(Conn::new(Peer::Unix { uid: None }, None));
        tasks.spawn(Kind::Connection, serve(far, conn, handler, limits(), tasks.stopping()));
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        caller.write_all(format!("{head}{breaks}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("connection: close") && !answer.contains("keep-alive"), "{breaks:?}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_sends_what_nobody_wants_is_read_away_until_it_is_silent_or_too_long_at_it() {
    for (pause, most) in [(Duration::from_secs(3), 3), (Duration::from_secs(1), 11)] {
        let (door, tasks) = (Door::alone(1), Tasks::new());
        let mut caller = place(&door, &tasks).await;
        caller.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("connection: close") && answer.ends_with("hello"), "{answer}");
        let began = Instant::now();
        while caller.write_all(b"more").await.is_ok() {
            pass(pause).await;
        }
        assert!(began.elapsed() <= Duration::from_secs(most), "{:?}", began.elapsed());
    }
}
