//! A schema's fields as the engine's.
//!
//! **Invariant:** every segment carries, beside the schema's fields,
//! `_id` (indexed, to replace and delete), `_hash` (the tie-break hash of the
//! id), `_doc` (id and source, stored) and for each text field `_len.{field}`
//! (its exact number of tokens, since the engine's own norms are rounded and
//! its sums count deleted documents).

use std::collections::HashMap;

use bytes::Bytes;
use model::analysis::{Analyzer, Tokenizer};
use model::ids::id_hash;
use model::plan::{FieldName, Value};
use model::schema::{Document, Field as SchemaField, FieldType, FieldValues, Schema};
use tantivy::schema::{
    DateOptions, DateTimePrecision, FAST, Field, IndexRecordOption, NumericOptions, STORED, STRING,
    SchemaBuilder, TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::TokenizerManager;
use tantivy::{DateTime, TantivyDocument, Term};

use super::Error;
use super::tokenizer::AnalyzerTokenizer;

/// Name of the hash column.
pub(crate) const HASH: &str = "_hash";
/// Name of the id field in the engine.
const ID: &str = "_id";

/// One field of the schema in the engine.
#[derive(Clone)]
pub(crate) struct Mapped {
    pub(crate) field: Field,
    pub(crate) kind: FieldType,
    /// The column whose presence says that a document has the field.
    pub(crate) presence: String,
    /// The length column of a text field.
    length: Option<Field>,
    tokenizer: Option<Tokenizer>,
}

/// A schema and its mapping.
#[derive(Clone)]
pub(crate) struct Mapping {
    pub(crate) engine: tantivy::schema::Schema,
    pub(crate) schema: Schema,
    pub(crate) id: Field,
    hash: Field,
    pub(crate) stored: Field,
    fields: HashMap<FieldName, Mapped>,
}

fn tokenizer_name(analyzer: Analyzer) -> String {
    format!("windrow_{analyzer:?}").to_lowercase()
}

impl Mapping {
    pub(crate) fn new(schema: &Schema) -> Self {
        let mut builder = SchemaBuilder::new();
        let id = builder.add_text_field(ID, STRING);
        let hash = builder.add_u64_field(HASH, FAST);
        let stored = builder.add_bytes_field("_doc", STORED);
        let mut fields = HashMap::new();
        for (name, field) in &schema.fields {
            fields.insert(name.clone(), Self::add(&mut builder, name, field));
        }
        let id_field = Mapped {
            field: id,
            kind: FieldType::Keyword,
            presence: HASH.to_owned(),
            length: None,
            tokenizer: None,
        };
        fields.insert("id".into(), id_field);
        Self { engine: builder.build(), schema: schema.clone(), id, hash, stored, fields }
    }

    fn add(builder: &mut SchemaBuilder, name: &str, field: &SchemaField) -> Mapped {
        let numeric = NumericOptions::default().set_fast();
        let mut presence = name.to_owned();
        let mut length = None;
        let mut tokenizer = None;
        let engine_field = match field.kind {
            FieldType::Text => {
                let analyzer = field.analyzer.unwrap_or_default();
                tokenizer = Some(analyzer.tokenizer());
                presence = format!("_len.{name}");
                length = Some(builder.add_u64_field(&presence, FAST));
                let indexing = TextFieldIndexing::default()
                    .set_tokenizer(&tokenizer_name(analyzer))
                    .set_index_option(IndexRecordOption::WithFreqsAndPositions);
                builder.add_text_field(name, TextOptions::default().set_indexing_options(indexing))
            }
            FieldType::Keyword => {
                let indexing = TextFieldIndexing::default()
                    .set_tokenizer("raw")
                    .set_fieldnorms(false)
                    .set_index_option(IndexRecordOption::Basic);
                let options = TextOptions::default().set_indexing_options(indexing).set_fast("raw");
                builder.add_text_field(name, options)
            }
            FieldType::I64 => builder.add_i64_field(name, numeric),
            // The engine has no ranges over its own bools.
            FieldType::U64 | FieldType::Bool => builder.add_u64_field(name, numeric),
            FieldType::F64 => builder.add_f64_field(name, numeric),
            FieldType::Date => {
                let options =
                    DateOptions::default().set_fast().set_precision(DateTimePrecision::Microseconds);
                builder.add_date_field(name, options)
            }
        };
        Mapped { field: engine_field, kind: field.kind, presence, length, tokenizer }
    }

    /// The tokenizers that the mapping's fields name.
    pub(crate) fn tokenizers(&self) -> TokenizerManager {
        let manager = TokenizerManager::default();
        for field in self.schema.fields.values() {
            if field.kind == FieldType::Text {
                let analyzer = field.analyzer.unwrap_or_default();
                manager.register(&tokenizer_name(analyzer), AnalyzerTokenizer::new(analyzer.tokenizer()));
            }
        }
        manager
    }

    pub(crate) fn get(&self, name: &str) -> Result<&Mapped, Error> {
        self.fields.get(name).ok_or_else(|| Error::Corrupt(format!("no field {name:?}")))
    }

    /// The text fields by name.
    pub(crate) fn text_fields(&self) -> impl Iterator<Item = (&FieldName, &Mapped)> {
        self.fields.iter().filter(|(_, mapped)| mapped.kind == FieldType::Text)
    }

    pub(crate) fn id_term(&self, id: &str) -> Term {
        Term::from_field_text(self.id, id)
    }

    /// Makes the engine's document of a validated one.
    pub(crate) fn document(&self, document: &Document, source: &Bytes) -> Result<TantivyDocument, Error> {
        let mut made = TantivyDocument::default();
        made.add_text(self.id, &document.id);
        made.add_u64(self.hash, id_hash(&document.id));
        made.add_bytes(self.stored, &encode_stored(&document.id, source));
        for (name, values) in &document.values {
            let mapped = self.get(name)?;
            let field = mapped.field;
            match values {
                FieldValues::Text(texts) => {
                    let mut tokens = 0_u64;
                    for text in texts {
                        tokens += mapped.count_tokens(text);
                        made.add_text(field, text);
                    }
                    if let Some(length) = mapped.length {
                        made.add_u64(length, tokens);
                    }
                }
                FieldValues::Keyword(words) => words.iter().for_each(|word| made.add_text(field, word)),
                FieldValues::I64(numbers) => numbers.iter().for_each(|n| made.add_i64(field, *n)),
                FieldValues::U64(numbers) => numbers.iter().for_each(|n| made.add_u64(field, *n)),
                FieldValues::F64(numbers) => numbers.iter().for_each(|n| made.add_f64(field, *n)),
                FieldValues::Bool(flags) => {
                    flags.iter().for_each(|flag| made.add_u64(field, u64::from(*flag)))
                }
                FieldValues::Date(dates) => {
                    dates.iter().for_each(|at| made.add_date(field, DateTime::from_timestamp_micros(*at)))
                }
            }
        }
        Ok(made)
    }
}

impl Mapped {
    fn count_tokens(&self, text: &str) -> u64 {
        let Some(tokenizer) = &self.tokenizer else { return 0 };
        tokenizer.count(text)
    }

    /// The engine's term for a value of this field, as queries name it.
    pub(crate) fn term(&self, value: &Value) -> Term {
        match value {
            Value::Keyword(text) => Term::from_field_text(self.field, text),
            Value::I64(n) => Term::from_field_i64(self.field, *n),
            Value::U64(n) => Term::from_field_u64(self.field, *n),
            Value::F64(n) => Term::from_field_f64(self.field, *n),
            Value::Bool(flag) => Term::from_field_u64(self.field, u64::from(*flag)),
            Value::Date(at) => Term::from_field_date(self.field, DateTime::from_timestamp_micros(*at)),
        }
    }
}

/// `[id length, 2 bytes little endian][id][source]`.
fn encode_stored(id: &str, source: &[u8]) -> Vec<u8> {
    let length = u16::try_from(id.len()).expect("ids are at most a kilobyte");
    let mut bytes = Vec::with_capacity(2 + id.len() + source.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(id.as_bytes());
    bytes.extend_from_slice(source);
    bytes
}

/// Splits stored bytes into id and source.
pub(crate) fn decode_stored(bytes: Vec<u8>) -> Result<(String, Bytes), Error> {
    let corrupt = || Error::Corrupt("a stored document does not decode".into());
    let (length, rest) = bytes.split_first_chunk::<2>().ok_or_else(corrupt)?;
    let length = usize::from(u16::from_le_bytes(*length));
    let id = rest.get(..length).ok_or_else(corrupt)?;
    let id = std::str::from_utf8(id).map_err(|_| corrupt())?.to_owned();
    Ok((id, Bytes::from(bytes).slice(2 + length..)))
}
