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

# the main job in a minute
demo:
    cargo run --release -- demo

# one fuzz target, such as `remote_write_v1`, until it is stopped
fuzz TARGET:
    cd fuzz && cargo fuzz run --sanitizer none {{TARGET}}

# every interleaving of the completion tracker
loom:
    RUSTFLAGS="--cfg wal_loom" cargo test -p wal --release --lib tracker

# one of limit, e2e, compare, churn, drain, isolation, restart
bench NAME:
    cargo run -p bench --release -- {{NAME}}
