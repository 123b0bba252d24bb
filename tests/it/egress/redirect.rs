//! A vendor that answers with a redirect: its `Location` is never asked, least of all with the credential.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use rtm_gateway::kernel::task::{Kind, Tasks};

use super::rig::{Rig, read};

#[tokio::test]
async fn a_redirect_of_the_vendor_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let vendor = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (base, location) = (vendor.local_addr().unwrap(), elsewhere.local_addr().unwrap());
        let tasks = Tasks::new();
        tasks.spawn(Kind::Simulator, async move {
            let (mut tcp, _) = vendor.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tcp.read_u8().await.unwrap());
            }
            let answer = format!(
                "HTTP/1.1 {status} Go\r\nLocation: http://{location}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            tcp.write_all(answer.as_bytes()).await.unwrap();
        });
        let rig = Rig::with(&format!("http://{base}"), |_| {});
        let answered = rig.egress.send(read()).await;
        assert!(answered.as_ref().is_ok_and(|answer| answer.status.as_u16() == status), "{status}: {answered:?}");
        assert!(futures_util::FutureExt::now_or_never(elsewhere.accept()).is_none(), "{status}");
        tasks.finish(std::time::Duration::ZERO).await;
    }
}
