# Whoever may open one secret may open it without end, but the records of the others stay, and each of his opens is in a line
# or in a count, also of the minute that was running when the mount ended.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
echo first | GrantSecret db_password app
echo public | GrantSecret motd app
StartMount app
EnterContainer box -v "$T/mnt:/secrets:ro"
cat "$T/mnt/db_password" >/dev/null
OPENS=150000
InContainer box sh -c "i=0; while [ \$i -lt $OPENS ]; do : </secrets/motd; i=\$((i+1)); done"
Reads() { "$BIN/latchkey-fs" reads --config "$T/latchkey-fs.toml" >"$T/reads"; }
StopMount
Reads
Expect "root's record" "$(grep '"secret":"db_password"' "$T/reads" | grep -c '"uid":0,"gid":0')" 1
lines=$(grep '"secret":"motd"' "$T/reads" | grep '"uid":33,' | grep -vc '"count":') || true
counted=$(grep '"secret":"motd"' "$T/reads" | grep '"uid":33}' | sed 's/.*"count":\([0-9]*\).*/\1/' |
  awk '{ sum += $1 } END { print sum + 0 }')
Expect "opens with a line and counted ones" "$((lines + counted))" "$OPENS"
[ "$lines" -gt 100 ] || Fail "ordinary opens got $lines lines"
grep '"count"' "$T/reads" | grep -q '"time":"20.*Z","since":"20.*Z"' || Fail "a count without its two times"
