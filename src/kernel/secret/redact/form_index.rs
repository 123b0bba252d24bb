//! A [`FormIndex`]: finds all of many forms in one pass that looks at few of a text's bytes.
//!
//! A form that stands in a text has its beginning there, and in it every *gram* (four bytes in a row) of that
//! beginning. So of the text only every so many-th gram is looked at, as many as the beginnings hold: exactly one of
//! each beginning is among them, and the table says of which forms it may be. Each of these is then compared whole.
//!
//! Invariants: every place of every form is found. The table holds what the secrets are made of, so it is made once,
//! in memory that is wiped when dropped.

use std::ops::Range;

use zeroize::Zeroizing;

/// Bytes of a gram.
const GRAM: usize = 4;

/// A form's beginning has no more bytes: with more, fewer grams of a text were looked at, and each form cost more
/// memory.
const LONGEST_BEGINNING: usize = 16;

/// Of a gram's hash so many bits are looked up first.
const FILTER_BITS: u32 = 13;

/// Knows some forms.
pub(super) struct FormIndex {
    forms: Vec<Zeroizing<Vec<u8>>>,
    /// How many grams a beginning has.
    step: usize,
    /// A bit for the hash of each gram of the beginnings. Almost all grams of texts end here.
    filter: Zeroizing<Vec<u64>>,
    /// The grams of the beginnings, sorted.
    grams: Zeroizing<Vec<u64>>,
}

/// A gram, the number of the form it is of, and its place there.
struct GramPlace {
    gram: u32,
    form: usize,
    at: usize,
}

impl GramPlace {
    /// In one number, sorted by the gram.
    fn packed(&self) -> u64 {
        (u64::from(self.gram) << 32) | ((self.form as u64) << 8) | self.at as u64
    }

    fn of(packed: u64) -> Self {
        let [at, form @ .., _, _, _, _] = packed.to_le_bytes();
        let form = usize::from(form[0]) | (usize::from(form[1]) << 8) | (usize::from(form[2]) << 16);
        Self { gram: (packed >> 32) as u32, form, at: usize::from(at) }
    }
}

impl FormIndex {
    /// Of these, which must be of [`GRAM`] bytes at least.
    pub(super) fn new(forms: Vec<Zeroizing<Vec<u8>>>) -> Self {
        let shortest = forms.iter().map(|form| form.len()).min().unwrap_or(LONGEST_BEGINNING);
        let step = shortest.min(LONGEST_BEGINNING) - (GRAM - 1);
        // All that it will need: where a table grows it leaves a copy.
        let mut grams = Zeroizing::new(Vec::with_capacity(forms.len() * step));
        let mut filter = Zeroizing::new(vec![0; 1 << (FILTER_BITS - 6)]);
        for (number, form) in forms.iter().enumerate() {
            for at in 0..step {
                let Some(gram) = gram_at(form, at) else { continue };
                let (word, bit) = place(gram);
                filter[word] |= bit;
                grams.push(GramPlace { gram, form: number, at }.packed());
            }
        }
        grams.sort_unstable();
        Self { forms, step, filter, grams }
    }

    pub(super) fn forms(&self) -> impl Iterator<Item = &[u8]> {
        self.forms.iter().map(|form| form.as_slice())
    }

    /// Adds where forms are in the text, in order; those that overlap as one.
    pub(super) fn find(&self, text: &[u8], found: &mut Vec<Range<usize>>) {
        if self.forms.is_empty() {
            return;
        }
        // Where a beginning at the very start has its last gram; a text that is shorter has none.
        let mut at = self.step - 1;
        let already = found.len();
        while let Some(gram) = gram_at(text, at) {
            let (word, bit) = place(gram);
            if self.filter[word] & bit != 0 {
                for range in self.around(text, at, gram) {
                    match found[already..].last_mut() {
                        Some(last) if range.start < last.end => last.end = last.end.max(range.end),
                        _ => found.push(range),
                    }
                }
            }
            at += self.step;
        }
    }

    /// Where forms are whose beginning holds this gram of the text, in order.
    fn around(&self, text: &[u8], at: usize, gram: u32) -> Vec<Range<usize>> {
        let from = self.grams.partition_point(|packed| GramPlace::of(*packed).gram < gram);
        let known =
            self.grams[from..].iter().map(|packed| GramPlace::of(*packed)).take_while(|known| known.gram == gram);
        let mut found: Vec<_> = known
            .filter_map(|known| {
                let (start, form) = (at.checked_sub(known.at)?, &self.forms[known.form]);
                text[start..].starts_with(form).then(|| start..start + form.len())
            })
            .collect();
        found.sort_unstable_by_key(|range| range.start);
        found
    }
}

fn gram_at(text: &[u8], at: usize) -> Option<u32> {
    text.get(at..)?.first_chunk().map(|gram| u32::from_be_bytes(*gram))
}

/// Where the filter has a gram's bit.
fn place(gram: u32) -> (usize, u64) {
    // 2^32 divided by the golden ratio: Fibonacci hashing.
    let hash = gram.wrapping_mul(0x9E37_79B1) >> (32 - FILTER_BITS);
    ((hash >> 6) as usize, 1 << (hash & 63))
}
