//! What a [`Backend`](crate::backend::Backend) around another one would write for each method that it does not change.

/// Within `impl Backend`: the methods named are those of the backend behind it, reached by the method named first, which takes a closure over that
/// backend and returns what the closure does.
///
/// ```text
/// impl Backend for Counting {
///     pass_on!(inner: open, positions, get_from, peek, write, load, revive, drop_partition, scan, partitions, size, compact, evict_staged);
///     fn multi_get(...) { ... }
/// }
/// ```
#[macro_export]
macro_rules! pass_on {
    ($way:ident: $($method:ident),+ $(,)?) => { $($crate::pass_on!(@ $way $method);)+ };
    (@ $way:ident open) => {
        fn open(&self, partition: &$crate::backend::StorePartition) -> $crate::backend::Result<Option<$crate::backend::Positions>> {
            self.$way(|inner| inner.open(partition))
        }
    };
    (@ $way:ident positions) => {
        fn positions(&self, partition: &$crate::backend::StorePartition) -> $crate::backend::Result<Option<$crate::backend::Positions>> {
            self.$way(|inner| inner.positions(partition))
        }
    };
    (@ $way:ident get_from) => {
        fn get_from(
            &self,
            partition: &$crate::backend::StorePartition,
            key: &[u8],
        ) -> $crate::backend::Result<Option<(Vec<u8>, Option<&'static str>)>> {
            self.$way(|inner| inner.get_from(partition, key))
        }
    };
    (@ $way:ident peek) => {
        fn peek(&self, partition: &$crate::backend::StorePartition, key: &[u8]) -> $crate::backend::Result<$crate::backend::Peeked> {
            self.$way(|inner| inner.peek(partition, key))
        }
    };
    (@ $way:ident multi_get) => {
        fn multi_get(
            &self,
            partition: &$crate::backend::StorePartition,
            keys: &[&[u8]],
            found: &mut dyn FnMut(usize, Option<&[u8]>),
        ) -> $crate::backend::Result<()> {
            self.$way(|inner| inner.multi_get(partition, keys, found))
        }
    };
    (@ $way:ident write) => {
        fn write(&self, set: &$crate::backend::WriteSet) -> $crate::backend::Result<()> {
            self.$way(|inner| inner.write(set))
        }
    };
    (@ $way:ident load) => {
        fn load(&self, set: &$crate::backend::WriteSet) -> $crate::backend::Result<()> {
            self.$way(|inner| inner.load(set))
        }
    };
    (@ $way:ident revive) => {
        fn revive(&self) -> $crate::backend::Result<()> {
            self.$way(|inner| inner.revive())
        }
    };
    (@ $way:ident drop_partition) => {
        fn drop_partition(&self, partition: &$crate::backend::StorePartition) -> $crate::backend::Result<()> {
            self.$way(|inner| inner.drop_partition(partition))
        }
    };
    (@ $way:ident scan) => {
        fn scan(
            &self,
            partition: &$crate::backend::StorePartition,
            after: Option<&[u8]>,
            limit: usize,
            each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
        ) -> $crate::backend::Result<()> {
            self.$way(|inner| inner.scan(partition, after, limit, each))
        }
    };
    (@ $way:ident partitions) => {
        fn partitions(&self) -> $crate::backend::Result<Vec<$crate::backend::StorePartition>> {
            self.$way(|inner| inner.partitions())
        }
    };
    (@ $way:ident size) => {
        fn size(&self, partition: &$crate::backend::StorePartition) -> $crate::backend::Result<$crate::backend::Size> {
            self.$way(|inner| inner.size(partition))
        }
    };
    (@ $way:ident compact) => {
        fn compact(&self, partition: &$crate::backend::StorePartition) -> $crate::backend::Result<()> {
            self.$way(|inner| inner.compact(partition))
        }
    };
    (@ $way:ident evict_staged) => {
        fn evict_staged(&self, partition: &$crate::backend::StorePartition) -> $crate::backend::Result<u64> {
            self.$way(|inner| inner.evict_staged(partition))
        }
    };
}
