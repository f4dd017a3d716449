#!/usr/bin/env bash
# Builds the steering program into the object that is committed beside it: the same bytes wherever the same toolchain does.
#   build.sh OUT           needs a rustc with library sources (Debian: rustc-web, rust-web-src), bpf-linker, llvm-strip
#   build.sh --toolchain   says which ones there are; those of the committed object are in ebpf/toolchain
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
readonly EBPF_RUSTC=${STRAIT_EBPF_RUSTC:-/usr/bin/rustc}

toolchain() {
    "$EBPF_RUSTC" --version
    bpf-linker --version
    llvm-strip --version | grep -o 'LLVM version .*'
}

if [[ $1 == --toolchain ]]; then
    toolchain
    exit
fi

readonly OUT=$1 ROOT=$PWD TARGET_DIR=${STRAIT_EBPF_TARGET:-$PWD/target} CARGO_DIR=${CARGO_HOME:-$HOME/.cargo}
flags="-C debuginfo=2 -C link-arg=--btf --cfg=bpf_target_arch=\"x86_64\""
# Later ones win: the folder of the registry has another name where packages come from elsewhere.
for place in "$ROOT=/strait/ebpf" "$CARGO_DIR=/cargo" "$TARGET_DIR=/target"; do
    flags+=" --remap-path-prefix=$place"
done
for registry in "$CARGO_DIR"/registry/src/*; do
    flags+=" --remap-path-prefix=$registry=/registry"
done
RUSTC=$EBPF_RUSTC RUSTC_BOOTSTRAP=1 RUSTFLAGS=$flags CARGO_TARGET_DIR=$TARGET_DIR CARGO_INCREMENTAL=0 \
    cargo build --quiet --release --locked -Z build-std=core --target bpfel-unknown-none
llvm-strip -g -o "$OUT" "$TARGET_DIR/bpfel-unknown-none/release/steer"
# Only what is committed has a record of what made it.
[[ $OUT -ef $ROOT/steer.o ]] && toolchain >"$ROOT/toolchain"
exit 0
