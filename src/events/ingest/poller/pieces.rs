//! [`Pieces`]: the events of an answer on their way into batches.
//!
//! Invariant: however large an answer, no batch of it has more text than [`MAX_BYTES`], unless one event alone has.

use crate::store::EventText;

/// Bytes of text in a batch.
pub(in crate::events) const MAX_BYTES: usize = 4 << 20;

/// Events, joined into texts as they come.
#[derive(Default)]
pub(in crate::events) struct Pieces {
    done: Vec<EventText>,
    text: Vec<u8>,
    ends: Vec<u32>,
}

impl Pieces {
    /// Adds an event's text, which is not empty.
    pub(in crate::events) fn push(&mut self, event: &str) {
        if !self.ends.is_empty() {
            if self.text.len() + event.len() >= MAX_BYTES {
                self.close();
            } else {
                self.text.push(b',');
            }
        }
        self.text.extend_from_slice(event.as_bytes());
        self.ends.push(u32::try_from(self.text.len()).expect("an answer is smaller than 4 GiB"));
    }

    pub(in crate::events) fn finish(mut self) -> Vec<EventText> {
        self.close();
        self.done
    }

    fn close(&mut self) {
        let (mut text, ends) = (std::mem::take(&mut self.text), std::mem::take(&mut self.ends));
        text.shrink_to_fit();
        self.done.extend(EventText::from_parts(text.into(), ends.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_answer_becomes_texts_of_a_bounded_size_that_hold_all_events_in_order() {
        let (mut pieces, large) = (Pieces::default(), format!("\"{}\"", "x".repeat(MAX_BYTES)));
        let events: Vec<_> = (0..3000).map(|n| format!("\"{n}{}\"", "y".repeat(4000))).chain([large]).collect();
        events.iter().for_each(|event| pieces.push(event));
        let texts = pieces.finish();
        let found: Vec<_> = texts.iter().flat_map(|text| text.iter().collect::<Vec<_>>()).collect();
        assert!(found.iter().zip(&events).all(|(found, event)| found == event.as_bytes()));
        assert_eq!((found.len(), texts.len()), (events.len(), 4));
        assert!(texts[..3].iter().all(|text| text.text().len() <= MAX_BYTES));
        assert!(Pieces::default().finish().is_empty());
    }
}
