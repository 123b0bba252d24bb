//! The page of metrics in its two forms.
//!
//! The library writes OpenMetrics. The classic text form, which scrapers and people get who do not ask for that, has
//! the same samples; the families of counters and infos have other names there, and it knows neither infos nor units.

/// A form of the page of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextForm {
    /// The classic text form, 0.0.4.
    Classic,
    OpenMetrics,
}

impl TextForm {
    /// Of those that can be asked for, in order of preference.
    pub const ALL: [Self; 2] = [Self::Classic, Self::OpenMetrics];

    /// The media type without parameters, as it is asked for.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain",
            Self::OpenMetrics => "application/openmetrics-text",
        }
    }

    /// The media type as it is answered.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A page of OpenMetrics in the classic form. There are no exemplars.
pub(super) fn classic(page: &str) -> String {
    let mut classic = String::with_capacity(page.len());
    let mut add = |parts: [&str; 4]| {
        parts.iter().for_each(|part| classic.push_str(part));
        classic.push('\n');
    };
    let mut help = "";
    for line in page.lines() {
        let described = line.strip_prefix("# ").and_then(|rest| rest.split_once(' '));
        match described {
            // Its name there depends on its type, which comes next.
            Some(("HELP", rest)) => help = rest.split_once(' ').map_or("", |(_, help)| help),
            Some(("TYPE", rest)) => {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
                let (suffix, kind) = match kind {
                    "counter" => ("_total ", "counter"),
                    "info" => ("_info ", "gauge"),
                    "gauge" | "histogram" | "summary" => (" ", kind),
                    _ => (" ", "untyped"),
                };
                add(["# HELP ", name, suffix, help]);
                add(["# TYPE ", name, suffix, kind]);
            }
            Some(("UNIT", _)) => {}
            _ if line == "# EOF" => {}
            _ => add([line, "", "", ""]),
        }
    }
    classic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_openmetrics_has_the_same_samples_in_the_classic_form_under_its_names() {
        let page = "# HELP a What \\n it counts.\n# TYPE a counter\na_total{x=\"# TYPE b counter\"} 1\n\
                    # HELP b Built.\n# TYPE b info\nb_info{v=\"1\"} 1\n\
                    # HELP c_seconds Waited.\n# TYPE c_seconds histogram\n# UNIT c_seconds seconds\nc_seconds_sum 0.5\n\
                    # HELP d Now.\n# TYPE d gauge\n# HELP e Whatever.\n# TYPE e unknown\ne 1\n# EOF\n";
        let classic_page = "# HELP a_total What \\n it counts.\n# TYPE a_total counter\na_total{x=\"# TYPE b counter\"} 1\n\
                    # HELP b_info Built.\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n\
                    # HELP c_seconds Waited.\n# TYPE c_seconds histogram\nc_seconds_sum 0.5\n\
                    # HELP d Now.\n# TYPE d gauge\n# HELP e Whatever.\n# TYPE e untyped\ne 1\n";
        assert_eq!(classic(page), classic_page);
    }
}
