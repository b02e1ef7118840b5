//! Names and keys: parsed once at the door, always valid afterwards (clause B1).

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::limits::{KEY_BYTES, NAME_BYTES};

/// What every name keeps to, whatever it names.
pub(crate) fn check(what: &str, text: &str, limit: usize) -> Result<()> {
    if text.is_empty() {
        return Err(Error::invalid(format!("{what} is empty; give it at least one character")));
    }
    if text.len() > limit {
        return Err(Error::invalid(format!("{what} has {} bytes; the limit is {limit} bytes", text.len())));
    }
    if let Some(bad) = text.chars().find(|c| c.is_control()) {
        return Err(Error::invalid(format!(
            "{what} contains the control character {}; leave it out",
            bad.escape_unicode()
        )));
    }
    if text.trim() != text {
        return Err(Error::invalid(format!("{what} {text:?} begins or ends with white space; trim it")));
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $what:literal, $limit:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// Any Unicode but control characters, neither empty nor with white space around it.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses a name.
            ///
            /// # Errors
            /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if it is empty, too long, has a control
            /// character, or white space at either end.
            pub fn new(text: impl AsRef<str>) -> Result<Self> {
                let text = text.as_ref();
                check($what, text, $limit)?;
                Ok(Self(text.into()))
            }

            /// The name as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;
            fn try_from(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                Self::new(text)
            }
        }

        impl TryFrom<&$name> for $name {
            type Error = Error;
            fn try_from(name: &$name) -> Result<Self> {
                Ok(name.clone())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }
    )*};
}

names! {
    /// The name of a queue. At most [`NAME_BYTES`] bytes.
    QueueName, "the queue's name", NAME_BYTES;
    /// The name that a handler is registered under. At most [`NAME_BYTES`] bytes.
    Kind, "the kind", NAME_BYTES;
    /// A label of a job that a claim can ask for. At most [`NAME_BYTES`] bytes.
    Tag, "the tag", NAME_BYTES;
    /// What a worker is called by people; several may share it. At most [`NAME_BYTES`] bytes.
    WorkerName, "the worker's name", NAME_BYTES;
    /// The name of a schedule, a lock, a rate or a flow. At most [`KEY_BYTES`] bytes.
    RegisterName, "the name", KEY_BYTES;
    /// A key that only one job at a time may hold (clause P4). At most [`KEY_BYTES`] bytes.
    UniqueKey, "the unique key", KEY_BYTES;
    /// A key that bounds how many of its jobs run at once (clause C9). At most [`KEY_BYTES`] bytes.
    LimitKey, "the limit key", KEY_BYTES;
}

impl Kind {
    /// That of a job which is only there to have options.
    pub(crate) fn template() -> Self {
        Self("template".into())
    }
}

impl Default for QueueName {
    /// The queue that is used where none is named: `default`.
    fn default() -> Self {
        static DEFAULT: LazyLock<QueueName> = LazyLock::new(|| QueueName("default".into()));
        DEFAULT.clone()
    }
}

/// What stands behind the name of a root.
const SLASH: char = '/';

impl QueueName {
    /// Whether it is a root: its name ends in `/`, and every queue whose name begins with that lies under it.
    pub fn is_root(&self) -> bool {
        self.0.ends_with(SLASH)
    }

    /// The roots that it lies under, the outermost first: of `a/b/c`, `a/` and `a/b/`. A root does not lie under itself.
    pub fn roots(&self) -> impl Iterator<Item = Self> {
        let ends = self.0.match_indices(SLASH).map(|(at, _)| at + SLASH.len_utf8());
        let roots = ends.filter(|end| *end < self.0.len()).map(|end| &self.0[..end]);
        // What a name begins with up to a slash is a name.
        roots.map(|root| Self(root.into()))
    }

    /// Whether a claim that names this queue means the other one: it is that one, or a root that it lies under.
    pub fn means(&self, other: &Self) -> bool {
        self == other || self.is_root() && other.0.starts_with(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_a_name() {
        for bad in ["", " ", "a ", " a", "a\0b", "a\nb", "\u{85}", &"x".repeat(129)] {
            let error = QueueName::new(bad).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidInput, "{bad:?}");
        }
    }

    #[test]
    fn keeps_any_other_text() {
        for good in ["a", "$where", "a b", "{x}:*", "ÄØ漢字", "'; DROP TABLE jobs; --", &"x".repeat(128)]
        {
            assert_eq!(QueueName::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn knows_its_roots() {
        let name = |text: &str| QueueName::new(text).unwrap();
        let roots = |text: &str| name(text).roots().map(String::from).collect::<Vec<_>>();
        assert_eq!(roots("a/b/c"), ["a/", "a/b/"]);
        assert_eq!(roots("a/b/"), ["a/"]);
        assert_eq!(roots("/a"), ["/"]);
        assert!(roots("a/").is_empty() && roots("a").is_empty());
        for meant in ["main/", "main/a", "main/a/b", "main/a/"] {
            assert!(name("main/").means(&name(meant)), "{meant}");
        }
        for other in ["main", "main_", "mainly/", "a/main/"] {
            assert!(!name("main/").means(&name(other)), "{other}");
        }
        assert!(!name("main/a").means(&name("main/a/b")));
    }

    #[test]
    fn is_checked_when_deserialized() {
        assert!(serde_json::from_str::<Kind>("\"a\\u0000\"").is_err());
        assert_eq!(serde_json::to_string(&Kind::new("k").unwrap()).unwrap(), "\"k\"");
    }
}
