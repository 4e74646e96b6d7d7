//! Text to terms, without an engine.
//!
//! ```text
//! "Message-Passing, 2nd ed."
//!    │ maximal runs of alphanumeric characters, lowercased
//!    ├─► message@0 passing@1 2nd@2 ed@3
//!    │ stemmed, for a language
//!    └─► messag@0  pass@1    2nd@2 ed@3
//! ```
//!
//! **Invariant:** the same text and analyser give the same terms in every
//! process and release: terms name statistics and stand in stored segments.

mod stems;

use rust_stemmers::Algorithm;
use serde::{Deserialize, Serialize};

use self::stems::Stems;

/// Longest term, in bytes, after lowercasing. Longer runs are no words but
/// encoded data, and would bloat the dictionary; they keep their position.
pub const TERM_BYTES_MAX: usize = 255;

/// How text becomes terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Analyzer {
    /// Runs of alphanumeric characters, lowercased.
    Standard,
    /// `standard`, then the Snowball stemmer of Arabic.
    Arabic,
    /// `standard`, then the Snowball stemmer of Danish.
    Danish,
    /// `standard`, then the Snowball stemmer of Dutch.
    Dutch,
    /// `standard`, then the Snowball stemmer of English.
    #[default]
    English,
    /// `standard`, then the Snowball stemmer of Finnish.
    Finnish,
    /// `standard`, then the Snowball stemmer of French.
    French,
    /// `standard`, then the Snowball stemmer of German.
    German,
    /// `standard`, then the Snowball stemmer of Greek.
    Greek,
    /// `standard`, then the Snowball stemmer of Hungarian.
    Hungarian,
    /// `standard`, then the Snowball stemmer of Italian.
    Italian,
    /// `standard`, then the Snowball stemmer of Norwegian.
    Norwegian,
    /// `standard`, then the Snowball stemmer of Portuguese.
    Portuguese,
    /// `standard`, then the Snowball stemmer of Romanian.
    Romanian,
    /// `standard`, then the Snowball stemmer of Russian.
    Russian,
    /// `standard`, then the Snowball stemmer of Spanish.
    Spanish,
    /// `standard`, then the Snowball stemmer of Swedish.
    Swedish,
    /// `standard`, then the Snowball stemmer of Tamil.
    Tamil,
    /// `standard`, then the Snowball stemmer of Turkish.
    Turkish,
}

impl Analyzer {
    /// Every analyser.
    pub const ALL: [Self; 19] = [
        Self::Standard,
        Self::Arabic,
        Self::Danish,
        Self::Dutch,
        Self::English,
        Self::Finnish,
        Self::French,
        Self::German,
        Self::Greek,
        Self::Hungarian,
        Self::Italian,
        Self::Norwegian,
        Self::Portuguese,
        Self::Romanian,
        Self::Russian,
        Self::Spanish,
        Self::Swedish,
        Self::Tamil,
        Self::Turkish,
    ];

    /// What splits text for this analyser: cheap, to be kept by an engine.
    #[must_use]
    pub fn tokenizer(self) -> Tokenizer {
        Tokenizer { algorithm: self.algorithm() }
    }

    /// The terms of `text` with their positions, ascending. Positions of
    /// dropped runs are left out.
    #[must_use]
    pub fn terms(self, text: &str) -> Vec<(u32, String)> {
        let mut stream = self.tokenizer().stream(text);
        let mut terms = Vec::new();
        while stream.advance() {
            terms.push((stream.position(), stream.text().to_owned()));
        }
        terms
    }

    /// The beginning of a word as terms begin: lowercased, never stemmed.
    #[must_use]
    pub fn prefix(self, text: &str) -> String {
        text.chars().flat_map(char::to_lowercase).collect()
    }

    fn algorithm(self) -> Option<Algorithm> {
        match self {
            Self::Standard => None,
            Self::Arabic => Some(Algorithm::Arabic),
            Self::Danish => Some(Algorithm::Danish),
            Self::Dutch => Some(Algorithm::Dutch),
            Self::English => Some(Algorithm::English),
            Self::Finnish => Some(Algorithm::Finnish),
            Self::French => Some(Algorithm::French),
            Self::German => Some(Algorithm::German),
            Self::Greek => Some(Algorithm::Greek),
            Self::Hungarian => Some(Algorithm::Hungarian),
            Self::Italian => Some(Algorithm::Italian),
            Self::Norwegian => Some(Algorithm::Norwegian),
            Self::Portuguese => Some(Algorithm::Portuguese),
            Self::Romanian => Some(Algorithm::Romanian),
            Self::Russian => Some(Algorithm::Russian),
            Self::Spanish => Some(Algorithm::Spanish),
            Self::Swedish => Some(Algorithm::Swedish),
            Self::Tamil => Some(Algorithm::Tamil),
            Self::Turkish => Some(Algorithm::Turkish),
        }
    }
}

/// Splits texts for one analyser.
#[derive(Clone, Copy, Debug)]
pub struct Tokenizer {
    algorithm: Option<Algorithm>,
}

impl Tokenizer {
    /// Starts on `text`.
    #[must_use]
    pub fn stream<'a>(&self, text: &'a str) -> TokenStream<'a> {
        TokenStream {
            words: Words::new(text),
            stems: self.algorithm.map(Stems::new),
            short_is_stem: self.algorithm == Some(Algorithm::English),
            stem: String::new(),
            stemmed: false,
        }
    }

    /// How many tokens `stream` gives for `text`, without stemming them.
    #[must_use]
    pub fn count(&self, text: &str) -> u64 {
        let mut words = Words::new(text);
        let mut count = 0;
        while words.advance() {
            count += 1;
        }
        count
    }
}

/// The tokens of one text, one at a time, in reused buffers.
///
/// Before the first [`advance`](Self::advance) and after it said `false` the
/// accessors give the last token or nothing.
pub struct TokenStream<'a> {
    words: Words<'a>,
    stems: Option<Stems>,
    /// Words of at most two letters have no ending in this language.
    short_is_stem: bool,
    stem: String,
    stemmed: bool,
}

impl std::fmt::Debug for TokenStream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenStream").field("words", &self.words).finish_non_exhaustive()
    }
}

impl TokenStream<'_> {
    /// Moves to the next token; `false` when there is none.
    pub fn advance(&mut self) -> bool {
        self.stemmed = false;
        if !self.words.advance() {
            return false;
        }
        let Some(stems) = &self.stems else {
            return true;
        };
        let word = self.words.buffer.as_str();
        if self.short_is_stem && word.len() <= 2 {
            return true;
        }
        stems.stem(word, &mut self.stem);
        self.stemmed = true;
        true
    }

    /// The term.
    #[must_use]
    pub fn text(&self) -> &str {
        if self.stemmed { &self.stem } else { &self.words.buffer }
    }

    /// The place of the token in the text, from 0, dropped ones counted.
    #[must_use]
    pub fn position(&self) -> u32 {
        self.words.position
    }

    /// The bytes of the text that the token was made of, from and to.
    #[must_use]
    pub fn offsets(&self) -> (usize, usize) {
        (self.words.from, self.words.at)
    }
}

/// The lowercased words of a text.
#[derive(Debug)]
struct Words<'a> {
    text: &'a str,
    at: usize,
    from: usize,
    position: u32,
    next_position: u32,
    buffer: String,
}

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, from: 0, position: 0, next_position: 0, buffer: String::new() }
    }

    fn advance(&mut self) -> bool {
        loop {
            if !self.skip() {
                return false;
            }
            self.from = self.at;
            let fits = self.take();
            self.position = self.next_position;
            self.next_position = self.next_position.saturating_add(1);
            if fits {
                return true;
            }
        }
    }

    /// Moves to the next alphanumeric character.
    fn skip(&mut self) -> bool {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            if byte.is_ascii_alphanumeric() {
                return true;
            }
            if byte.is_ascii() {
                self.at += 1;
                continue;
            }
            let Some(c) = self.character() else {
                return false;
            };
            if c.is_alphanumeric() {
                return true;
            }
            self.at += c.len_utf8();
        }
        false
    }

    /// Takes the run that starts here; says whether it fits a term.
    fn take(&mut self) -> bool {
        let bytes = self.text.as_bytes();
        self.buffer.clear();
        loop {
            let run = self.at;
            while bytes.get(self.at).is_some_and(u8::is_ascii_alphanumeric) {
                self.at += 1;
            }
            // What is too long already needs no more copying.
            if self.buffer.len() <= TERM_BYTES_MAX {
                self.buffer.push_str(&self.text[run..self.at]);
            }
            if bytes.get(self.at).is_none_or(u8::is_ascii) {
                break;
            }
            let Some(c) = self.character().filter(|c| c.is_alphanumeric()) else {
                break;
            };
            self.at += c.len_utf8();
            if self.buffer.len() <= TERM_BYTES_MAX {
                self.buffer.extend(c.to_lowercase());
            }
        }
        self.buffer.make_ascii_lowercase();
        self.buffer.len() <= TERM_BYTES_MAX
    }

    fn character(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(analyzer: Analyzer, text: &str) -> Vec<String> {
        analyzer.terms(text).into_iter().map(|(_, term)| term).collect()
    }

    #[test]
    fn words_are_alphanumeric_runs_in_lower_case() {
        let text = "Message-Passing, 2nd éd. ÜBER x_y";
        let expected = ["message", "passing", "2nd", "éd", "über", "x", "y"];
        assert_eq!(words(Analyzer::Standard, text), expected);
        assert!(words(Analyzer::Standard, " \t-.,!¿…").is_empty());
        assert!(words(Analyzer::English, "").is_empty());
    }

    #[test]
    fn english_words_lose_their_endings() {
        let text = "Titles of running networks are relational";
        assert_eq!(words(Analyzer::English, text), ["titl", "of", "run", "network", "are", "relat"]);
        assert_eq!(words(Analyzer::German, "Häuser"), ["haus"]);
    }

    #[test]
    fn offsets_point_into_the_text() {
        let text = "é, Über alles";
        let mut stream = Analyzer::Standard.tokenizer().stream(text);
        let mut seen = Vec::new();
        while stream.advance() {
            let (from, to) = stream.offsets();
            seen.push((stream.position(), &text[from..to]));
        }
        assert_eq!(seen, [(0, "é"), (1, "Über"), (2, "alles")]);
    }

    #[test]
    fn a_token_that_is_too_long_keeps_its_position() {
        let text = format!("a {} b {} c", "x".repeat(256), "y".repeat(255));
        let terms = Analyzer::Standard.terms(&text);
        let positions: Vec<u32> = terms.iter().map(|(position, _)| *position).collect();
        assert_eq!(positions, [0, 2, 3, 4]);
        assert_eq!(Analyzer::Standard.tokenizer().count(&text), 4);
        // Lowercasing makes this letter longer: 128 × 2 bytes become 128 × 3.
        assert!(Analyzer::Standard.terms(&"İ".repeat(120)).is_empty());
    }

    #[test]
    fn names_are_those_of_the_languages() {
        for analyzer in Analyzer::ALL {
            let text = serde_json::to_string(&analyzer).unwrap();
            assert_eq!(text, format!("\"{analyzer:?}\"").to_lowercase());
        }
        assert_eq!(Analyzer::default(), Analyzer::English);
    }

    #[test]
    fn a_prefix_is_lowercased_only() {
        assert_eq!(Analyzer::English.prefix("Titles"), "titles");
    }

    proptest! {
        #[test]
        fn no_text_panics_in_any_language(text in "\\PC*") {
            for analyzer in Analyzer::ALL {
                let terms = analyzer.terms(&text);
                prop_assert_eq!(terms.len() as u64, analyzer.tokenizer().count(&text));
                prop_assert!(terms.iter().all(|(_, term)| !term.is_empty()));
            }
        }

        #[test]
        fn no_word_of_a_script_panics_its_stemmer(
            word in "[a-zàâçéèêëîïôûùüÿñæœåäöøßğışőű]{0,12}|[а-яё]{0,12}|[α-ωάέήίόύώϊϋΐΰς]{0,12}|[ء-ي]{0,12}|[அ-ஹ]{0,12}",
            ending in "(ing|ed|ies|ational|mente|heit|lerin|ость|ιων|ات)?",
        ) {
            for analyzer in Analyzer::ALL {
                let _ = analyzer.terms(&format!("{word}{ending}"));
            }
        }
    }
}
