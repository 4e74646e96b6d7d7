//! One generation of a shard, open for searching.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use model::plan::{FieldName, TextTerm};
use tantivy::columnar::ColumnValues;
use tantivy::fastfield::AliveBitSet;
use tantivy::index::SegmentId;
use tantivy::postings::TermInfo;
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{Index, InvertedIndexReader, ReloadPolicy, Searcher, SegmentReader, Term};

use super::Error;
use super::directory::{Files, GenerationDirectory};
use super::mapping::{HASH, Mapping};
use crate::exec::ImpactCache;

/// Documents whose blocks are kept decompressed, per segment.
const STORE_BLOCKS_CACHED: usize = 100;
/// Live document frequencies kept, for all snapshots of a leaf.
const FREQUENCIES_CACHED: u64 = 200_000;

/// What the snapshots of a leaf share.
#[derive(Clone, Default)]
pub(crate) struct Caches {
    frequencies: FrequencyCache,
    impacts: ImpactCache,
    tokens: TokenCache,
}

/// Tokens of live documents by segment and column: counting them reads the
/// whole column, and most segments of a generation stood in the last one.
#[derive(Clone)]
struct TokenCache(moka::sync::Cache<(SegmentKey, String), u64>);

impl Default for TokenCache {
    fn default() -> Self {
        Self(moka::sync::Cache::new(TOKENS_CACHED))
    }
}

/// Token sums kept, for all snapshots of a leaf.
const TOKENS_CACHED: u64 = 50_000;

/// What identifies the live documents of a segment.
type SegmentKey = (SegmentId, Option<u64>);

/// Live document frequencies of segments that have deletes: counting one reads
/// the term's whole posting list. Shared by the snapshots of a leaf, since
/// generations share segments.
#[derive(Clone)]
struct FrequencyCache(moka::sync::Cache<(SegmentKey, TextTerm), u32>);

impl Default for FrequencyCache {
    fn default() -> Self {
        Self(moka::sync::Cache::new(FREQUENCIES_CACHED))
    }
}

/// A segment, with what every search needs of it at hand.
pub(crate) struct Segment {
    pub(crate) reader: SegmentReader,
    pub(crate) alive: Option<AliveBitSet>,
    hashes: Arc<dyn ColumnValues<u64>>,
    fields: BTreeMap<FieldName, TextField>,
    key: SegmentKey,
}

/// A text field of a segment.
pub(crate) struct TextField {
    pub(crate) inverted: Arc<InvertedIndexReader>,
    /// One rounded length a document.
    pub(crate) norms: Norms,
    pub(crate) field: Field,
    segment: SegmentId,
    /// Tokens of live documents.
    tokens: u64,
}

/// Raw length bytes by document.
#[derive(Clone)]
pub(crate) struct Norms(tantivy::directory::OwnedBytes);

impl Norms {
    #[inline]
    pub(crate) fn get(&self, doc: u32) -> u8 {
        self.0[doc as usize]
    }
}

impl Segment {
    pub(crate) fn hash_column(reader: &SegmentReader) -> Result<Arc<dyn ColumnValues<u64>>, Error> {
        Ok(reader.fast_fields().column_first_or_default::<u64>(HASH)?)
    }

    fn open(reader: SegmentReader, mapping: &Mapping, cache: &TokenCache) -> Result<Self, Error> {
        let alive = reader.alive_bitset().cloned();
        let hashes = Self::hash_column(&reader)?;
        let key = (reader.segment_id(), reader.delete_opstamp());
        let mut fields = BTreeMap::new();
        for (name, mapped) in mapping.text_fields() {
            let inverted = reader.inverted_index(mapped.field)?;
            let norms = match reader.fieldnorms_readers().get_inner_file().open_read(mapped.field) {
                Some(file) => file.read_bytes()?,
                None => return Err(Error::Corrupt(format!("no lengths of field {name:?}"))),
            };
            let column = (key, mapped.presence.clone());
            let tokens = match cache.0.get(&column) {
                Some(tokens) => tokens,
                None => {
                    let tokens = live_tokens(&reader, &mapped.presence)?;
                    cache.0.insert(column, tokens);
                    tokens
                }
            };
            let field = TextField {
                inverted,
                norms: Norms(norms),
                field: mapped.field,
                segment: reader.segment_id(),
                tokens,
            };
            fields.insert(name.clone(), field);
        }
        Ok(Self { reader, alive, hashes, fields, key })
    }

    /// The tie-break hash of a document.
    #[inline]
    pub(crate) fn hash(&self, doc: u32) -> u64 {
        self.hashes.get_val(doc)
    }

    #[inline]
    pub(crate) fn is_alive(&self, doc: u32) -> bool {
        self.alive.as_ref().is_none_or(|alive| alive.is_alive(doc))
    }

    pub(crate) fn text(&self, field: &str) -> Result<&TextField, Error> {
        self.fields.get(field).ok_or_else(|| Error::Corrupt(format!("no text field {field:?}")))
    }

    /// Live documents that hold `term`.
    fn live_frequency(&self, term: &TextTerm, cache: &FrequencyCache) -> Result<u64, Error> {
        let text = self.text(&term.field)?;
        let Some(info) = text.find(&term.text)? else { return Ok(0) };
        let Some(alive) = &self.alive else { return Ok(u64::from(info.doc_freq)) };
        let key = (self.key, term.clone());
        if let Some(count) = cache.0.get(&key) {
            return Ok(u64::from(count));
        }
        let postings = text.inverted.read_postings_from_terminfo(&info, IndexRecordOption::Basic)?;
        let count = postings.doc_freq_given_deletes(alive);
        cache.0.insert(key, count);
        Ok(u64::from(count))
    }
}

/// Lookups that a thread remembers: a query finds each of its terms twice, to
/// count it and to open it, a few segments and terms apart.
const FOUND_KEPT: usize = 128;

/// One remembered lookup. It holds the term, so its address names it.
struct Found {
    segment: SegmentId,
    field: Field,
    text: Arc<str>,
    info: Option<TermInfo>,
}

thread_local! {
    static FOUND: RefCell<Vec<Option<Found>>> =
        RefCell::new(std::iter::repeat_with(|| None).take(FOUND_KEPT).collect());
}

impl TextField {
    /// Where the postings of a term are.
    pub(crate) fn find(&self, text: &Arc<str>) -> Result<Option<TermInfo>, Error> {
        let address = Arc::as_ptr(text).cast::<u8>() as usize;
        let segment = Arc::as_ptr(&self.inverted) as usize;
        let slot = (address / 16 + segment / 64) % FOUND_KEPT;
        FOUND.with_borrow_mut(|found| {
            if let Some(known) = &found[slot] {
                let same = Arc::ptr_eq(&known.text, text)
                    && known.segment == self.segment
                    && known.field == self.field;
                if same {
                    return Ok(known.info.clone());
                }
            }
            let info = self.inverted.get_term_info(&Term::from_field_text(self.field, text))?;
            let (segment, field, text) = (self.segment, self.field, text.clone());
            found[slot] = Some(Found { segment, field, text, info: info.clone() });
            Ok(info)
        })
    }
}

fn live_tokens(reader: &SegmentReader, column: &str) -> Result<u64, Error> {
    let lengths = reader.fast_fields().column_first_or_default::<u64>(column)?;
    if !reader.has_deletes() {
        return Ok((0..reader.max_doc()).map(|doc| lengths.get_val(doc)).sum());
    }
    Ok(reader.doc_ids_alive().map(|doc| lengths.get_val(doc)).sum())
}

/// A generation, open.
pub(crate) struct Snapshot {
    pub(crate) mapping: Arc<Mapping>,
    pub(crate) searcher: Searcher,
    /// In the engine's order, which addresses refer to.
    pub(crate) segments: Vec<Segment>,
    /// Live documents.
    pub(crate) documents: u64,
    frequencies: FrequencyCache,
    pub(crate) impacts: ImpactCache,
}

impl Snapshot {
    /// Opens the generation whose engine meta is `meta`; empty for one without
    /// any commit.
    pub(crate) fn open(
        mapping: Arc<Mapping>,
        files: &Files,
        meta: &str,
        caches: &Caches,
    ) -> Result<Self, Error> {
        let mut index = if meta.is_empty() {
            Index::create_in_ram(mapping.engine.clone())
        } else {
            Index::open(GenerationDirectory::new(files, meta))?
        };
        index.set_tokenizers(mapping.tokenizers());
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .doc_store_cache_num_blocks(STORE_BLOCKS_CACHED)
            .try_into()?;
        let searcher = reader.searcher();
        let segments = searcher
            .segment_readers()
            .iter()
            .map(|reader| Segment::open(reader.clone(), &mapping, &caches.tokens))
            .collect::<Result<Vec<_>, _>>()?;
        let documents = searcher.num_docs();
        let Caches { frequencies, impacts, .. } = caches.clone();
        Ok(Self { mapping, searcher, segments, documents, frequencies, impacts })
    }

    /// Tokens of live documents in a text field.
    pub(crate) fn tokens(&self, field: &str) -> Result<u64, Error> {
        let mut sum = 0;
        for segment in &self.segments {
            sum += segment.text(field)?.tokens;
        }
        Ok(sum)
    }

    /// Live documents that hold `term`.
    pub(crate) fn frequency(&self, term: &TextTerm) -> Result<u64, Error> {
        let mut sum = 0;
        for segment in &self.segments {
            sum += segment.live_frequency(term, &self.frequencies)?;
        }
        Ok(sum)
    }

    /// Tokens of live documents, by text field.
    pub(crate) fn all_tokens(&self) -> BTreeMap<FieldName, u64> {
        let mut sums: BTreeMap<FieldName, u64> =
            self.mapping.text_fields().map(|(name, _)| (name.clone(), 0)).collect();
        for segment in &self.segments {
            for (name, field) in &segment.fields {
                *sums.entry(name.clone()).or_default() += field.tokens;
            }
        }
        sums
    }

    /// Reads a stored document.
    pub(crate) fn document(&self, segment: u32, doc: u32) -> Result<(String, bytes::Bytes), Error> {
        let address = tantivy::DocAddress::new(segment, doc);
        let stored: tantivy::TantivyDocument = self.searcher.doc(address)?;
        for (field, value) in stored.field_values() {
            if field == self.mapping.stored
                && let Some(bytes) = tantivy::schema::Value::as_bytes(&value)
            {
                return super::mapping::decode_stored(bytes.to_vec());
            }
        }
        Err(Error::Corrupt("a document without its source".into()))
    }

    /// Finds a live document by id.
    pub(crate) fn find(&self, id: &str) -> Result<Option<(u32, u32)>, Error> {
        let term = self.mapping.id_term(id);
        for (segment_ord, segment) in self.segments.iter().enumerate() {
            let inverted = segment.reader.inverted_index(self.mapping.id)?;
            let Some(mut postings) = inverted.read_block_postings(&term, IndexRecordOption::Basic)? else {
                continue;
            };
            while !postings.docs().is_empty() {
                if let Some(doc) = postings.docs().iter().find(|doc| segment.is_alive(**doc)) {
                    let ord = u32::try_from(segment_ord).expect("segments are few");
                    return Ok(Some((ord, *doc)));
                }
                postings.advance();
            }
        }
        Ok(None)
    }
}
