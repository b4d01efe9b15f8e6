//! What is wrong with a configuration file: one place, one sentence.

use std::fmt;

/// One error of a configuration file. Prints as `FILE:LINE: KEY: what is wrong; what is allowed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as the caller named it.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The key, `[worker].cores` or `service[2].real_server[0].weight` (counted from 0); empty for a fault of syntax.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_place_first() {
        let mut error = ConfigError {
            file: "a.toml".into(),
            line: 3,
            key: "port[0].mtu".into(),
            message: "9 is out of range".into(),
        };
        assert_eq!(error.to_string(), "a.toml:3: port[0].mtu: 9 is out of range");
        error.key.clear();
        assert_eq!(error.to_string(), "a.toml:3: 9 is out of range");
    }
}
