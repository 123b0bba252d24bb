//! What one connection may make us hold and do: the HTTP library's limits, all in one place.

use std::time::Duration;

use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto;

use super::stream::StreamExecutor;

/// Bytes of a request's head: line and headers. HTTP/1.1 holds no more than this of what came in or is to go out.
const MAX_OF_HEAD: usize = 64_000;
/// Headers of a request: hyper's own limit for HTTP/1.1, for which its tables lie on the stack. For more it makes them
/// on the heap for each request, and they are wiped after it.
pub(super) const MAX_HEADERS: usize = 100;
/// Requests at a time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// Bytes that may come in unread on one HTTP/2 stream, and on all of a connection together. Bodies are small and read
/// at once: a larger window would only let more of them be held. (hyper's own are 1 MiB each.)
const WINDOWS: (u32, u32) = (64 << 10, 256 << 10);
/// Bytes of one HTTP/2 stream's answer that wait to be written. `Body` gives 16 KiB at a time.
const MAX_TO_SEND: usize = 64 << 10;
/// Streams that a caller opened and reset before they were looked at (CVE-2023-44487).
const MAX_RESET_UNSEEN: usize = 20;
/// Streams that we reset because a caller broke the protocol on them (CVE-2025-8671): an honest one breaks none.
const MAX_RESET_BY_US: usize = 64;
/// How often a quiet HTTP/2 peer is asked whether it lives, and how long it may take to say so.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// What a caller can make one connection hold, at the worst: on HTTP/1.1 a head of 64 KB or as much of a body that
/// waits to be read, 64 KB of answers that wait to be written, and what the body of the one request in hand may have
/// (`server.request_body_limit`). On HTTP/2 256 KiB that came in (`WINDOWS`), a head of up to 64 KB in the making, and
/// for each of 256 streams a body in the making, a decoded head of up to 64 KB while its handler runs, and 64 KiB of
/// its answer; an answer itself is shared or bounded by what makes it.
pub(super) fn builder(spawned: StreamExecutor) -> auto::Builder<StreamExecutor> {
    let mut builder = auto::Builder::new(spawned);
    builder
        .http1()
        .timer(TokioTimer::new())
        // It would begin with the end of the answer before: see `wait_timer`.
        .header_read_timeout(None)
        .max_buf_size(MAX_OF_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_send_buf_size(MAX_TO_SEND)
        .max_pending_accept_reset_streams(MAX_RESET_UNSEEN)
        .max_local_error_reset_streams(MAX_RESET_BY_US)
        .max_header_list_size(u32::try_from(MAX_OF_HEAD).unwrap_or(u32::MAX));
    builder
}
