//! Work that computes, on all cores.

use std::{sync::Arc, thread};

use tokio::task;

/// As many items as are not worth another thread.
const FEW: usize = 4;

/// What `work` makes of each item, in their order. Few items are worked on in place; many on as many
/// threads as the machine has cores.
///
/// # Panics
/// If `work` does.
pub(crate) async fn on_all_cores<T, R, F>(items: Vec<T>, work: F) -> Vec<R>
where
    T: Send + 'static,
    R: Send + 'static,
    F: Fn(T) -> R + Send + Sync + 'static,
{
    if items.len() <= FEW {
        return items.into_iter().map(work).collect();
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let share = items.len().div_ceil(cores).max(FEW);
    let count = items.len();
    let work = Arc::new(work);
    let mut items = items.into_iter();
    let mut shares = Vec::with_capacity(cores);
    while items.len() > 0 {
        let (part, work) = (items.by_ref().take(share).collect::<Vec<_>>(), Arc::clone(&work));
        shares.push(task::spawn_blocking(move || {
            part.into_iter().map(|item| work(item)).collect::<Vec<_>>()
        }));
    }
    let mut results = Vec::with_capacity(count);
    for part in shares {
        results.extend(part.await.expect("what computes neither panics nor is cancelled"));
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn results_keep_the_order_of_the_items() {
        for count in [0, 1, 5, 100, 1001] {
            let doubled = on_all_cores((0..count).collect(), |n: u32| n * 2).await;
            assert_eq!(doubled, (0..count).map(|n| n * 2).collect::<Vec<_>>());
        }
    }
}
