//! Our analysis as the engine's tokenizer, so that both name the same terms.

use model::analysis::{TokenStream as ModelStream, Tokenizer as ModelTokenizer};
use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

#[derive(Clone)]
pub(crate) struct AnalyzerTokenizer {
    inner: ModelTokenizer,
    token: Token,
}

impl AnalyzerTokenizer {
    pub(crate) fn new(inner: ModelTokenizer) -> Self {
        Self { inner, token: Token::default() }
    }
}

pub(crate) struct AnalyzerStream<'a> {
    inner: ModelStream<'a>,
    token: &'a mut Token,
}

impl Tokenizer for AnalyzerTokenizer {
    type TokenStream<'a> = AnalyzerStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> AnalyzerStream<'a> {
        self.token.reset();
        AnalyzerStream { inner: self.inner.stream(text), token: &mut self.token }
    }
}

impl TokenStream for AnalyzerStream<'_> {
    fn advance(&mut self) -> bool {
        if !self.inner.advance() {
            return false;
        }
        let (from, to) = self.inner.offsets();
        self.token.offset_from = from;
        self.token.offset_to = to;
        self.token.position = self.inner.position() as usize;
        self.token.text.clear();
        self.token.text.push_str(self.inner.text());
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}
