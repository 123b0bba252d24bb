//! Making events occur: single ones, many, or at a rate.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::app::Rules;
use super::lock;
use super::region::Region;
use super::sim::Sim;
use crate::kernel::names::Stream;

/// How often the generator looks how many events are due.
const TICK: Duration = Duration::from_millis(5);

impl Sim {
    /// A user event (`Login`, `Logout`) occurs now. Returns its JSON text, as readers will get it.
    pub fn emit_user_event(&self, app: &str, kind: &str, user: &str) -> Arc<str> {
        self.occur(app, Stream::UserEvents, kind, user, None)
    }

    /// A channel event (`Join`, `Leave`) occurs now; it changes who is a member of the channel.
    pub fn emit_channel_event(&self, app: &str, kind: &str, group: &str, user: &str) -> Arc<str> {
        match kind {
            "Join" => self.world().join(app, group, user),
            "Leave" => self.world().leave(app, group, user),
            _ => {}
        }
        self.occur(app, Stream::ChannelEvents, kind, user, Some(group))
    }

    /// `count` events occur now. Their users are all different, over the whole world's life.
    pub fn emit_many(&self, app: &str, stream: Stream, count: usize) -> Vec<Arc<str>> {
        (0..count).map(|_| self.emit_next(app, stream)).collect()
    }

    /// An event of exactly this text occurs now. It is not checked.
    pub fn emit_raw(&self, app: &str, stream: Stream, event: &str) -> Arc<str> {
        let event = Arc::<str>::from(event);
        let region = self.region();
        let capacity = region.world.account(app).map_or(2000, |a| a.settings().rules.queue_capacity);
        let push = |region: &Region| {
            lock(&region.queue(app, stream)).push(event.clone(), capacity);
            region.update(|_| {});
        };
        if region.world.options().replicate {
            region.world.regions().iter().for_each(|r| push(r));
        } else {
            push(region);
        }
        event
    }

    /// Lets events occur at a steady rate, in each second so many, until `duration` is over or the region stops.
    /// Returns how many occurred.
    pub async fn generate(&self, app: &str, stream: Stream, per_second: f64, duration: Duration) -> u64 {
        let stop = self.region().tasks.stopping();
        let clock = self.world().clock();
        let began = clock.now();
        let mut ticks = tokio::time::interval(TICK);
        let mut done = 0;
        loop {
            // By what is due in all, not so many a tick: ticks come late on a busy machine, and the rate must not fall.
            let elapsed = (clock.now() - began).min(duration);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
            let due = (elapsed.as_secs_f64() * per_second) as u64;
            while done < due {
                self.emit_next(app, stream);
                done += 1;
            }
            if elapsed >= duration {
                return done;
            }
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return done,
            }
        }
    }

    fn emit_next(&self, app: &str, stream: Stream) -> Arc<str> {
        let serial = self.world().serial();
        let (first, second) = match stream {
            Stream::UserEvents => ("Login", "Logout"),
            Stream::ChannelEvents => ("Join", "Leave"),
        };
        let kind = if serial.is_multiple_of(2) { first } else { second };
        let user = format!("web{serial:09}");
        let group = (stream == Stream::ChannelEvents).then(|| format!("room{}", serial % 10));
        self.occur(app, stream, kind, &user, group.as_deref())
    }

    fn occur(&self, app: &str, stream: Stream, kind: &str, user: &str, group: Option<&str>) -> Arc<str> {
        let world = self.world();
        let ms = world.clock().wall_ms().0;
        let event = match world.account(app) {
            Some(account) => render(&account.settings().rules, ms, kind, user, group),
            None => render(&Rules::default(), ms, kind, user, group),
        };
        self.emit_raw(app, stream, &event)
    }
}

/// An event in the vendor's words and order of members.
fn render(rules: &Rules, ms: u64, kind: &str, user: &str, group: Option<&str>) -> String {
    let text = |t: &str| Value::from(t).to_string();
    let group = group.map(|g| format!("{}:{},", text(rules.group_member), text(g))).unwrap_or_default();
    let unknown = if rules.unknown_members { r#","origin":{"node":"n-7","load":1.50}"# } else { "" };
    format!(r#"{{{group}"{}":{ms},"type":{},"user_id":{}{unknown}}}"#, rules.ms_member, text(kind), json!(user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_read_as_on_the_vendors_page_or_in_the_fields_spelling() {
        let rules = Rules::default();
        assert_eq!(
            render(&rules, 1_476_095_418_189, "Join", "userA", Some("example_channel_id")),
            r#"{"group_id":"example_channel_id","ms":1476095418189,"type":"Join","user_id":"userA"}"#
        );
        let field = Rules { ms_member: "ts", group_member: "channel_id", unknown_members: true, ..rules };
        let event = render(&field, 1, "Leave", "a\"b", Some("c"));
        let value: Value = serde_json::from_str(&event).unwrap();
        assert_eq!((&value["channel_id"], &value["ts"], &value["user_id"]), (&json!("c"), &json!(1), &json!("a\"b")));
        assert!(event.contains("1.50"), "a number whose text must survive: {event}");
    }
}
