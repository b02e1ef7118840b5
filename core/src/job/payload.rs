use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// The bytes of a job's arguments or result: kept verbatim, never interpreted by a store (clause P6).
///
/// Mostly JSON text, made by [`Payload::json`] and read by [`Payload::parse`]; any bytes will do.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Payload(Bytes);

impl Payload {
    /// No bytes at all.
    pub const EMPTY: Self = Self(Bytes::new());

    /// These bytes as they are.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// `value` as JSON text.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if it cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        let why = |e| Error::invalid("this value cannot be written as JSON").caused_by(e);
        serde_json::to_vec(value).map(|text| Self(text.into())).map_err(why)
    }

    /// The value that this JSON text holds. No bytes at all read as `null`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if it is no JSON or does not fit `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        let text: &[u8] = if self.0.is_empty() { b"null" } else { &self.0 };
        serde_json::from_slice(text)
            .map_err(|e| Error::invalid(format!("the payload is not a {}: {e}", std::any::type_name::<T>())))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, without copying them.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Payload {
    /// Shows the size alone: payloads may hold what must not stand in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_does_not_fit() {
        let error = Payload::from("\"text\"".to_owned()).parse::<u32>().unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("u32"), "{error}");
        assert_eq!(Payload::EMPTY.parse::<Option<u32>>().unwrap(), None);
    }

    #[test]
    fn shows_no_content() {
        assert_eq!(format!("{:?}", Payload::from("secret".to_owned())), "Payload(6 bytes)");
    }
}
