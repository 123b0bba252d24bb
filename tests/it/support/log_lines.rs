//! What the gateways of this process log, as the product writes it.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

use rtm_gateway::app::telemetry::JsonLine;
use serde_json::Value;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use super::waiting::found;

/// The lines so far. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct LogLines(Arc<Mutex<Vec<u8>>>);

impl Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl LogLines {
    /// All that the gateways of this process log from the first call on. One for all tests: whether a line is wanted is
    /// remembered by the process, not by the thread.
    pub(crate) fn of_this_process() -> Self {
        static LINES: OnceLock<LogLines> = OnceLock::new();
        let install = || {
            let lines = Self::default();
            // hyper and h2 trace whole heads: what the gateway itself says is what counts.
            let ours = Targets::new().with_target("rtm_gateway", tracing::Level::TRACE);
            let layer = tracing_subscriber::fmt::layer().event_format(JsonLine).with_writer(lines.clone());
            tracing::subscriber::set_global_default(tracing_subscriber::registry().with(ours).with(layer)).unwrap();
            lines
        };
        LINES.get_or_init(install).clone()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines for which this says yes.
    pub(crate) fn those(&self, is: impl Fn(&Value) -> bool) -> Vec<Value> {
        let text = self.text();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).filter(is).collect()
    }

    /// The lines of the access log of the request of this id.
    pub(crate) fn of(&self, id: &str) -> Vec<Value> {
        self.those(|line| line["target"] == "rtm_gateway::access" && line["request_id"] == id)
    }

    /// The line of that request, once it is there.
    pub(crate) async fn one(&self, id: &str) -> Value {
        found(async || self.of(id).pop()).await
    }
}
