//! [`PrivateUrl`]: an address whose path and query may be what opens it, as a webhook's at a chat service.
//!
//! Invariant: neither `Display` nor `Debug` shows more than where it leads. Only [`PrivateUrl::expose`] shows the rest.

use std::fmt;

use hyper::Uri;

use super::redact::MASK;

/// An address. It has a scheme and a host.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateUrl(Uri);

impl PrivateUrl {
    /// Takes ownership of an address.
    #[must_use]
    pub fn new(url: Uri) -> Self {
        Self(url)
    }

    /// The address itself, for the one place that asks it.
    #[must_use]
    pub fn expose(&self) -> &Uri {
        &self.0
    }

    /// With its path, which is public where it names a document that everybody may read; without its query.
    #[must_use]
    pub fn with_path(&self) -> String {
        let query = if self.0.query().is_some() { format!("?{MASK}") } else { String::new() };
        format!("{}{}{query}", self.origin(), self.0.path())
    }

    fn origin(&self) -> String {
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        // No address with a user gets here; were there one, it would not be shown.
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        format!("{}://{host}", self.0.scheme_str().unwrap_or("https"))
    }
}

/// Where it leads; that there is more.
impl fmt::Display for PrivateUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_bare = self.0.path() == "/" && self.0.query().is_none();
        write!(f, "{}/{}", self.origin(), if is_bare { "" } else { MASK })
    }
}

impl fmt::Debug for PrivateUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_where_it_leads_and_no_more() {
        for (url, shown, with_path) in [
            ("https://h.example/", "https://h.example/", "https://h.example/"),
            ("https://h.example", "https://h.example/", "https://h.example/"),
            ("http://h:81/hooks/s3cret", "http://h:81/<redacted>", "http://h:81/hooks/s3cret"),
            ("https://h/?key=s3cret", "https://h/<redacted>", "https://h/?<redacted>"),
            ("https://u:s3cret@[::1]:8/a?b", "https://[::1]:8/<redacted>", "https://[::1]:8/a?<redacted>"),
        ] {
            let url = PrivateUrl::new(url.parse().unwrap());
            assert_eq!(
                (url.to_string(), format!("{url:?}"), url.with_path()),
                (shown.into(), shown.into(), with_path.into())
            );
        }
    }
}
