//! URLs by which stores are reached. Not a whole parser: hosts and credentials are the driver's to read.

use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// A URL as it may be shown: with no user, password or options in it (clause B5).
pub fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{rest}")
}

/// What stands before the options of a URL, and these: `name=value`, joined by `&`, after a `?`.
pub fn options(url: &str) -> (&str, impl Iterator<Item = UrlOption<'_>>) {
    let (before, options) = url.split_once('?').unwrap_or((url, ""));
    let option = |text| {
        let (name, value) = str::split_once(text, '=').unwrap_or((text, ""));
        UrlOption { text, name, value }
    };
    (before, options.split('&').filter(|option| !option.is_empty()).map(option))
}

/// One option of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UrlOption<'a> {
    /// The whole of it.
    pub text: &'a str,
    /// What stands before the `=`.
    pub name: &'a str,
    /// What stands after it; empty if there is none.
    pub value: &'a str,
}

impl UrlOption<'_> {
    /// Reads its value.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if it is no such thing.
    pub fn parse<T: FromStr>(&self) -> Result<T> {
        let why = || wrong(format!("the URL option {} does not have a valid value", self.text));
        self.value.parse().map_err(|_| why())
    }

    /// Refuses it, and names those that there are.
    pub fn unknown(&self, known: &str) -> Error {
        wrong(format!("the URL option {:?} is not known; these are: {known}", self.name))
    }
}

/// Resolves `%` escapes.
///
/// # Errors
/// [`Config`](ErrorKind::Config) if one is cut off, or what they stand for is not UTF-8.
pub fn unescaped(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| wrong("a % in the URL must be followed by two hexadecimal digits"))?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).map_err(|_| wrong("what the URL escapes by % is not UTF-8"))
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_where_and_no_secret() {
        let url = "scheme://ann:hunt:er2@host:1,other:2/db?authSource=admin&x=hunter3";
        assert_eq!(shown(url), "scheme://host:1,other:2/db");
        assert_eq!(shown("a:b@c#d"), "://c");
    }

    #[test]
    fn takes_options_apart() {
        let (before, found) = options("scheme://host?a=1&&b&c=x=y");
        let found: Vec<_> = found.map(|option| (option.text, option.name, option.value)).collect();
        assert_eq!(before, "scheme://host");
        assert_eq!(found, [("a=1", "a", "1"), ("b", "b", ""), ("c=x=y", "c", "x=y")]);
        assert_eq!(options("scheme:").1.count(), 0);
        let option = options("?readers=x").1.next().unwrap();
        assert_eq!(option.parse::<u32>().unwrap_err().kind(), ErrorKind::Config);
        assert!(option.unknown("connections").message().contains("connections"));
    }

    #[test]
    fn resolves_escapes_and_refuses_halves_of_them() {
        assert_eq!(unescaped("/a%20b%C3%A4").unwrap(), "/a bä");
        for text in ["a%2", "%", "%zz", "%ff", "%C3"] {
            assert_eq!(unescaped(text).unwrap_err().kind(), ErrorKind::Config, "{text}");
        }
    }
}
