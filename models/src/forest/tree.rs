//! One isolation tree as an array of 16-byte nodes, in breadth-first order.
//!
//! The two children of a split lie side by side after it, and the k-th split's children are nodes 2k+1 and 2k+2: a tree
//! is a list of nodes that are either splits or leaves, nothing else has to be stored, and no list can have a cycle.
//!
//! A leaf is a split that loops: its threshold is NaN, which nothing exceeds, and its left child is itself. So a walk
//! needs no test for the end: `height` steps of `node = left + (x > threshold)` end in the right leaf for every row.
//!
//! Invariants: at least one node; every child index is in the list; features are below [`Tree::dimensions`]; thresholds
//! of splits are finite; height <= [`HEIGHT_MAX`].

use alloc::vec::Vec;

/// Deepest leaf that an artifact may have: ceil(log2([`super::SAMPLES_MAX`])).
pub(crate) const HEIGHT_MAX: u32 = 16;
/// Longest path in units of 2^-20: 64 steps, beyond the 16 + c(65536) = 38.2 that any tree reaches.
pub(crate) const PATH_MAX: u32 = 64 << 20;

/// A node as it is walked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    /// Rows above it go right. NaN in a leaf.
    pub(crate) threshold: f32,
    /// Feature that is compared; 0 in a leaf.
    pub(crate) feature: u32,
    /// Left child; the right one follows it. In a leaf: itself.
    pub(crate) left: u32,
    /// Path length in units of 2^-20: a leaf's own, a split's mean over its training rows.
    pub(crate) path: u32,
}

impl Node {
    pub(crate) fn is_leaf(&self) -> bool {
        self.threshold.is_nan()
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        // By bits: a leaf's NaN equals itself.
        let key = |n: &Self| (n.threshold.to_bits(), n.feature, n.left, n.path);
        key(self) == key(other)
    }
}

/// A split (feature, threshold) or, as `None`, a leaf; with the node's path length in units of 2^-20.
pub(crate) type Part = (Option<(u32, f32)>, u32);

/// One isolation tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    nodes: Vec<Node>,
    height: u32,
    dimensions: usize,
}

impl Tree {
    /// Builds a tree from its nodes in breadth-first order; `None` if they are not exactly one tree within the bounds.
    pub(crate) fn from_parts(parts: impl ExactSizeIterator<Item = Part>) -> Option<Self> {
        let length = parts.len();
        let mut nodes = Vec::with_capacity(length);
        let (mut next_child, mut dimensions) = (1usize, 0usize);
        for (i, (split, path)) in parts.enumerate() {
            if i >= next_child || path > PATH_MAX {
                return None;
            }
            nodes.push(match split {
                Some((feature, threshold)) => {
                    if !threshold.is_finite() || feature as usize >= super::DIMENSIONS_MAX {
                        return None;
                    }
                    dimensions = dimensions.max(feature as usize + 1);
                    let left = next_child as u32;
                    next_child += 2;
                    Node { threshold, feature, left, path }
                }
                None => Node { threshold: f32::NAN, feature: 0, left: i as u32, path },
            });
        }
        if nodes.is_empty() || next_child != length {
            return None;
        }
        let height = height(&nodes);
        (height <= HEIGHT_MAX).then_some(Self { nodes, height, dimensions })
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The nodes as [`Self::from_parts`] takes them.
    pub(crate) fn parts(&self) -> impl ExactSizeIterator<Item = Part> {
        self.nodes.iter().map(|node| ((!node.is_leaf()).then_some((node.feature, node.threshold)), node.path))
    }

    pub(crate) fn height(&self) -> u32 {
        self.height
    }

    /// Features needed: one more than the largest one split on.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Number of nodes, leaves included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: a tree has at least one leaf.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Mean path length of the training rows, in units of 2^-20.
    pub(crate) fn root_path(&self) -> u32 {
        self.nodes[0].path
    }

    /// Path length of a row in units of 2^-20.
    pub(crate) fn path(&self, row: &[f32]) -> u32 {
        let mut node = &self.nodes[0];
        for _ in 0..self.height {
            node = self.child(node, row);
        }
        node.path
    }

    /// Walks a row down, telling for each split its feature and by how much the expected path got shorter.
    pub(crate) fn walk(&self, row: &[f32], mut tell: impl FnMut(usize, i64)) {
        let mut node = &self.nodes[0];
        while !node.is_leaf() {
            let child = self.child(node, row);
            tell(node.feature as usize, i64::from(node.path) - i64::from(child.path));
            node = child;
        }
    }

    fn child(&self, node: &Node, row: &[f32]) -> &Node {
        &self.nodes[(node.left + u32::from(row[node.feature as usize] > node.threshold)) as usize]
    }
}

/// Depth of the deepest leaf. In breadth-first order a node's depth is never less than that of the one before.
fn height(nodes: &[Node]) -> u32 {
    let (mut height, mut level_end) = (0, 1);
    let mut next_end = 1;
    for (i, node) in nodes.iter().enumerate() {
        if i == level_end {
            height += 1;
            level_end = next_end;
        }
        if !node.is_leaf() {
            next_end = node.left as usize + 2;
        }
    }
    height
}
