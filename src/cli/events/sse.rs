//! Server-Sent Events as they are read (WHATWG HTML, 9.2.6), from chunks that are cut anywhere.
//!
//! Invariants: what comes out does not depend on how the text was cut into chunks. An event that its stream did not end
//! is not given. No more than [`LARGEST`] bytes are held.

use std::time::Duration;

/// Bytes of one event: more than the gateway ever sends.
const LARGEST: usize = 16 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// The last `id` there was: of this event, or of one before.
    pub(super) id: String,
    /// `event`; empty when there was none.
    pub(super) kind: String,
    /// The `data` lines.
    pub(super) data: Vec<u8>,
    /// `stream`, which only this gateway says.
    pub(super) stream: String,
}

/// More than [`LARGEST`] bytes in one event.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {LARGEST} bytes")]
pub(super) struct TooLarge;

/// Reads one connection's text.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// The line that has not ended.
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    is_begun: bool,
    /// The last byte was a carriage return: a line feed after it belongs to it.
    after_return: bool,
    retry: Option<Duration>,
}

impl Parser {
    /// Takes a chunk; gives the events that it ends.
    pub(super) fn push(&mut self, mut chunk: &[u8]) -> Result<Vec<Event>, TooLarge> {
        let mut events = Vec::new();
        while let Some(&first) = chunk.first() {
            if std::mem::take(&mut self.after_return) && first == b'\n' {
                chunk = &chunk[1..];
                continue;
            }
            let end = memchr::memchr2(b'\n', b'\r', chunk);
            self.line.extend_from_slice(&chunk[..end.unwrap_or(chunk.len())]);
            if self.line.len() + self.event.data.len() > LARGEST {
                return Err(TooLarge);
            }
            let Some(end) = end else { break };
            self.after_return = chunk[end] == b'\r';
            chunk = &chunk[end + 1..];
            let line = std::mem::take(&mut self.line);
            events.extend(self.line(&line));
            self.line = line;
            self.line.clear();
        }
        Ok(events)
    }

    /// How long the server wishes its readers to stay away.
    pub(super) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    fn line(&mut self, line: &[u8]) -> Option<Event> {
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        let line = if is_first { line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line) } else { line };
        if line.is_empty() {
            return self.dispatch();
        }
        let (name, value) = match memchr::memchr(b':', line) {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = || String::from_utf8_lossy(value).into_owned();
        match name {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push(b'\n');
                }
                self.event.data.extend_from_slice(value);
            }
            b"event" => self.event.kind = text(),
            b"id" if !value.contains(&0) => self.event.id = text(),
            b"stream" => self.event.stream = text(),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                self.retry = text().parse().ok().map(Duration::from_millis);
            }
            // Comments have an empty name.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        let next = Event { id: self.event.id.clone(), ..Event::default() };
        let event = std::mem::replace(&mut self.event, next);
        std::mem::take(&mut self.has_data).then_some(event)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]]) -> Vec<Event> {
        let mut parser = Parser::default();
        chunks.iter().flat_map(|chunk| parser.push(chunk).unwrap()).collect()
    }

    fn event(id: &str, kind: &str, data: &str) -> Event {
        Event { id: id.into(), kind: kind.into(), data: data.into(), stream: String::new() }
    }

    #[test]
    fn the_standards_own_examples_are_read_as_it_says() {
        assert_eq!(read(&[b"data: YHOO\ndata: +2\ndata: 10\n\n"]), [event("", "", "YHOO\n+2\n10")]);
        let stream = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
        assert_eq!(
            read(&[stream]),
            [event("1", "", "first event"), event("", "", "second event"), event("", "", " third event")]
        );
        assert_eq!(read(&[b"data\n\ndata\ndata\n\ndata:"]), [event("", "", ""), event("", "", "\n")]);
        assert_eq!(read(&[b"data:test\n\ndata: test\n\n"]), [event("", "", "test"), event("", "", "test")]);
    }

    #[test]
    fn a_waiting_time_and_comments_are_no_events_and_an_id_holds_on() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(b"retry: 2000\n:\n:\nid: 7\nevent: a\nstream: all\nlease: x\ndata: 1\n\n:\n"), {
            Ok(vec![Event { stream: "all".into(), ..event("7", "a", "1") }])
        });
        assert_eq!(parser.retry(), Some(Duration::from_secs(2)));
        assert_eq!(parser.push(b"retry: 1s\nid: 8\n\nid: \0\ndata: 2\n\n"), Ok(vec![event("8", "", "2")]));
        assert_eq!(parser.retry(), Some(Duration::from_secs(2)));
    }

    #[test]
    fn an_event_without_end_is_not_held_without_end() {
        let mut parser = Parser::default();
        let line = [b"data: ".as_slice(), &vec![b'x'; 1 << 20], b"\n"].concat();
        let mut said = Ok(Vec::new());
        for _ in 0..20 {
            said = said.and_then(|_| parser.push(&line));
        }
        assert_eq!(said, Err(TooLarge));
    }

    /// What a stream is made of, and the events that it holds.
    fn made() -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<Event>)> {
        let text = "[a-z:{}\" \u{e9}]{0,8}";
        let data = prop::collection::vec(text, 0..3);
        let fields = ("[a-z0-9]{1,4}", "[A-Za-z]{1,4}", data, any::<bool>());
        prop::collection::vec(fields, 0..6).prop_map(|all| {
            let (mut lines, mut events) = (Vec::new(), Vec::new());
            for (id, kind, data, comment) in all {
                lines.push(format!("id: {id}").into_bytes());
                lines.push(format!("event:{kind}").into_bytes());
                lines.extend(comment.then(|| b": comment".to_vec()));
                lines.extend(data.iter().map(|line| format!("data: {line}").into_bytes()));
                lines.push(Vec::new());
                if !data.is_empty() {
                    events.push(event(&id, &kind, &data.join("\n")));
                }
            }
            (lines, events)
        })
    }

    properties! {
        #[test]
        fn what_is_read_does_not_depend_on_line_ends_or_where_chunks_are_cut(
            (lines, events) in made(),
            ends in prop::collection::vec(0usize..3, 1..20),
            cuts in prop::collection::vec(1usize..7, 1..20),
            bom: bool,
        ) {
            let mut text = if bom { b"\xEF\xBB\xBF".to_vec() } else { Vec::new() };
            for (n, line) in lines.iter().enumerate() {
                text.extend_from_slice(line);
                // A lone return before an empty line that ends with a line feed alone would be one line end of two
                // bytes.
                let end = ends[n % ends.len()];
                let end = if end == 1 && lines.get(n + 1).is_some_and(Vec::is_empty) { 2 } else { end };
                text.extend_from_slice([&b"\n"[..], b"\r", b"\r\n"][end]);
            }
            let mut chunks = Vec::new();
            let (mut rest, mut n) = (&text[..], 0);
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(cuts[n % cuts.len()].min(rest.len()));
                chunks.push(chunk);
                (rest, n) = (after, n + 1);
            }
            prop_assert_eq!(&read(&chunks), &events);
            prop_assert_eq!(&read(&[&text]), &events);
        }
    }
}
