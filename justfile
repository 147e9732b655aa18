# Each recipe is one plain command; CI runs `.ci/run`.

# formatting, lints, dependencies, documentation
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo deny --config .deny.toml check
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# every test; installs what they need first
test:
    tests/run

# power cuts, changed bytes and bad networks, far more of them than `test` has time for
slow:
    PENSTOCK_TEST_SEEDS=200000 PENSTOCK_TEST_EXHAUSTIVE=1 cargo nextest run -p wal -p shipper --profile slow power_cut:: corruption:: simulation::

# the documents' pictures of the page, in about five minutes
screenshots:
    PENSTOCK_SCREENSHOTS=docs/screenshots cargo nextest run -p penstock --profile pictures pictures_are_taken

# the main job in a minute
demo:
    cargo run --release -- demo

# one fuzz target, such as `remote_write_v1`, until it is stopped
fuzz TARGET:
    cd fuzz && cargo fuzz run --sanitizer none {{TARGET}}

# every interleaving of the completion tracker
loom:
    RUSTFLAGS="--cfg wal_loom" cargo test -p wal --release --lib tracker

# one of limit, ingest, ship, e2e, memory, cores, latency, series-per-core, compare, churn, drain, isolation, restart
bench NAME *ARGUMENTS:
    cargo run -p bench --release -- {{NAME}} {{ARGUMENTS}}

# all of them in about 20 minutes, and what docs/benchmarks.md shows of them
bench-all DIR:
    cargo build --release
    cargo run -p bench --release -- all --out {{DIR}}
    cargo run -p bench --release -- plot {{DIR}}

# docs/components, from what the readers of components ask for
docs:
    PENSTOCK_WRITE_DOCS=1 cargo test -p penstock --bin penstock component::document::tests::the_pages_are_those_of_what_there_is
