//! What the library's property tests share: inputs that once broke one are kept beside it.

/// `proptest!` of the library. Left to itself, proptest keeps its seeds in a second tree beside `src`, by the paths of the
/// files: whoever moved a test lost them, and no test said so. A file beside the source is seen, and moved with it.
macro_rules! properties {
    (#![proptest_config($config:expr)] $($properties:tt)*) => {
        ::proptest::proptest! { #![proptest_config($crate::tests::with_seeds_beside($config))] $($properties)* }
    };
    ($(#[$attribute:meta])* fn $($properties:tt)*) => {
        properties! {
            #![proptest_config(::proptest::test_runner::Config::default())]
            $(#[$attribute])* fn $($properties)*
        }
    };
    ($config:expr, |$($property:tt)*) => {
        ::proptest::proptest!($crate::tests::with_seeds_beside($config), |$($property)*)
    };
}

/// As `config` says, with the seeds in `NAME.proptest-regressions` beside `NAME.rs`.
pub(crate) fn with_seeds_beside(config: proptest::test_runner::Config) -> proptest::test_runner::Config {
    use proptest::test_runner::FileFailurePersistence::WithSource;

    let seeds = config.failure_persistence.is_some().then(|| Box::new(WithSource("proptest-regressions")) as _);
    proptest::test_runner::Config { failure_persistence: seeds, ..config }
}
