//! Text that cannot become markup.

/// Text as it may stand in an element or an attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(char),
            // HTML has no way to write these.
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn escaped_text_has_no_markup_and_loses_nothing(text in "(\\PC|[<>&\"'\n]){0,40}") {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']), "{}", escaped);
            let pairs = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
            let back = pairs.iter().fold(escaped, |text, (from, to)| text.replace(from, to));
            prop_assert_eq!(back, text);
        }
    }

    #[test]
    fn what_html_cannot_say_is_replaced() {
        assert_eq!(escape("a\u{0}b\u{1b}[m"), "a\u{fffd}b\u{fffd}[m");
    }
}
