//! Work of many equal parts on all cores. Which thread does which part changes nothing in the result.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use models::Forest;

/// Rows scored as one piece of work.
const CHUNK_ROWS: usize = 4_096;

/// The results of `work(0..count)`, in order; `done` is called after each, from any thread.
///
/// # Panics
/// Where `work` does.
pub fn map<T: Send>(count: usize, done: &(dyn Fn() + Sync), work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    map_on(threads, count, done, work)
}

/// Raw scores of all rows (row-major).
#[must_use]
pub fn raw_scores(forest: &Forest, rows: &[f32]) -> Vec<f64> {
    let chunks: Vec<&[f32]> = rows.chunks(CHUNK_ROWS * forest.dimensions()).collect();
    let score = |at: usize| {
        let mut scores = Vec::new();
        forest.raw_scores(chunks[at], &mut scores);
        scores
    };
    map(chunks.len(), &|| {}, score).concat()
}

fn map_on<T: Send>(threads: usize, count: usize, done: &(dyn Fn() + Sync), work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<T>>> = Mutex::new((0..count).map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        return;
                    }
                    let result = work(at);
                    results.lock().expect("invariant: no thread panics while it holds the lock")[at] = Some(result);
                    done();
                }
            });
        }
    });
    let results = results.into_inner().expect("invariant: the scope passes on a thread's panic");
    results.into_iter().map(|result| result.expect("invariant: each number was taken once")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_whatever_the_number_of_threads() {
        let expected: Vec<usize> = (0..100).map(|x| x * x).collect();
        for threads in [1, 2, 7, 200] {
            let done = AtomicUsize::new(0);
            let tell = || {
                done.fetch_add(1, Ordering::Relaxed);
            };
            assert_eq!(map_on(threads, 100, &tell, |x| x * x), expected);
            assert_eq!(done.into_inner(), 100);
        }
        assert!(map(0, &|| {}, |x| x).is_empty());
    }
}
