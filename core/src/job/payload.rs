use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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

/// As text where the bytes are UTF-8 and the format is one for people, else as bytes.
impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) if serializer.is_human_readable() => serializer.serialize_str(text),
            Ok(_) | Err(_) => serializer.serialize_bytes(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(TextOrBytes)
        } else {
            deserializer.deserialize_byte_buf(TextOrBytes)
        }
    }
}

struct TextOrBytes;

impl<'de> Visitor<'de> for TextOrBytes {
    type Value = Payload;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or bytes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Payload, E> {
        Ok(Payload::from(text.to_owned()))
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Payload, E> {
        Ok(Payload::from(bytes.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Payload, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = items.next_element::<u8>()? {
            bytes.push(byte);
        }
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_from_json_byte_for_byte() {
        for bytes in [&b""[..], b"\"a\\ \0 \xc3\xa4\"", b"\xff\xfe", b"[1,2]"] {
            let payload = Payload::from(bytes.to_vec());
            let json = serde_json::to_string(&payload).unwrap();
            assert_eq!(serde_json::from_str::<Payload>(&json).unwrap(), payload, "{json}");
            let value = serde_json::to_value(&payload).unwrap();
            assert_eq!(serde_json::from_value::<Payload>(value).unwrap(), payload, "{json}");
        }
        assert!(serde_json::from_str::<Payload>("[256]").is_err());
    }

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
