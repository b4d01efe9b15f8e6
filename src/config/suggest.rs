//! Which allowed word a misspelt one was meant to be.

/// The allowed word nearest to `word`, if one is near enough to be meant: at most a third of it differs.
pub(crate) fn nearest<'a>(word: &str, allowed: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    let limit = (word.chars().count() / 3).max(1);
    allowed
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, candidate), candidate))
        .filter(|&(distance, _)| distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_misspelt_words_only() {
        let allowed = ["scheduler", "vip", "rx_descriptors", "tx_descriptors"];
        assert_eq!(nearest("shceduler", allowed), Some("scheduler"));
        assert_eq!(nearest("Scheduler", allowed), Some("scheduler"));
        assert_eq!(nearest("rx-descriptors", allowed), Some("rx_descriptors"));
        assert_eq!(nearest("vpi", allowed), Some("vip"));
        assert_eq!(nearest("colour", allowed), None);
    }
}
