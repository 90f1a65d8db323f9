//! punctuation
