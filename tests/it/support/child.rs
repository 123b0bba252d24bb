//! The gateway's binary as a child process: how it is started, what it says, the signals it is sent, and how it ends.

#![allow(clippy::disallowed_methods, reason = "what is watched is in another process")]

use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_rtm-gateway");
/// Longer than any line is waited for on purpose.
const PATIENCE: Duration = Duration::from_secs(90);

/// A process that runs. Killed when dropped.
pub(crate) struct Running {
    child: Child,
    said: Arc<Said>,
    /// Of a log that is not read: told or dropped, it is read on, or closed.
    unread: Option<mpsc::Sender<()>>,
}

impl Running {
    /// A command that takes the gateway's arguments serves this configuration.
    pub(crate) fn serve(mut command: Command, config: &Path) -> Self {
        Self::spawn(command.args(["serve", "--config"]).arg(config).stderr(Stdio::piped()))
    }

    /// The same, with a log that is not read any more once the gateway is ready.
    pub(crate) fn serve_unread(mut command: Command, config: &Path) -> Self {
        let (tell, told) = mpsc::channel();
        let command = command.args(["serve", "--config"]).arg(config).stderr(Stdio::piped());
        let mut running = Self::read(command, Some(told));
        running.unread = Some(tell);
        running
    }

    /// Any command. Of stdout and stderr that is read which the command has on a pipe.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self::read(command, None)
    }

    fn read(command: &mut Command, pause: Option<mpsc::Receiver<()>>) -> Self {
        let mut child = command.spawn().unwrap();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let pipes = usize::from(out.is_some()) + usize::from(err.is_some());
        let text = Text { pipes, ..Text::default() };
        let said = Arc::new(Said { text: Mutex::new(text), more: Condvar::new() });
        if let Some(out) = out {
            keep(out, said.clone(), None);
        }
        if let Some(err) = err {
            keep(err, said.clone(), pause);
        }
        Self { child, said, unread: None }
    }

    /// Waits until the gateway is ready, and says where callers and operators find it.
    pub(crate) fn ready(&self) -> (SocketAddr, SocketAddr) {
        let address = |entry: Value| entry["address"].as_str().unwrap().parse().unwrap();
        let callers = address(self.logged("listening for callers"));
        let operators = address(self.logged("listening for operators"));
        self.logged("ready");
        (callers, operators)
    }

    /// The next log entry with that message.
    pub(crate) fn logged(&self, message: &str) -> Value {
        let never = || panic!("never logged: {message}\n{}", String::from_utf8_lossy(&self.written()));
        self.heard(message).unwrap_or_else(never)
    }

    /// The same, if it comes.
    pub(crate) fn heard(&self, message: &str) -> Option<Value> {
        self.line(|line| serde_json::from_slice::<Value>(line).ok().filter(|entry| entry["message"] == message))
    }

    /// What the next line has of which `look` finds something. `None` when nothing more is said, or not in time.
    pub(crate) fn line<T>(&self, look: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let until = Instant::now() + PATIENCE;
        let mut text = self.said.text.lock().unwrap();
        loop {
            while let Some(line) = text.next_line() {
                if let Some(found) = look(line) {
                    return Some(found);
                }
            }
            if text.pipes == 0 {
                return None;
            }
            let left = until.checked_duration_since(Instant::now())?;
            text = self.said.more.wait_timeout(text, left).unwrap().0;
        }
    }

    /// All it has written so far, to what is read of it.
    pub(crate) fn written(&self) -> Vec<u8> {
        self.said.text.lock().unwrap().all.clone()
    }

    /// The log is read on.
    pub(crate) fn hear(&mut self) {
        self.unread.take().unwrap().send(()).unwrap();
    }

    /// The log's reader is gone.
    pub(crate) fn hang_up(&mut self) {
        drop(self.unread.take().unwrap());
        let text = self.said.text.lock().unwrap();
        let (text, _) = self.said.more.wait_timeout_while(text, PATIENCE, |text| text.pipes > 0).unwrap();
        assert_eq!(text.pipes, 0);
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// How it has ended, if it has.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// The same in a test that does something else meanwhile.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        tokio::task::spawn_blocking(move || self.wait()).await.unwrap()
    }

    /// SIGKILL, and the process is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        assert_eq!(self.wait().signal(), Some(9));
    }

    /// Gone, whether it had ended before or not.
    pub(crate) fn put_down(&mut self) -> io::Result<ExitStatus> {
        let _ = self.child.kill();
        self.child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.put_down();
    }
}

struct Said {
    text: Mutex<Text>,
    more: Condvar,
}

#[derive(Default)]
struct Text {
    all: Vec<u8>,
    /// Where the first line begins that nobody has looked at.
    next: usize,
    /// That are open.
    pipes: usize,
}

impl Text {
    /// Only whole lines.
    fn next_line(&mut self) -> Option<&[u8]> {
        let from = self.next;
        let length = memchr::memchr(b'\n', &self.all[from..])?;
        self.next = from + length + 1;
        Some(&self.all[from..from + length])
    }

    fn is_ready(&self) -> bool {
        let said = br#""message":"ready""#;
        self.all.split_inclusive(|b| *b == b'\n').any(|l| l.ends_with(b"\n") && memchr::memmem::find(l, said).is_some())
    }
}

fn keep(mut pipe: impl Read + Send + 'static, said: Arc<Said>, mut pause: Option<mpsc::Receiver<()>>) {
    std::thread::spawn(move || {
        let mut piece = [0; 8192];
        while let Ok(read @ 1..) = pipe.read(&mut piece) {
            let mut text = said.text.lock().unwrap();
            text.all.extend_from_slice(&piece[..read]);
            let pauses = pause.is_some() && text.is_ready();
            drop(text);
            said.more.notify_all();
            if pauses && pause.take().is_some_and(|pause| pause.recv().is_err()) {
                break;
            }
        }
        drop(pipe);
        said.text.lock().unwrap().pipes -= 1;
        said.more.notify_all();
    });
}
