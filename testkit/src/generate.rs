//! Random schemas, corpora and queries that hit each other.
//!
//! Words come from a small skewed vocabulary, so that terms are shared,
//! phrases occur and scores tie.

use model::analysis::Analyzer;
use model::query::{Bound, Group, Query};
use model::schema::{Combine, Field, FieldType, Operator, Schema};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;

const WORDS: [&str; 24] = [
    "graph", "graphs", "neural", "network", "message", "passing", "index", "search", "the", "of", "a", "and",
    "query", "shard", "leaf", "root", "cache", "token", "cut", "deep", "learning", "learned", "étude",
    "漢字",
];
const TAGS: [&str; 6] = ["cs.SI", "cs.LG", "stat.ML", "math", "q-bio", "a b"];

/// A source of random things; the same seed gives the same.
pub struct Generator(StdRng);

impl Generator {
    /// Begins with a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    /// A word; early ones of the vocabulary are common.
    pub fn word(&mut self) -> &'static str {
        let skew = self.0.random_range(0.0_f64..1.0).powi(2);
        WORDS[(skew * WORDS.len() as f64) as usize]
    }

    /// One of a few schemas that differ in all that scoring depends on.
    pub fn schema(&mut self) -> Schema {
        let text = |analyzer| Field { kind: FieldType::Text, analyzer: Some(analyzer) };
        let fields = [
            ("title".into(), text(Analyzer::English)),
            ("body".into(), text(Analyzer::Standard)),
            ("tags".into(), Field::of(FieldType::Keyword)),
            ("year".into(), Field::of(FieldType::I64)),
            ("count".into(), Field::of(FieldType::U64)),
            ("rank".into(), Field::of(FieldType::F64)),
            ("open".into(), Field::of(FieldType::Bool)),
            ("at".into(), Field::of(FieldType::Date)),
        ];
        let default_fields = match self.below(3) {
            0 => vec![],
            1 => vec!["body".into()],
            _ => vec!["title".into(), "body".into(), "tags".into()],
        };
        Schema {
            fields: fields.into(),
            default_fields,
            default_operator: if self.chance(50) { Operator::And } else { Operator::Or },
            combine: if self.chance(70) { Combine::Max } else { Combine::Sum },
        }
    }

    fn text(&mut self, longest: usize) -> String {
        let words = self.0.random_range(0..=longest);
        let words: Vec<&str> = (0..words).map(|_| self.word()).collect();
        words.join([" ", ", ", " - "].choose(&mut self.0).copied().unwrap_or(" "))
    }

    /// A document with this id; any field may be absent, null or an array.
    pub fn document(&mut self, id: &str) -> String {
        let mut document = serde_json::Map::new();
        document.insert("id".into(), json!(id));
        if self.chance(90) {
            document.insert("title".into(), json!(self.text(5)));
        }
        if self.chance(95) {
            let body =
                if self.chance(20) { json!([self.text(8), self.text(8)]) } else { json!(self.text(20)) };
            document.insert("body".into(), body);
        }
        if self.chance(70) {
            let tags: Vec<&str> =
                (0..self.below(3)).filter_map(|_| TAGS.choose(&mut self.0).copied()).collect();
            document.insert("tags".into(), json!(tags));
        }
        if self.chance(80) {
            document.insert("year".into(), json!(self.0.random_range(-3..12)));
        }
        if self.chance(50) {
            document.insert("count".into(), json!([self.below(5), self.below(5)]));
        }
        if self.chance(50) {
            document.insert("rank".into(), json!(f64::from(self.0.random_range(-8_i32..8)) / 4.0));
        }
        if self.chance(50) {
            document.insert("open".into(), json!(self.chance(50)));
        }
        if self.chance(50) {
            let (day, hour) = (self.0.random_range(1..6), self.0.random_range(0..24));
            document.insert("at".into(), json!(format!("2019-01-0{day}T{hour:02}:00:00Z")));
        }
        if self.chance(10) {
            document.insert("unknown".into(), json!({"deep": [1, "x"]}));
        }
        serde_json::Value::Object(document).to_string()
    }

    fn field(&mut self) -> Option<String> {
        [None, Some("title"), Some("body")].choose(&mut self.0).copied().flatten().map(str::to_owned)
    }

    fn clause(&mut self) -> Query {
        match self.below(16) {
            0 => Query::All,
            1 | 2 => {
                let words: Vec<&str> = (0..2 + self.below(2)).map(|_| self.word()).collect();
                let slop = if self.chance(50) { 0 } else { u32::try_from(self.below(4)).unwrap_or(0) };
                Query::Phrase { field: self.field(), text: words.join(" "), slop }
            }
            3 => {
                let word = self.word();
                let end = word.char_indices().nth(1 + self.below(2)).map_or(word.len(), |(at, _)| at);
                let field =
                    [Some("title"), Some("body"), Some("tags")].choose(&mut self.0).copied().flatten();
                Query::Prefix { field: field.map(str::to_owned), text: word[..end].to_owned() }
            }
            4 => {
                let field = ["title", "body", "tags", "year", "rank", "at", "open", "id"].choose(&mut self.0);
                Query::Exists { field: field.copied().unwrap_or("id").to_owned() }
            }
            5 | 6 => self.range(),
            7 => self.exact(),
            _ => Query::Word { field: self.field(), text: self.word().to_owned() },
        }
    }

    fn exact(&mut self) -> Query {
        let (field, text) = match self.below(5) {
            0 => ("tags", TAGS.choose(&mut self.0).copied().unwrap_or("math").to_owned()),
            1 => ("year", self.0.random_range(-3..12).to_string()),
            2 => ("count", self.below(5).to_string()),
            3 => ("open", self.chance(50).to_string()),
            _ => ("rank", (f64::from(self.0.random_range(-8_i32..8)) / 4.0).to_string()),
        };
        Query::Word { field: Some(field.to_owned()), text }
    }

    fn range(&mut self) -> Query {
        let field = ["year", "count", "rank", "at", "tags"].choose(&mut self.0).copied().unwrap_or("year");
        let mut end = || {
            let text = match field {
                "year" => self.0.random_range(-3..12).to_string(),
                "count" => self.0.random_range(0..5).to_string(),
                "rank" => (f64::from(self.0.random_range(-8_i32..8)) / 4.0).to_string(),
                "at" => format!("2019-01-0{}", self.0.random_range(1..6)),
                _ => TAGS.choose(&mut self.0).copied().unwrap_or("math").to_owned(),
            };
            match self.0.random_range(0..5) {
                0 => Bound::Unbounded,
                1 | 2 => Bound::Included(text),
                _ => Bound::Excluded(text),
            }
        };
        let (lower, upper) = (end(), end());
        Query::Range { field: field.to_owned(), lower, upper }
    }

    /// A query tree of any kind, `depth` levels deep at most.
    pub fn query(&mut self, depth: usize) -> Query {
        if depth == 0 || self.chance(35) {
            return self.clause();
        }
        if self.chance(12) {
            let factor = [0.5, 2.0, 1.3, 0.7].choose(&mut self.0).copied().unwrap_or(2.0);
            return Query::Boost { query: Box::new(self.query(depth - 1)), factor };
        }
        let list = |generator: &mut Self, most: usize| -> Vec<Query> {
            (0..generator.below(most + 1)).map(|_| generator.query(depth - 1)).collect()
        };
        let group = if self.chance(40) {
            let mut should = list(self, 6);
            should.push(self.query(depth - 1));
            Group { should, ..Group::default() }
        } else {
            let (must, plain, not) = (list(self, 3), list(self, 3), list(self, 1));
            Group { must, plain, not, should: Vec::new() }
        };
        let clauses = group.must.len() + group.should.len() + group.plain.len() + group.not.len();
        if clauses == 0 { self.clause() } else { Query::Group(group) }
    }
}
