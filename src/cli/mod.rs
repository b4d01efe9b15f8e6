//! temporary
/// o
#[derive(Debug)]
pub struct RunOptions;
