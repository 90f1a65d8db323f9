//! A model as bytes: how it is stored, sent and named.
//!
//! Format 1, little endian, no padding:
//!
//! ```text
//! magic        8   "MANGROVE"
//! version      u16 1
//! length       u64 bytes of the body
//! body:
//!   dimensions u32 10        samples  u32  rows per tree
//!   trees      u32           max_samples u32   seed u64      (as asked for)
//!   p99 f64    contamination f64    trained_rows u64    from_ms i64    to_ms i64
//!   knots      u8, then per knot raw f64, score f64
//!   per tree   nodes u32, then per node, breadth first:
//!                feature u16 (0xFFFF: a leaf), path u32 (2^-20 steps), a split also threshold f32
//! checksum     32  SHA-256 of everything before it
//! ```
//!
//! Equal models give equal bytes, and the first 16 hex digits of the checksum are the model's id. Reading trusts
//! nothing: the checksum is checked first, every count against its limit and against the bytes that are left before
//! anything is allocated; a tree's shape follows from its order, so it cannot have a cycle (see `forest::tree`).

use crate::calibration::{Calibration, KNOTS_MAX};
use crate::features::FEATURES;
use crate::forest::{Forest, Part, SAMPLES_MAX, TREES_MAX, TrainParams, Tree};
use crate::model::{Model, Window};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"MANGROVE";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = MAGIC.len() + 2 + 8;
const CHECKSUM_BYTES: usize = 32;
const LEAF: u16 = u16::MAX;
/// Bytes of the smallest node, a leaf: what a count of nodes is checked against.
const NODE_BYTES_MIN: usize = 6;
/// A binary tree of m leaves has 2m - 1 nodes.
const NODES_MAX: usize = 2 * SAMPLES_MAX - 1;

/// Why bytes are no model. Nothing of them is used; the caller fetches or trains another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArtifactError {
    /// Not a Mangrove model.
    Magic,
    /// A format that this version does not read: a newer Mangrove wrote it.
    Version(u16),
    /// Fewer or more bytes than the header says.
    Length,
    /// The checksum does not match: the bytes were changed.
    Checksum,
    /// The checksum matches, but the content is out of bounds; the text names the part.
    Content(&'static str),
}

impl fmt::Display for ArtifactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("not a Mangrove model"),
            Self::Version(found) => write!(f, "model format {found}; this version reads format {VERSION}"),
            Self::Length => f.write_str("the model is truncated or has bytes after its end"),
            Self::Checksum => f.write_str("the model's checksum does not match: its bytes were changed"),
            Self::Content(part) => write!(f, "the model's {part} is out of bounds"),
        }
    }
}

impl core::error::Error for ArtifactError {}

impl Model {
    /// The artifact: deterministic, self-checking bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        self.write_body(&mut out);
        let length = (out.len() - HEADER_BYTES) as u64;
        out[HEADER_BYTES - 8..HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
        let checksum = Sha256::digest(&out);
        out.extend_from_slice(&checksum);
        out
    }

    /// Reads an artifact.
    ///
    /// # Errors
    /// [`ArtifactError`] for any byte string that [`Self::to_bytes`] cannot have written; never panics.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ArtifactError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(ArtifactError::Magic)?;
        let mut header = Reader(rest);
        let version = u16::from_le_bytes(header.take().ok_or(ArtifactError::Length)?);
        if version != VERSION {
            return Err(ArtifactError::Version(version));
        }
        let length = u64::from_le_bytes(header.take().ok_or(ArtifactError::Length)?);
        let (body, checksum) = header.0.split_last_chunk::<CHECKSUM_BYTES>().ok_or(ArtifactError::Length)?;
        if body.len() as u64 != length {
            return Err(ArtifactError::Length);
        }
        if Sha256::digest(&bytes[..bytes.len() - CHECKSUM_BYTES]).as_slice() != checksum {
            return Err(ArtifactError::Checksum);
        }
        let mut body = Reader(body);
        let mut model = read_body(&mut body)?;
        if !body.0.is_empty() {
            return Err(ArtifactError::Content("end"));
        }
        model.id = id_of(checksum);
        Ok(model)
    }

    /// The id that the artifact's checksum gives.
    pub(crate) fn digest_id(&self) -> String {
        let bytes = self.to_bytes();
        id_of(&bytes[bytes.len() - CHECKSUM_BYTES..])
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        let counts = [self.forest.dimensions(), self.forest.samples(), self.params.trees, self.params.max_samples];
        for count in counts {
            out.extend_from_slice(&(count as u32).to_le_bytes());
        }
        out.extend_from_slice(&self.params.seed.to_le_bytes());
        out.extend_from_slice(&self.global_amount_p99.to_le_bytes());
        out.extend_from_slice(&self.contamination.to_le_bytes());
        out.extend_from_slice(&self.trained_rows.to_le_bytes());
        out.extend_from_slice(&self.window.from_ms.to_le_bytes());
        out.extend_from_slice(&self.window.to_ms.to_le_bytes());
        out.push(self.calibration.knots().len() as u8);
        for (raw, score) in self.calibration.knots() {
            out.extend_from_slice(&raw.to_le_bytes());
            out.extend_from_slice(&score.to_le_bytes());
        }
        for tree in self.forest.trees() {
            out.extend_from_slice(&(tree.len() as u32).to_le_bytes());
            for (split, path) in tree.parts() {
                out.extend_from_slice(&split.map_or(LEAF, |(feature, _)| feature as u16).to_le_bytes());
                out.extend_from_slice(&path.to_le_bytes());
                if let Some((_, threshold)) = split {
                    out.extend_from_slice(&threshold.to_le_bytes());
                }
            }
        }
    }
}

fn id_of(checksum: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    checksum[..8].iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The bytes that are still to be read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }

    fn f64(&mut self) -> Option<f64> {
        self.take().map(f64::from_le_bytes)
    }

    fn count(&mut self) -> Option<usize> {
        self.u32().map(|count| count as usize)
    }
}

/// Reads the body; the id is filled in by the caller.
fn read_body(body: &mut Reader<'_>) -> Result<Model, ArtifactError> {
    use ArtifactError::Content;
    let (dimensions, samples) = read_pair(body, "dimensions")?;
    let (trees, max_samples) = read_pair(body, "number of trees")?;
    let seed = body.u64().ok_or(Content("seed"))?;
    let global_amount_p99 = body.f64().filter(|p99| p99.is_finite()).ok_or(Content("99% quantile"))?;
    let contamination = body.f64().filter(|&c| c > 0.0 && c <= 0.5).ok_or(Content("contamination"))?;
    let trained_rows = body.u64().ok_or(Content("number of rows"))?;
    let from_ms = body.i64().ok_or(Content("window"))?;
    let to_ms = body.i64().ok_or(Content("window"))?;
    let samples_fit = (2..=SAMPLES_MAX).contains(&max_samples) && (2..=max_samples).contains(&samples);
    if from_ms > to_ms {
        return Err(Content("window"));
    }
    if dimensions != FEATURES {
        return Err(Content("number of features"));
    }
    if !samples_fit || samples as u64 != trained_rows.min(max_samples as u64) {
        return Err(Content("number of samples"));
    }
    if !(1..=TREES_MAX).contains(&trees) {
        return Err(Content("number of trees"));
    }
    let calibration = read_calibration(body).ok_or(Content("calibration"))?;
    let mut grown = Vec::with_capacity(trees.min(body.0.len() / NODE_BYTES_MIN));
    for _ in 0..trees {
        grown.push(read_tree(body, samples).ok_or(Content("tree"))?);
    }
    let forest = Forest::from_trees(grown, dimensions, samples).map_err(|_| Content("forest"))?;
    let params = TrainParams { trees, max_samples, seed };
    let window = Window { from_ms, to_ms };
    let id = String::new();
    Ok(Model { forest, calibration, global_amount_p99, contamination, trained_rows, window, params, id })
}

fn read_pair(body: &mut Reader<'_>, part: &'static str) -> Result<(usize, usize), ArtifactError> {
    body.count().zip(body.count()).ok_or(ArtifactError::Content(part))
}

fn read_calibration(body: &mut Reader<'_>) -> Option<Calibration> {
    let [count] = body.take()?;
    if usize::from(count) > KNOTS_MAX {
        return None;
    }
    let knots: Option<Vec<_>> = (0..count).map(|_| body.f64().zip(body.f64())).collect();
    Calibration::from_knots(knots?)
}

fn read_tree(body: &mut Reader<'_>, samples: usize) -> Option<Tree> {
    let count = body.count()?;
    if count == 0 || count > NODES_MAX.min(2 * samples - 1) || count > body.0.len() / NODE_BYTES_MIN {
        return None;
    }
    let mut parts: Vec<Part> = Vec::with_capacity(count);
    for _ in 0..count {
        let feature = body.u16()?;
        let path = body.u32()?;
        let split = if feature == LEAF { None } else { Some((u32::from(feature), body.take().map(f32::from_le_bytes)?)) };
        parts.push((split, path));
    }
    Tree::from_parts(parts.into_iter())
}
