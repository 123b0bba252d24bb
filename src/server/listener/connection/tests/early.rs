//! Answers to HTTP/2 requests whose body has not come yet.

use futures_util::future::join_all;
use http_body_util::Full;
use hyper::StatusCode;

use super::*;

#[tokio::test(start_paused = true)]
async fn many_early_answers_over_http2_cost_no_other_request_of_the_connection() {
    // Bodies come in pieces, so that answers are there before their ends.
    let (caller, served) = duplex(16 << 10);
    let handler = |_: Arc<Conn>, request: Request<Inbound>| async move {
        let mut response = Response::new(Body::default());
        if *request.method() == hyper::Method::POST {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        response
    };
    let conn = Arc::new(Conn::new(Peer::Unix { uid: None }, None));
    let tasks = Tasks::new();
    tasks.spawn(Kind::Connection, serve(served, conn, handler, limits(), tasks.stopping()));
    let (sender, connection) =
        http2::handshake::<_, _, Full<Bytes>>(hyper_util::rt::TokioExecutor::new(), TokioIo::new(caller))
            .await
            .unwrap();
    tasks.spawn(Kind::Linger, async move {
        let _ = connection.await;
    });
    let ask = |method: &'static str, body: usize| {
        let request = Request::builder().method(method).uri("http://a/");
        let answer = sender.clone().send_request(request.body(Full::from(vec![b'x'; body])).unwrap());
        async move { answer.await.map(|answer| answer.status()).map_err(|why| why.to_string()) }
    };
    for round in 0..30 {
        let early = join_all((0..16).map(|n| ask("POST", if n == 0 { 300_000 } else { 60_000 })));
        let (early, good) = tokio::join!(early, ask("GET", 0));
        assert_eq!(good, Ok(StatusCode::OK), "round {round}");
        assert!(early.iter().all(|status| *status == Ok(StatusCode::UNAUTHORIZED)), "round {round}: {early:?}");
    }
}
