# Checks a systemd unit of packaging/ with systemd's own tools: no unknown key, no bad value, and for the server the
# exposure that rule P1 allows. verify wants the programs to exist, so the copy it sees starts the ones that were built.
#
#   units_verify.sh UNIT BIN-DIR [MAX-EXPOSURE]       exposure in tenths: 20 is 2.0
set -euo pipefail
unit=$1 bin=$2 exposure=${3:-}
name=${unit##*/}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
sed -e "s|/usr/bin/latchkey|$bin/latchkey|g" -e '/^Documentation=/d' "$unit" >"$scratch/$name"
grep -q "$bin/" "$scratch/$name" || { echo "the unit starts no program of ours" >&2; exit 1; }

complaints=$(SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no --recursive-errors=no "$scratch/$name" 2>&1) || {
  printf '%s\n' "$complaints" >&2
  exit 1
}
if [ -n "$complaints" ]; then
  printf '%s\n' "$complaints" >&2
  exit 1
fi
if [ -n "$exposure" ]; then
  systemd-analyze security --offline=true --no-pager --threshold="$exposure" "$scratch/$name" >"$scratch/report" 2>&1 || {
    tail -n 3 "$scratch/report" >&2
    exit 1
  }
  tail -n 1 "$scratch/report"
fi
# And the check can fail: a misspelt key is found.
sed 's/^NoNewPrivileges=/NoNewPrivilegs=/' "$scratch/$name" >"$scratch/broken-$name"
if [ -z "$(systemd-analyze verify --man=no --recursive-errors=no "$scratch/broken-$name" 2>&1)" ]; then
  echo "a misspelt key went unnoticed" >&2
  exit 1
fi
