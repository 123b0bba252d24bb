//! The load of the measure: one thread, HTTP/1.1 over kept connections to loopback. It ends by itself, and prints a
//! line of JSON.
//!
//! - Closed loop (no `--rate`): each connection sends its next request when it has its answer.
//! - Constant rate (`--rate`): requests are due at fixed times, whatever the answers do, and latency counts from the
//!   time that a request was due, so a stall of the proxy is not left out.
//! - `--hold`: one request on each connection, sixteen at a time, then nothing for `--seconds`. A first line says that
//!   all were answered, a second one how many are still open at the end.
//!
//! CPU time of the processes in `--pids` is read at both ends of the window, in the kernel's nanoseconds.

mod connection;
mod options;
mod processes;

use connection::{Connection, Progress};
use hdrhistogram::Histogram;
use options::Options;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::collections::VecDeque;
use std::io;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long answers may take after the window's end.
const LINGER: Duration = Duration::from_secs(5);

/// The longest wait in the system: ends of windows are noticed by then.
const NAP: Duration = Duration::from_millis(100);

/// Requests under way at a time while `--hold` opens its connections.
const OPENING: u64 = 16;

/// What has happened so far.
struct Tally {
    issued: u64,
    answered: u64,
    in_window: u64,
    not_ok: u64,
    failed: u64,
    bytes: u64,
    latency: Histogram<u64>,
}

/// The measured part of the run.
struct Window {
    began: Instant,
    cpu: Duration,
}

struct Load {
    options: Options,
    request: Vec<u8>,
    poll: OwnedFd,
    connections: Vec<Connection>,
    free: Vec<usize>,
    due: VecDeque<Instant>,
    planned: u64,
    started: Instant,
    window: Option<Window>,
    tally: Tally,
}

impl Load {
    fn new(options: Options) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let count = options.connections;
        let mut load = Self {
            request: options.request(),
            poll,
            connections: Vec::with_capacity(count),
            free: (0..count).rev().collect(),
            due: VecDeque::new(),
            planned: 0,
            started: Instant::now(),
            window: None,
            tally: Tally {
                issued: 0,
                answered: 0,
                in_window: 0,
                not_ok: 0,
                failed: 0,
                bytes: 0,
                latency: Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("bounds of a histogram"),
            },
            options,
        };
        // Held ones are opened one after another: a proxy closes a connection that asks for nothing for too long.
        if !load.options.hold {
            for index in 0..count {
                load.open(index)?;
            }
        }
        load.started = Instant::now();
        Ok(load)
    }

    /// Opens the next connection, which is this one.
    fn open(&mut self, index: usize) -> io::Result<()> {
        let connection = self.connect(index)?;
        self.connections.push(connection);
        Ok(())
    }

    fn connect(&self, index: usize) -> io::Result<Connection> {
        let connection = Connection::open(self.options.address)?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.poll, connection.stream(), data, epoll::EventFlags::IN)?;
        Ok(connection)
    }

    fn window_begins(&self) -> Instant {
        self.started + self.options.warmup
    }

    fn window_ends(&self) -> Instant {
        self.window_begins() + self.options.duration
    }

    /// All requests that there are to be have been sent.
    fn all_issued(&self, now: Instant) -> bool {
        let (issued, limit) = (self.tally.issued, self.options.requests);
        now >= self.window_ends()
            || limit.is_some_and(|limit| issued >= limit)
            || (self.options.hold && issued >= self.options.connections as u64)
    }

    fn over(&self, now: Instant) -> bool {
        let idle = self.free.len() == self.options.connections && self.due.is_empty();
        let settled = self.tally.answered >= self.options.connections as u64 || self.tally.failed > 0;
        let opened = self.options.hold && settled;
        let closed_loop = self.options.rate.is_none() && !self.options.hold;
        opened
            || (closed_loop && now >= self.window_ends())
            || now >= self.window_ends() + LINGER
            || (self.all_issued(now) && idle)
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(self.options.connections.max(1));
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let now = Instant::now();
            if self.window.is_none() && now >= self.window_begins() {
                let cpu = processes::cpu_time(&self.options.pids);
                self.window = Some(Window { began: Instant::now(), cpu });
            }
            if self.over(now) {
                return Ok(());
            }
            let nap = self.send(now)?;
            let nap = Timespec::try_from(nap.min(NAP)).expect("a tenth of a second is a time");
            match epoll::wait(&self.poll, spare_capacity(&mut events), Some(&nap)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                self.read(event.data.u64() as usize, &mut buffer);
            }
        }
    }

    /// Sends what is due, and says how long nothing else will be.
    fn send(&mut self, now: Instant) -> io::Result<Duration> {
        let mut nap = NAP;
        if let Some(rate) = self.options.rate {
            while !self.all_issued(now) {
                let at = self.started + Duration::from_secs_f64(self.planned as f64 / rate);
                if at > now || at >= self.window_ends() {
                    nap = at.saturating_duration_since(now);
                    break;
                }
                self.due.push_back(at);
                self.planned += 1;
            }
            while !self.due.is_empty() && !self.free.is_empty() {
                let (at, index) = (self.due.pop_front(), self.free.pop());
                self.issue(index.expect("looked at"), at.expect("looked at"));
            }
        } else {
            while !self.all_issued(now) && !self.free.is_empty() {
                if self.options.hold && self.tally.issued >= self.tally.answered + OPENING {
                    break;
                }
                let index = self.free.pop().expect("looked at");
                if self.options.hold {
                    self.open(index)?;
                }
                self.issue(index, Instant::now());
            }
        }
        Ok(nap)
    }

    fn issue(&mut self, index: usize, due: Instant) {
        self.tally.issued += 1;
        if self.connections[index].send(&self.request, due).is_err() {
            self.tally.failed += 1;
        }
    }

    fn read(&mut self, index: usize, buffer: &mut [u8]) {
        let connection = &mut self.connections[index];
        match connection.read(buffer, &mut self.tally.bytes) {
            Progress::More => {}
            Progress::Answered { status, keep } => {
                let due = connection.due();
                self.answered(status, due);
                if !keep {
                    self.renew(index);
                } else if !self.options.hold {
                    self.free.push(index);
                }
            }
            Progress::Lost { asked } => {
                self.tally.failed += u64::from(asked);
                self.renew(index);
            }
        }
    }

    fn answered(&mut self, status: u16, due: Instant) {
        self.tally.answered += 1;
        self.tally.not_ok += u64::from(status != 200);
        // At a constant rate what was due before the window is not its own, however late the answer.
        if self.window.is_some() && (self.options.rate.is_none() || due >= self.window_begins()) {
            self.tally.in_window += 1;
            let nanos = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.tally.latency.saturating_record(nanos);
        }
    }

    fn renew(&mut self, index: usize) {
        if self.options.hold {
            return;
        }
        match self.connect(index) {
            Ok(connection) => {
                self.connections[index] = connection;
                self.free.push(index);
            }
            Err(_) => self.tally.failed += 1,
        }
    }

    /// What was measured, as a line of JSON.
    fn report(&self) -> String {
        let tally = &self.tally;
        let Some(window) = &self.window else {
            return format!(
                "{{\"answered\":{},\"not_ok\":{},\"failed\":{}}}",
                tally.answered, tally.not_ok, tally.failed
            );
        };
        let seconds = window.began.elapsed().as_secs_f64();
        let cpu = processes::cpu_time(&self.options.pids).saturating_sub(window.cpu);
        let requests = tally.in_window.max(1) as f64;
        let quantile = |q: f64| tally.latency.value_at_quantile(q) as f64 / 1e3;
        format!(
            "{{\"answered\":{},\"not_ok\":{},\"failed\":{},\"bytes\":{},\"seconds\":{seconds:.4},\"rate\":{:.1},\
             \"cpu_us\":{:.4},\"busy\":{:.4},\"p50_us\":{:.1},\"p99_us\":{:.1}}}",
            tally.answered,
            tally.not_ok,
            tally.failed,
            tally.bytes,
            tally.in_window as f64 / seconds,
            cpu.as_secs_f64() * 1e6 / requests,
            cpu.as_secs_f64() / seconds,
            quantile(0.5),
            quantile(0.99),
        )
    }

    /// Keeps the connections open for the window's length, and counts those that are still open then.
    fn hold(&mut self) -> usize {
        std::thread::sleep(self.options.duration);
        self.connections.iter_mut().map(Connection::is_open).filter(|open| *open).count()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::from_args(std::env::args().skip(1))?;
    rustix::thread::set_current_timer_slack(NonZero::new(1))?;
    let mut load = Load::new(options)?;
    load.run()?;
    println!("{}", load.report());
    if load.options.hold {
        println!("{{\"open\":{}}}", load.hold());
    }
    Ok(())
}
