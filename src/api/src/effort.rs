//! What a test costs: time on a processor, which other work of the machine does not lengthen.

/// Runs it; seconds that this thread was on a processor.
pub(crate) fn seconds(run: impl FnOnce()) -> u64 {
    let spent = || -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts it");
        text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number")
    };
    let before = spent();
    run();
    (spent() - before) / 1_000_000_000
}
