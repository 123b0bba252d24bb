//! The operator: seeks, removes, gives dead letters again, forgets them, switches webhooks off and on.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rtm_gateway::events::Cursor;
use serde_json::{Value, json};

use super::caller::{Caller, Ended, Manner};
use super::endpoint::Hook;
use super::readers::{deed, entry, pick};
use super::stage::{Book, LOGS, Live, Phase, Stage};
use delivery_model::{Deed, Entry, Millis, What};

pub struct Operator {
    pub stage: Arc<Stage>,
    pub random: StdRng,
    /// Of these it changes the place.
    pub moved: Vec<Arc<Book>>,
    /// Of these it looks at the dead letters.
    pub lettered: Vec<Arc<Book>>,
    pub hooks: Vec<Arc<Hook>>,
}

/// What became of a request.
enum Said {
    Yes(Value),
    No(u16),
    Perhaps,
}

impl Operator {
    pub fn new(stage: &Arc<Stage>, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { stage: stage.clone(), random, moved: Vec::new(), lettered: Vec::new(), hooks: Vec::new() }
    }

    /// Works, or only enables at the end what was disabled.
    pub async fn work(mut self, works: bool) {
        while self.stage.phase() == Phase::Running {
            let pause = self.random.random_range(20..250);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let live = self.stage.live().await;
            match self.random.random_range(0..100) {
                _ if !works => {}
                0..14 => self.seek(live).await,
                14..20 => self.remove(live).await,
                20..80 => self.letters(live).await,
                _ => self.switch(live).await,
            }
        }
        // All are on at the end.
        loop {
            let live = self.stage.live().await;
            let off: Vec<Arc<Hook>> = self.hooks.iter().filter(|hook| hook.is_off()).cloned().collect();
            for hook in off {
                self.enable(live, &hook).await;
            }
            if self.stage.phase() == Phase::Over {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn ask(&self, live: Live, (method, path, body): (&str, &str, Option<Value>)) -> (Said, (Millis, Millis)) {
        let going = self.stage.begin(live.life);
        let body = body.map(|body| body.to_string());
        let ended = Caller::new(live.operators, "").send(method, path, body.as_deref(), Manner::Plain).await;
        let when = (going.from, self.stage.now());
        match ended {
            Ended::Answered(answer) if answer.status == 200 => (Said::Yes(answer.json()), when),
            Ended::Answered(answer) if answer.status == 503 => (Said::Perhaps, when),
            Ended::Answered(answer) => (Said::No(answer.status), when),
            Ended::Unasked => (Said::No(0), when),
            _ => (Said::Perhaps, when),
        }
    }

    async fn seek(&mut self, live: Live) {
        let Some(book) = pick_of(&mut self.random, &self.moved) else { return };
        let head = self.stage.head(book.log);
        let to: Entry = self.random.random_range(head.saturating_sub(60)..=head);
        let earliest = self.stage.logs[book.log].lock().unwrap().earliest;
        let (to, between) = match (self.random.random_range(0..10), self.stage.cursor(book.log, to)) {
            (0, _) => ("earliest".to_owned(), (earliest.saturating_sub(1), head)),
            (1..4, _) | (_, None) => ("latest".to_owned(), (head, Entry::MAX - 1)),
            (_, Some(cursor)) => (cursor, (to, to)),
        };
        let path = format!("{}/seek", path_of(&book));
        let (said, when) = self.ask(live, ("POST", &path, Some(json!({ "to": to })))).await;
        match said {
            Said::Yes(body) => {
                self.stage.count("seeks");
                let at = body["cursor"]
                    .as_str()
                    .and_then(|text| text.parse::<Cursor>().ok())
                    .map_or(0, |cursor| cursor.at.0);
                book.did(live.life, deed(when, What::Sought { between: (at, at) }));
            }
            Said::Perhaps => book.lingered(live.life, Deed { sure: false, ..deed(when, What::Sought { between }) }),
            Said::No(status) => self.stage.count(&format!("seeks answered {status}")),
        }
    }

    async fn remove(&mut self, live: Live) {
        let Some(book) = pick_of(&mut self.random, &self.moved) else { return };
        let (said, when) = self.ask(live, ("DELETE", &path_of(&book), None)).await;
        match said {
            Said::Yes(_) => {
                self.stage.count("removals");
                book.did(live.life, deed(when, What::Deleted));
            }
            Said::Perhaps => book.lingered(live.life, Deed { sure: false, ..deed(when, What::Deleted) }),
            Said::No(status) => self.stage.count(&format!("removals answered {status}")),
        }
    }

    /// Looks at the dead letters, does something with them, and looks again.
    async fn letters(&mut self, live: Live) {
        let Some(book) = pick_of(&mut self.random, &self.lettered) else { return };
        let Some(all) = self.list(live, &book).await else { return };
        let path = format!("{}/dead-letters", path_of(&book));
        let some: Vec<Entry> = all.into_iter().filter(|_| self.random.random_bool(0.4)).collect();
        let cursors: Vec<String> = some.iter().filter_map(|&at| self.stage.cursor(book.log, at)).collect();
        if some.is_empty() || cursors.len() < some.len() {
            return;
        }
        match self.random.random_range(0..10) {
            0..4 => {
                let (said, when) =
                    self.ask(live, ("POST", &format!("{path}/redeliver"), Some(json!({ "cursors": cursors })))).await;
                let done = |changed| What::Redelivered { which: Some(some.clone()), changed };
                self.letters_done(&book, live, (said, when), "redelivered", &done);
            }
            4 => {
                let (said, when) =
                    self.ask(live, ("POST", &format!("{path}/redeliver"), Some(json!({ "all": true })))).await;
                let done = |changed| What::Redelivered { which: None, changed };
                self.letters_done(&book, live, (said, when), "redelivered", &done);
            }
            5 => {
                let (said, when) = self.ask(live, ("DELETE", &format!("{path}/{}", cursors[0]), None)).await;
                let done = |changed| What::Forgotten { which: Some(vec![some[0]]), changed };
                self.letters_done(&book, live, (said, when), "cleared", &done);
            }
            6 => {
                let (said, when) = self.ask(live, ("DELETE", &path, None)).await;
                let done = |changed| What::Forgotten { which: None, changed };
                self.letters_done(&book, live, (said, when), "cleared", &done);
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        self.list(live, &book).await;
    }

    /// The dead letters.
    async fn list(&self, live: Live, book: &Book) -> Option<Vec<Entry>> {
        let up_to = self.stage.head(book.log);
        let path = format!("{}/dead-letters?limit=1000", path_of(book));
        let (Said::Yes(body), when) = self.ask(live, ("GET", &path, None)).await else { return None };
        self.stage.count("lists of dead letters");
        let letter = |letter: &Value| {
            let at = entry(letter["cursor"].as_str().unwrap_or_default(), None);
            (at, letter["attempts"].as_u64().unwrap_or(0) as u32, letter["redelivering"] == true)
        };
        let letters: Vec<(Entry, u32, bool)> =
            body["dead_letters"].as_array().into_iter().flatten().map(letter).collect();
        let all = letters.iter().map(|(at, ..)| *at).collect();
        book.did(live.life, deed(when, What::Listed { letters, up_to }));
        Some(all)
    }

    fn letters_done(
        &self,
        book: &Book,
        live: Live,
        (said, when): (Said, (Millis, Millis)),
        word: &str,
        done: &dyn Fn(Option<u64>) -> What,
    ) {
        match said {
            Said::Yes(body) => {
                self.stage.count(&format!("dead letters {word}"));
                book.did(live.life, deed(when, done(body[word].as_u64())));
            }
            Said::Perhaps => book.lingered(live.life, Deed { sure: false, ..deed(when, done(None)) }),
            Said::No(status) => self.stage.count(&format!("dead letters not {word}: {status}")),
        }
    }

    async fn switch(&mut self, live: Live) {
        let Some(hook) = pick_of(&mut self.random, &self.hooks) else { return };
        if hook.is_off() {
            if self.random.random_bool(0.6) {
                self.enable(live, &hook).await;
            }
        } else if self.random.random_bool(0.2) {
            let (app, _) = LOGS[hook.book.log];
            let path = format!("/admin/v1/apps/{app}/webhooks/{}/disable", hook.name);
            if let (Said::Yes(_), when) = self.ask(live, ("POST", &path, None)).await {
                self.stage.count("webhooks disabled");
                hook.switched(Some(when.1 + 500));
            }
        }
    }

    async fn enable(&self, live: Live, hook: &Hook) {
        let (app, _) = LOGS[hook.book.log];
        let path = format!("/admin/v1/apps/{app}/webhooks/{}/enable", hook.name);
        // From now on it may work.
        hook.switched(None);
        if let (Said::Yes(_), _) = self.ask(live, ("POST", &path, None)).await {
            self.stage.count("webhooks enabled");
        } else {
            hook.switched(Some(self.stage.now() + 3_600_000));
        }
    }
}

fn pick_of<T>(random: &mut StdRng, from: &[Arc<T>]) -> Option<Arc<T>> {
    (!from.is_empty()).then(|| pick(random, from).clone())
}

/// Where operators find a subscription.
fn path_of(book: &Book) -> String {
    let (app, stream) = LOGS[book.log];
    format!("/admin/v1/apps/{app}/events/{stream}/subscriptions/{}", book.name)
}
