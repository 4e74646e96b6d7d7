//! What the answer must be, worked out the slow way.
//!
//! One fresh tantivy segment of the live documents gives the statistics and
//! the scores of single clauses, by the engine's own scorers; everything else
//! (which documents match a range, how clauses combine, how hits are ordered)
//! is worked out here over the documents' values, by the definitions in
//! [`model::plan`].
//!
//! **Invariant:** shares no code with `leaf`.

use std::collections::{BTreeMap, BTreeSet};

use model::ids::id_hash;
use model::plan::{End, Node, Value};
use model::schema::{Document, FieldType, FieldValues, Schema};
use tantivy::postings::Postings;
use tantivy::query::{Bm25Weight, BoostQuery, EnableScoring, PhraseQuery, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption, SchemaBuilder, TextFieldIndexing, TextOptions};
use tantivy::tokenizer::{Token, TokenStream, Tokenizer};
use tantivy::{DocSet, Index, IndexWriter, Searcher, TERMINATED, TantivyDocument, Term};

/// A match: document number and score.
type Matches = BTreeMap<usize, f32>;

/// A hit in the order in which it must be answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// The document's id.
    pub id: String,
    /// The score's bits.
    pub score: u32,
}

/// Live documents, searchable the slow way.
pub struct Oracle {
    documents: Vec<Document>,
    searcher: Searcher,
    fields: BTreeMap<String, Field>,
}

#[derive(Clone)]
struct Analysed(model::analysis::Tokenizer, Token);
struct Stream<'a>(model::analysis::TokenStream<'a>, &'a mut Token);

impl Tokenizer for Analysed {
    type TokenStream<'a> = Stream<'a>;
    fn token_stream<'a>(&'a mut self, text: &'a str) -> Stream<'a> {
        self.1.reset();
        Stream(self.0.stream(text), &mut self.1)
    }
}

impl TokenStream for Stream<'_> {
    fn advance(&mut self) -> bool {
        let more = self.0.advance();
        if more {
            self.1.text = self.0.text().to_owned();
            self.1.position = self.0.position() as usize;
        }
        more
    }
    fn token(&self) -> &Token {
        self.1
    }
    fn token_mut(&mut self) -> &mut Token {
        self.1
    }
}

impl Oracle {
    /// Indexes the live documents of a schema.
    ///
    /// # Errors
    /// When the engine fails or a source does not validate.
    pub fn new<'a>(schema: &Schema, sources: impl IntoIterator<Item = &'a str>) -> anyhow::Result<Self> {
        let mut builder = SchemaBuilder::new();
        let mut fields = BTreeMap::new();
        for (name, field) in &schema.fields {
            if field.kind == FieldType::Text {
                let indexing = TextFieldIndexing::default()
                    .set_tokenizer(name)
                    .set_index_option(IndexRecordOption::WithFreqsAndPositions);
                let options = TextOptions::default().set_indexing_options(indexing);
                fields.insert(name.to_string(), builder.add_text_field(name, options));
            }
        }
        let index = Index::create_in_ram(builder.build());
        for (name, field) in &schema.fields {
            if field.kind == FieldType::Text {
                let tokenizer = field.analyzer.unwrap_or_default().tokenizer();
                index.tokenizers().register(name, Analysed(tokenizer, Token::default()));
            }
        }
        let mut writer: IndexWriter = index.writer_with_num_threads(1, 15_000_000)?;
        let mut documents = Vec::new();
        for source in sources {
            let document = schema.validate(source)?;
            let mut made = TantivyDocument::default();
            for (name, values) in &document.values {
                if let (Some(field), FieldValues::Text(texts)) = (fields.get(&**name), values) {
                    texts.iter().for_each(|text| made.add_text(*field, text));
                }
            }
            writer.add_document(made)?;
            documents.push(document);
        }
        writer.commit()?;
        let searcher = index.reader()?.searcher();
        anyhow::ensure!(searcher.segment_readers().len() <= 1, "the oracle needs one segment");
        Ok(Self { documents, searcher, fields })
    }

    /// Live documents.
    #[must_use]
    pub fn documents(&self) -> usize {
        self.documents.len()
    }

    /// All hits in order, of which a search returns the first few.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn search(&self, query: &Node, filter: Option<&Node>) -> anyhow::Result<Vec<Expected>> {
        let mut matches = self.matches(query)?;
        if let Some(filter) = filter {
            let allowed = self.matches(filter)?;
            matches.retain(|doc, _| allowed.contains_key(doc));
        }
        let mut hits: Vec<_> = matches.into_iter().collect();
        hits.sort_by(|(a, left), (b, right)| {
            let ids = (&self.documents[*a].id, &self.documents[*b].id);
            let hashes = (id_hash(ids.0), id_hash(ids.1));
            right.total_cmp(left).then(hashes.0.cmp(&hashes.1)).then(ids.0.cmp(ids.1))
        });
        let expected = |(doc, score): (usize, f32)| Expected {
            id: self.documents[doc].id.clone(),
            score: score.to_bits(),
        };
        Ok(hits.into_iter().map(expected).collect())
    }

    fn matches(&self, node: &Node) -> anyhow::Result<Matches> {
        Ok(match node {
            Node::None => Matches::new(),
            Node::Term { term, boost } => {
                let term = Term::from_field_text(self.fields[&*term.field], &term.text);
                let query = TermQuery::new(term, IndexRecordOption::WithFreqs);
                self.engine(Box::new(BoostQuery::new(Box::new(query), *boost)))?
            }
            Node::Phrase { field, terms, slop: 0, boost } => {
                let terms = terms.iter().map(|(offset, text)| {
                    (*offset as usize, Term::from_field_text(self.fields[&**field], text))
                });
                let query = PhraseQuery::new_with_offset(terms.collect());
                self.engine(Box::new(BoostQuery::new(Box::new(query), *boost)))?
            }
            Node::Phrase { field, terms, slop, boost } => {
                self.sloppy(self.fields[&**field], terms, *slop, *boost)?
            }
            Node::All { boost } => self.constant(*boost, |_| true),
            Node::Exact { field, value, boost } => {
                let inside = |found: &Value| found == value;
                self.constant(*boost, |document| any(document, field, &inside))
            }
            Node::Range { field, lower, upper, boost } => {
                let inside = |found: &Value| {
                    let low = match lower {
                        End::Unbounded => true,
                        End::Included(end) => found >= end,
                        End::Excluded(end) => found > end,
                    };
                    let high = match upper {
                        End::Unbounded => true,
                        End::Included(end) => found <= end,
                        End::Excluded(end) => found < end,
                    };
                    low && high
                };
                self.constant(*boost, |document| any(document, field, &inside))
            }
            Node::Exists { field, boost } => self.constant(*boost, |document| {
                **field == *"id"
                    || document.values.iter().any(|(name, values)| name == field && !empty(values))
            }),
            Node::Prefix { field, prefix, boost } => self.prefix(field, prefix, *boost)?,
            Node::Max(children) => {
                let mut best = Matches::new();
                for child in children {
                    for (doc, score) in self.matches(child)? {
                        let slot = best.entry(doc).or_insert(0.0);
                        *slot = slot.max(score);
                    }
                }
                best
            }
            Node::Bool { must, should, not } => self.boolean(must, should, not)?,
        })
    }

    fn boolean(&self, must: &[Node], should: &[Node], not: &[Node]) -> anyhow::Result<Matches> {
        let all =
            |nodes: &[Node]| nodes.iter().map(|node| self.matches(node)).collect::<anyhow::Result<Vec<_>>>();
        let (must, should, not) = (all(must)?, all(should)?, all(not)?);
        let mut matches = Matches::new();
        for doc in 0..self.documents.len() {
            let required = must.iter().all(|clause| clause.contains_key(&doc));
            let wanted = !must.is_empty() || should.iter().any(|clause| clause.contains_key(&doc));
            let excluded = not.iter().any(|clause| clause.contains_key(&doc));
            if required && wanted && !excluded {
                let mut score = 0.0;
                for clause in must.iter().chain(&should) {
                    if let Some(part) = clause.get(&doc) {
                        score += part;
                    }
                }
                matches.insert(doc, score);
            }
        }
        Ok(matches)
    }

    fn constant(&self, boost: f32, matches: impl Fn(&Document) -> bool) -> Matches {
        let numbered = self.documents.iter().enumerate();
        numbered.filter(|(_, document)| matches(document)).map(|(doc, _)| (doc, boost)).collect()
    }

    /// The engine's own scorer over the fresh segment.
    fn engine(&self, query: Box<dyn Query>) -> anyhow::Result<Matches> {
        let mut matches = Matches::new();
        let weight = query.weight(EnableScoring::enabled_from_searcher(&self.searcher))?;
        for reader in self.searcher.segment_readers() {
            let mut scorer = weight.scorer(reader, 1.0)?;
            let mut doc = scorer.doc();
            while doc != TERMINATED {
                matches.insert(doc as usize, scorer.score());
                doc = scorer.advance();
            }
        }
        Ok(matches)
    }

    fn prefix(&self, field: &str, prefix: &str, boost: f32) -> anyhow::Result<Matches> {
        let Some(engine_field) = self.fields.get(field) else {
            let inside = |found: &Value| matches!(found, Value::Keyword(text) if text.starts_with(prefix));
            return Ok(self.constant(boost, |document| any(document, field, &inside)));
        };
        let mut matches = Matches::new();
        for reader in self.searcher.segment_readers() {
            let inverted = reader.inverted_index(*engine_field)?;
            let mut terms = inverted.terms().stream()?;
            while terms.advance() {
                if terms.key().starts_with(prefix.as_bytes()) {
                    let mut postings =
                        inverted.read_postings_from_terminfo(terms.value(), IndexRecordOption::Basic)?;
                    while postings.doc() != TERMINATED {
                        matches.insert(postings.doc() as usize, boost);
                        postings.advance();
                    }
                }
            }
        }
        Ok(matches)
    }

    /// Counts sloppy phrases by trying every choice of positions from the left.
    fn sloppy(
        &self,
        field: Field,
        terms: &[(u32, std::sync::Arc<str>)],
        slop: u32,
        boost: f32,
    ) -> anyhow::Result<Matches> {
        let engine_terms: Vec<Term> =
            terms.iter().map(|(_, text)| Term::from_field_text(field, text)).collect();
        let weight = Bm25Weight::for_terms(&self.searcher, &engine_terms)?.boost_by(boost);
        let mut matches = Matches::new();
        for reader in self.searcher.segment_readers() {
            let inverted = reader.inverted_index(field)?;
            let norms = reader.get_fieldnorms_reader(field)?;
            let mut positions: Vec<BTreeMap<u32, Vec<u32>>> = Vec::new();
            for term in &engine_terms {
                let mut by_doc = BTreeMap::new();
                let option = IndexRecordOption::WithFreqsAndPositions;
                if let Some(mut postings) = inverted.read_postings(term, option)? {
                    while postings.doc() != TERMINATED {
                        let mut found = Vec::new();
                        postings.positions(&mut found);
                        by_doc.insert(postings.doc(), found);
                        postings.advance();
                    }
                }
                positions.push(by_doc);
            }
            let docs: BTreeSet<u32> = positions[0].keys().copied().collect();
            for doc in docs {
                let Some(lists) = positions.iter().map(|by_doc| by_doc.get(&doc)).collect::<Option<Vec<_>>>()
                else {
                    continue;
                };
                let count = occurrences(&lists, terms, slop);
                if count > 0 {
                    matches.insert(doc as usize, weight.score(norms.fieldnorm_id(doc), count));
                }
            }
        }
        Ok(matches)
    }
}

/// Takes, again and again, the leftmost choice that fits: whenever the chosen
/// positions do not fit, the one that lags most moves on.
fn occurrences(lists: &[&Vec<u32>], terms: &[(u32, std::sync::Arc<str>)], slop: u32) -> u32 {
    let mut rest: Vec<Vec<i64>> = lists
        .iter()
        .zip(terms)
        .map(|(list, (offset, _))| list.iter().map(|p| i64::from(*p) - i64::from(*offset)).collect())
        .collect();
    let mut count = 0;
    loop {
        let Some(heads) = rest.iter().map(|list| list.first().copied()).collect::<Option<Vec<_>>>() else {
            return count;
        };
        let (least, most) = (heads.iter().min().copied(), heads.iter().max().copied());
        let (Some(least), Some(most)) = (least, most) else { return count };
        let words: BTreeSet<i64> =
            heads.iter().zip(terms).map(|(head, (offset, _))| head + i64::from(*offset)).collect();
        if most - least <= i64::from(slop) && words.len() == heads.len() {
            count += 1;
            for list in &mut rest {
                list.remove(0);
            }
        } else {
            let lagging = heads.iter().position(|head| *head == least).unwrap_or(0);
            rest[lagging].remove(0);
        }
    }
}

fn empty(values: &FieldValues) -> bool {
    match values {
        FieldValues::Text(list) | FieldValues::Keyword(list) => list.is_empty(),
        FieldValues::I64(list) | FieldValues::Date(list) => list.is_empty(),
        FieldValues::U64(list) => list.is_empty(),
        FieldValues::F64(list) => list.is_empty(),
        FieldValues::Bool(list) => list.is_empty(),
    }
}

/// Whether any value of a field is `inside`.
fn any(document: &Document, field: &str, inside: &dyn Fn(&Value) -> bool) -> bool {
    if field == "id" {
        return inside(&Value::Keyword(document.id.clone()));
    }
    document.values.iter().filter(|(name, _)| **name == *field).any(|(_, values)| match values {
        FieldValues::Text(_) => false,
        FieldValues::Keyword(list) => list.iter().any(|v| inside(&Value::Keyword(v.clone()))),
        FieldValues::I64(list) => list.iter().any(|v| inside(&Value::I64(*v))),
        FieldValues::U64(list) => list.iter().any(|v| inside(&Value::U64(*v))),
        FieldValues::F64(list) => list.iter().any(|v| inside(&Value::F64(*v))),
        FieldValues::Bool(list) => list.iter().any(|v| inside(&Value::Bool(*v))),
        FieldValues::Date(list) => list.iter().any(|v| inside(&Value::Date(*v))),
    })
}
