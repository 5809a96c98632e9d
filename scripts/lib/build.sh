# Configuring and building with a line of progress every half minute; sourced by scripts/test, quickstart and bench.
# The working directory is the root of the tree. JOBS: compilers at a time.

JOBS=${LATCHKEY_JOBS:-$(nproc)}

Configure() {  # Configure PRESET [CMAKE ARGUMENTS]: quiet unless it fails
  local preset=$1 log
  shift
  mkdir -p build
  log=build/configure-$preset.log
  if ! cmake --preset "$preset" "$@" >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    echo "${0##*/}: configuring preset $preset failed; the whole output is in $log" >&2
    exit 1
  fi
}

Build() {  # Build PRESET [TARGETS]
  local preset=$1 log=build/build-$1.log started=$SECONDS shown=0 pid targets=()
  shift
  [ $# -eq 0 ] || targets=(--target "$@")
  cmake --build --preset "$preset" -j "$JOBS" "${targets[@]}" >"$log" 2>&1 &
  pid=$!
  while kill -0 $pid 2>/dev/null; do
    sleep 1
    if ((SECONDS - started >= shown + 30)); then
      shown=$((SECONDS - started))
      printf '   %4d s  %s\n' $shown "$(tail -n 1 "$log" | cut -c1-90)"
    fi
  done
  if ! wait $pid; then
    grep -E -A 12 'FAILED|error:' "$log" | head -n 60 >&2
    echo "${0##*/}: building preset $preset failed; the whole output is in $log" >&2
    exit 1
  fi
  printf '   built in %d s\n' $((SECONDS - started))
}
