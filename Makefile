# The few commands that a person types; `cargo lab --help` has the rest.
#   make run    two hosts, a Linux guest at work, its migration, and the closing table
#   make test   everything that this machine can test
#   make bench  the figures, each beside what it is compared with
# More words for the lab: make run ARGS="--workload storm"

# It would take the place of the flags that the image needs.
unexport RUSTFLAGS
unexport CARGO_BUILD_TARGET

ARGS =

.PHONY: run test bench build clean toolchain

run: toolchain
	cargo lab run $(ARGS)

build: toolchain
	cargo lab build

test: toolchain
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --package qavisor --package guest-tiny --bins --target x86_64-unknown-none -- -D warnings
	cargo test --workspace --no-fail-fast

bench: toolchain
	cargo lab bench $(ARGS)
	cargo run --release --quiet --example harvest

clean:
	cargo clean

# rust-toolchain.toml names the version and the targets; cargo alone does not fetch a missing target.
toolchain:
	@command -v rustup >/dev/null || { echo "missing: rustup, see https://rustup.rs"; exit 1; }
	@rustup toolchain install >/dev/null 2>&1 || rustup toolchain install
