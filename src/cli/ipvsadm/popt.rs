//! Words of a command line to options, as the library does that ipvsadm uses (popt 1.19): long names written out, with
//! `=` or the next word for an argument; letters in clusters, the last of which may have its argument in the same word,
//! with or without `=`; words that are no options in between; nothing but such words after `--`.

use super::options::{Entry, Takes, by_letter, by_long_name};

/// What is wrong with a word, in popt's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word}: {reason}")]
pub(super) struct PoptError {
    /// The word.
    word: String,
    /// What is wrong with it.
    reason: &'static str,
}

const UNKNOWN: &str = "unknown option";
const UNWANTED: &str = "option does not take an argument";
const MISSING: &str = "missing argument";

/// An option with its argument, and the word that it was in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub(super) entry: &'static Entry,
    pub(super) argument: Option<&'a str>,
    pub(super) word: &'a str,
}

/// A command line that is being read.
#[derive(Clone, Debug)]
pub(super) struct Words<'a> {
    words: &'a [String],
    next: usize,
    /// What is left of a cluster of letters.
    cluster: &'a str,
    only_others: bool,
    others: Vec<&'a str>,
}

impl<'a> Words<'a> {
    pub(super) fn new(words: &'a [String]) -> Self {
        Self { words, next: 0, cluster: "", only_others: false, others: Vec::new() }
    }

    /// The words that were no options, once all options are read.
    pub(super) fn others(self) -> Vec<&'a str> {
        self.others
    }

    fn take(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.next)?;
        self.next += 1;
        Some(word)
    }

    fn error(&self, reason: &'static str) -> PoptError {
        let word = self.next.checked_sub(1).and_then(|index| self.words.get(index));
        PoptError { word: word.cloned().unwrap_or_default(), reason }
    }

    /// The next option. `on_real_server`: whether the command was one on real servers.
    pub(super) fn next(&mut self, on_real_server: bool) -> Result<Option<Found<'a>>, PoptError> {
        while self.cluster.is_empty() {
            let Some(word) = self.take() else { return Ok(None) };
            match word.strip_prefix('-') {
                Some(rest) if !self.only_others && !rest.is_empty() => match rest.strip_prefix('-') {
                    Some("") => self.only_others = true,
                    Some(long) => return self.long(long).map(Some),
                    None => self.cluster = rest,
                },
                _ => self.others.push(word),
            }
        }
        self.letter(on_real_server).map(Some)
    }

    fn long(&mut self, text: &'a str) -> Result<Found<'a>, PoptError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let entry = by_long_name(name).ok_or_else(|| self.error(UNKNOWN))?;
        self.found(entry, value)
    }

    fn letter(&mut self, on_real_server: bool) -> Result<Found<'a>, PoptError> {
        let mut letters = self.cluster.chars();
        let entry = letters.next().and_then(|letter| by_letter(letter, on_real_server));
        let entry = entry.ok_or_else(|| self.error(UNKNOWN))?;
        let rest = letters.as_str();
        if entry.takes == Takes::Nothing {
            if rest.starts_with('=') {
                return Err(self.error(UNWANTED));
            }
            self.cluster = rest;
            return self.found(entry, None);
        }
        self.cluster = "";
        let value = (!rest.is_empty()).then(|| rest.strip_prefix('=').unwrap_or(rest));
        self.found(entry, value)
    }

    /// The option with the argument that its word has, or with the next word.
    fn found(&mut self, entry: &'static Entry, value: Option<&'a str>) -> Result<Found<'a>, PoptError> {
        let word = self.words.get(self.next.saturating_sub(1)).map_or("", String::as_str);
        let argument = match (entry.takes, value) {
            (Takes::Nothing, Some(_)) => return Err(self.error(UNWANTED)),
            (Takes::Nothing, None) => None,
            (_, Some(value)) => Some(value),
            (Takes::Value, None) => Some(self.take().ok_or_else(|| self.error(MISSING))?),
            (Takes::Optional, None) => match self.words.get(self.next) {
                Some(next) if !next.starts_with('-') => self.take(),
                _ => None,
            },
        };
        Ok(Found { entry, argument, word })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The options of a command line, as text, with the words that are none behind a bar.
    fn read(line: &str) -> Result<String, String> {
        let words: Vec<String> = line.split_whitespace().map(|word| word.replace("''", "")).collect();
        let mut reader = Words::new(&words);
        let mut found = Vec::new();
        while let Some(Found { entry, argument, .. }) = reader.next(false).map_err(|error| error.to_string())? {
            found.push(argument.map_or(entry.long.to_owned(), |argument| format!("{}={argument}", entry.long)));
        }
        Ok(format!("{} | {}", found.join(" "), reader.others().join(" ")))
    }

    #[test]
    fn letters_come_in_clusters() {
        assert_eq!(read("-Lnc").unwrap(), "list numeric connection | ");
        assert_eq!(read("-At 1.2.3.4:80 -srr").unwrap(), "add-service tcp-service=1.2.3.4:80 scheduler=rr | ");
        assert_eq!(read("-At=1.2.3.4:80 -s=rr").unwrap(), "add-service tcp-service=1.2.3.4:80 scheduler=rr | ");
        assert_eq!(read("-w -1").unwrap(), "weight=-1 | ");
        assert_eq!(read("-p -n").unwrap(), "persistent numeric | ");
        assert_eq!(read("-p 5 -p7 -p").unwrap(), "persistent=5 persistent=7 persistent | ");
        assert_eq!(read("--persistent= --weight=").unwrap(), "persistent= weight= | ");
    }

    #[test]
    fn other_words_are_kept_aside() {
        assert_eq!(read("a --set 1 - 2 -- -n").unwrap(), "set | a 1 - 2 -n");
        assert_eq!(read("'' -L").unwrap(), "list | ");
    }

    #[test]
    fn mistakes_are_told_with_the_word() {
        assert_eq!(read("-Lq").unwrap_err(), "-Lq: unknown option");
        assert_eq!(read("--lis").unwrap_err(), "--lis: unknown option");
        assert_eq!(read("-L --numeric=3").unwrap_err(), "--numeric=3: option does not take an argument");
        assert_eq!(read("-Ln=").unwrap_err(), "-Ln=: option does not take an argument");
        assert_eq!(read("-Lw").unwrap_err(), "-Lw: missing argument");
        assert_eq!(read("--weight").unwrap_err(), "--weight: missing argument");
    }
}
