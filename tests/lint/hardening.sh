# Looks at a built program for rule P2: position independent, full RELRO, immediate binding, no executable stack, stack
# protector and fortified calls, control-flow marks. The last two are left out of sanitizer builds (second argument).
set -euo pipefail
program=$1 sanitized=${2:-}
Fail() { echo "${program##*/}: $*" >&2; exit 1; }

# CheckHeaders: reads what readelf says on stdin, so that it can be shown to fail on made-up headers.
CheckHeaders() {
  local headers
  headers=$(cat)
  grep -q 'Type: *DYN' <<<"$headers" || { echo "is not position independent"; return 1; }
  grep -q 'GNU_RELRO' <<<"$headers" || { echo "has no RELRO segment"; return 1; }
  grep -Eq 'BIND_NOW|Flags:.*NOW' <<<"$headers" || { echo "is bound lazily"; return 1; }
  grep -A1 'GNU_STACK' <<<"$headers" | grep -q 'RWE' && { echo "has an executable stack"; return 1; }
  grep -q 'GNU_STACK' <<<"$headers" || { echo "does not say that its stack is not executable"; return 1; }
}
headers=$(readelf -W -h -l -d "$program")
complaint=$(CheckHeaders <<<"$headers") || Fail "$complaint"
for broken in 's/GNU_RELRO/NOTHING/' 's/BIND_NOW//; s/NOW//' 's/DYN (/EXEC (/' '/GNU_STACK/s/RW /RWE/'; do
  if CheckHeaders <<<"$(sed "$broken" <<<"$headers")" >/dev/null; then Fail "this check did not notice $broken"; fi
done
[ -z "$sanitized" ] || exit 0
# The table goes through a variable: grep -q would end the pipe early, which pipefail takes for a failure.
symbols=$(nm -D "$program")
grep -q '__stack_chk_fail' <<<"$symbols" || Fail "has no stack protector"
grep -q '_chk@' <<<"$symbols" || Fail "has no fortified call"
marks=$(objdump -d --no-show-raw-insn -j .text "$program" | grep -c endbr64 || true)
[ "$marks" -gt 0 ] || Fail "has no control-flow marks"
