//! What others must not foresee. Nothing that is replayed is decided by it.

/// A number that nobody can foresee: identities and hash seeds are made of it.
#[expect(clippy::disallowed_methods, reason = "must be unknown to others, and decides nothing that is replayed")]
pub(crate) fn number() -> u64 {
    rand::random()
}

/// A secret of this process.
pub(crate) fn secret() -> [u8; 32] {
    let mut secret = [0; 32];
    for chunk in secret.chunks_exact_mut(8) {
        chunk.copy_from_slice(&number().to_le_bytes());
    }
    secret
}
