//! Reduces a stored document to the fields that were asked for.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON object's entries, values untouched, in the order in which they stand.
struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Entries<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    entries.push((entry.0.0, entry.1));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The source with only the named top-level fields, in their own order.
///
/// A source that does not parse is returned whole: it was checked on its way
/// in, so this cannot happen to a document of ours.
pub(crate) fn project(source: &Bytes, fields: &[String]) -> Bytes {
    if fields.is_empty() {
        return Bytes::new();
    }
    let Ok(entries) = serde_json::from_slice::<Entries<'_>>(source) else { return source.clone() };
    let mut reduced = Vec::with_capacity(source.len());
    reduced.push(b'{');
    for (name, value) in entries.0 {
        if fields.iter().any(|field| *field == name) {
            if reduced.len() > 1 {
                reduced.push(b',');
            }
            serde_json::to_writer(&mut reduced, &name).expect("writing to memory cannot fail");
            reduced.push(b':');
            reduced.extend_from_slice(value.get().as_bytes());
        }
    }
    reduced.push(b'}');
    reduced.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_fields_stay_as_they_were_sent() {
        let source = Bytes::from_static(br#"{"id":"1","t\u0069tle" : "a",  "n":[1, 2],"x":1.50}"#);
        let fields = ["x", "title", "absent"].map(str::to_owned);
        assert_eq!(&project(&source, &fields)[..], br#"{"title":"a","x":1.50}"#);
        assert_eq!(&project(&source, &[])[..], b"");
    }
}
