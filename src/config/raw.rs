//! The file as TOML gives it: tables and values with their positions, read without stopping at the first fault.
//!
//! serde's derived readers end at the first wrong type or unknown key; an operator wants all of them at once. So this
//! walks toml's own spanned tree. What cannot be read is noted as a [`ConfigError`] and comes back as `None`; the
//! caller goes on with a placeholder, which never leaves this module's parent because one error fails the whole file.
//! Which values make sense together is not known here.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;

use hashbrown::HashMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::suggest::nearest;

/// One file being read: its positions, and the errors found so far.
pub(super) struct Document<'a> {
    file: &'a str,
    /// Byte offset at which each line begins.
    line_starts: Vec<usize>,
    /// Line of each key that was asked for.
    lines: RefCell<HashMap<String, usize>>,
    errors: RefCell<Vec<ConfigError>>,
}

impl<'a> Document<'a> {
    /// A document without errors.
    pub(super) fn new(text: &str, file: &'a str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, line_starts, lines: RefCell::default(), errors: RefCell::default() }
    }

    /// The line, from 1, of a byte offset.
    pub(super) fn line_at(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset)
    }

    /// Notes an error.
    pub(super) fn error(&self, line: usize, key: &str, message: impl Into<String>) {
        let error = ConfigError { file: self.file.to_owned(), line, key: key.to_owned(), message: message.into() };
        self.errors.borrow_mut().push(error);
    }

    /// Notes an error that follows from what was read, unless that very key, or one below it, is faulty already:
    /// then it would only follow from the placeholder.
    pub(super) fn consequence(&self, key: &str, message: impl Into<String>) {
        if !self.is_faulty(key) {
            self.error(self.line_of(key), key, message);
        }
    }

    /// Whether a key, or one below it, has an error already.
    pub(super) fn is_faulty(&self, key: &str) -> bool {
        let is_below = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        self.errors.borrow().iter().any(|error| error.key.strip_prefix(key).is_some_and(is_below))
    }

    /// The line of a key, or of the nearest table or list around it where the key itself is not in the file.
    pub(super) fn line_of(&self, key: &str) -> usize {
        let lines = self.lines.borrow();
        let mut key = key;
        loop {
            if let Some(&line) = lines.get(key) {
                return line;
            }
            match key.rfind(['.', '[']).filter(|&at| at > 0) {
                Some(at) => key = &key[..at],
                None => return 1,
            }
        }
    }

    /// The errors in the order of their lines.
    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|error| error.line);
        errors
    }

    fn value<'d>(&'d self, key: String, line: usize, value: &'d DeValue<'d>) -> Value<'d> {
        self.lines.borrow_mut().insert(key.clone(), line);
        Value { document: self, key, line, value }
    }
}

/// A table being read, which remembers the keys that were asked for.
pub(super) struct Section<'d> {
    document: &'d Document<'d>,
    key: String,
    line: usize,
    table: Option<&'d DeTable<'d>>,
    asked: Vec<&'static str>,
}

impl<'d> Section<'d> {
    /// The whole file.
    pub(super) fn root(document: &'d Document<'d>, table: &'d DeTable<'d>) -> Self {
        Self { document, key: String::new(), line: 1, table: Some(table), asked: Vec::new() }
    }

    /// The document that it is in.
    pub(super) fn document(&self) -> &'d Document<'d> {
        self.document
    }

    /// The value of a key, if given.
    pub(super) fn get(&mut self, name: &'static str) -> Option<Value<'d>> {
        self.asked.push(name);
        let (key, value) = self.table?.get_key_value(name)?;
        let offset = match value.as_ref() {
            // A table's own position is its header; a value's line is that of its key.
            DeValue::Table(_) => value.span().start,
            _ => key.span().start,
        };
        Some(self.document.value(self.place(name), self.document.line_at(offset), value.as_ref()))
    }

    /// The value of a key that must be given.
    pub(super) fn require(&mut self, name: &'static str, allowed: &str) -> Option<Value<'d>> {
        let value = self.get(name);
        if value.is_none() {
            self.document.error(self.line, &self.place(name), format!("missing; allowed: {allowed}"));
        }
        value
    }

    /// The table `[name]`; an empty one where it is not given.
    pub(super) fn section(&mut self, name: &'static str) -> Section<'d> {
        let key = format!("[{name}]");
        let absent = Section { document: self.document, key: key.clone(), line: 1, table: None, asked: Vec::new() };
        let Some(value) = self.get(name) else { return absent };
        match value.value {
            DeValue::Table(table) => {
                self.document.lines.borrow_mut().insert(key.clone(), value.line);
                Section { line: value.line, table: Some(table), ..absent }
            }
            _ => {
                value.wrong_type(&format!("a table, [{name}]"));
                absent
            }
        }
    }

    /// The tables `[[name]]`; none where it is not given.
    pub(super) fn sections(&mut self, name: &'static str) -> Vec<Section<'d>> {
        let Some(value) = self.get(name) else { return Vec::new() };
        let allowed = format!("tables, each [[{}]]", header_path(&value.key));
        match value.value {
            DeValue::Array(_) => value.list(&allowed).into_iter().filter_map(|each| each.table(&allowed)).collect(),
            _ => {
                value.wrong_type(&allowed);
                Vec::new()
            }
        }
    }

    /// Ends the reading of this table: keys that nobody asked for are errors.
    pub(super) fn finish(self) {
        let Some(table) = self.table else { return };
        for key in table.keys() {
            let word = key.as_ref().as_ref();
            if !self.asked.contains(&word) {
                let place = if self.key.is_empty() { word.to_owned() } else { format!("{}.{word}", self.key) };
                let line = self.document.line_at(key.span().start);
                self.document.error(line, &place, unknown_key(word, &self.asked));
            }
        }
    }

    /// The place of a key in this table, for errors.
    pub(super) fn place(&self, name: &str) -> String {
        if self.key.is_empty() { name.to_owned() } else { format!("{}.{name}", self.key) }
    }
}

/// `service[2].real_server` as a header writes it: `service.real_server`.
fn header_path(key: &str) -> String {
    key.split('.').map(|part| part.split('[').next().unwrap_or(part)).collect::<Vec<_>>().join(".")
}

fn unknown_key(word: &str, asked: &[&'static str]) -> String {
    match nearest(word, asked.iter().copied()) {
        Some(meant) => format!("unknown key {word:?}; did you mean {meant:?}?"),
        None => format!("unknown key {word:?}; allowed: {}", asked.join(", ")),
    }
}

/// A value being read.
pub(super) struct Value<'d> {
    document: &'d Document<'d>,
    key: String,
    line: usize,
    value: &'d DeValue<'d>,
}

impl<'d> Value<'d> {
    /// Notes an error of this value.
    pub(super) fn error(&self, message: impl Into<String>) {
        self.document.error(self.line, &self.key, message);
    }

    /// Its line, from 1.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// A text.
    pub(super) fn text(&self, allowed: &str) -> Option<&'d str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_type(allowed);
        }
        text
    }

    /// A text that `parse` understands; its error is what is reported.
    pub(super) fn parsed<T, E: Display>(&self, allowed: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let text = self.text(allowed)?;
        parse(text).map_err(|error| self.error(error.to_string())).ok()
    }

    /// A text or a whole number that `parse` understands as it is written in decimal digits; its error is what is reported.
    pub(super) fn parsed_number_or_text<T, E: Display>(
        &self,
        allowed: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let DeValue::Integer(written) = self.value else { return self.parsed(allowed, parse) };
        let number = i128::from_str_radix(written.as_str(), written.radix());
        let text = number.map_or_else(|_| written.to_string(), |number| number.to_string());
        parse(&text).map_err(|error| self.error(error.to_string())).ok()
    }

    /// A whole number of `unit` (empty: none) within `range`.
    pub(super) fn integer<T: TryFrom<u32>>(&self, range: RangeInclusive<u32>, unit: &str) -> Option<T> {
        let separator = if unit.is_empty() { "" } else { " " };
        let allowed = format!("an integer from {} to {}{separator}{unit}", range.start(), range.end());
        let DeValue::Integer(written) = self.value else {
            self.wrong_type(&allowed);
            return None;
        };
        let number = i128::from_str_radix(written.as_str(), written.radix()).ok();
        let fits = number.and_then(|number| u32::try_from(number).ok()).filter(|number| range.contains(number));
        let value = fits.and_then(|number| T::try_from(number).ok());
        if value.is_none() {
            self.error(format!("{written} is out of range; allowed: {allowed}"));
        }
        value
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        let value = self.value.as_bool();
        if value.is_none() {
            self.wrong_type("true, false");
        }
        value
    }

    /// Whether it is the word `false`, which turns something off.
    pub(super) fn is_false(&self) -> bool {
        self.value.as_bool() == Some(false)
    }

    /// A list; empty where it is none.
    pub(super) fn list(&self, allowed: &str) -> Vec<Value<'d>> {
        let DeValue::Array(array) = self.value else {
            self.wrong_type(allowed);
            return Vec::new();
        };
        let member = |(index, each): (usize, &'d Spanned<DeValue<'d>>)| {
            let line = self.document.line_at(each.span().start);
            self.document.value(format!("{}[{index}]", self.key), line, each.as_ref())
        };
        array.iter().enumerate().map(member).collect()
    }

    /// Whether it is a list.
    pub(super) fn is_list(&self) -> bool {
        self.value.is_array()
    }

    /// A table.
    pub(super) fn table(self, allowed: &str) -> Option<Section<'d>> {
        let DeValue::Table(table) = self.value else {
            self.wrong_type(allowed);
            return None;
        };
        Some(Section { document: self.document, key: self.key, line: self.line, table: Some(table), asked: Vec::new() })
    }

    /// Notes that its type is wrong.
    pub(super) fn wrong_type(&self, allowed: &str) {
        let article = if matches!(self.value, DeValue::Integer(_) | DeValue::Array(_)) { "an" } else { "a" };
        self.error(format!("{article} {} does not fit here; allowed: {allowed}", self.value.type_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_from_one() {
        let document = Document::new("a\nb\n\nc", "f");
        assert_eq!([0, 1, 2, 4, 5].map(|at| document.line_at(at)), [1, 1, 2, 3, 4]);
    }

    #[test]
    fn consequences_of_known_errors_are_not_reported() {
        let document = Document::new("", "f");
        document.error(4, "pool[0].addresses[1]", "first");
        document.consequence("pool[0].addresses", "it is empty");
        document.consequence("pool[0].addr", "another key that only begins alike");
        let errors = document.into_errors();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert_eq!(errors[0].key, "pool[0].addr");
    }

    #[test]
    fn header_paths_have_no_indices() {
        assert_eq!(header_path("service[2].real_server"), "service.real_server");
    }
}
