//! The configuration file: any text is a configuration, or has errors that say where.

use fullgate::config::Config;

/// The input is the file; what is no UTF-8 in it is replaced.
pub fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match Config::parse(&text, "f.toml") {
        Ok(config) => {
            let _ = config.warnings();
            let scope = config.balance_scope();
            assert_eq!(config.balance.validate(&scope), Ok(()), "read without an error, and yet against the rules");
            assert!(config.sections_changed(&config.clone()).is_empty());
        }
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without saying why");
            let lines = text.split('\n').count();
            for error in &errors {
                assert!((1..=lines).contains(&error.line), "no line of the file: {error}");
                assert!(!error.message.is_empty());
            }
        }
    }
}
