//! Text to HTML, and nothing of it as HTML.

/// Text for an element or an attribute, whatever is in it.
pub fn escaped(text: &str) -> String {
    let text = crate::devices::printable(text.as_bytes());
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            char => out.push(char),
        }
    }
    out
}

/// The same in an element.
pub fn tagged(tag: &str, text: &str) -> String {
    format!("<{tag}>{}</{tag}>", escaped(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_becomes_markup() {
        assert_eq!(
            escaped("<b a='x' c=\"y\">&amp;\n\x1b\u{202e}"),
            "&lt;b a=&#39;x&#39; c=&quot;y&quot;&gt;&amp;amp;\\x0a\\x1b\\xe2\\x80\\xae"
        );
        assert_eq!(tagged("td", "</td>"), "<td>&lt;/td&gt;</td>");
    }

    proptest! {
        #[test]
        fn any_text_stays_text(text in any::<String>()) {
            let safe = escaped(&text);
            prop_assert!(!safe.contains(['<', '>', '"', '\'']));
            prop_assert!(!safe.contains(char::is_control));
            let back = safe
                .replace("&lt;", "<")
                .replace("&gt;", ">")
                .replace("&quot;", "\"")
                .replace("&#39;", "'")
                .replace("&amp;", "&");
            prop_assert_eq!(back, crate::devices::printable(text.as_bytes()));
        }
    }
}
