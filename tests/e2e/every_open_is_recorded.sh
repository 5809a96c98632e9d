# Each open of a secret is in `latchkey-fs reads` with who, which secret and which version; each delivery and each refusal is
# in the server's access chain; each change is in the store chain with who made it.
# Rules: A1, R23.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
echo first | GrantSecret db_password app
StartMount app
EnterContainer box -v "$T/mnt:/secrets:ro"
InContainer box cat /secrets/db_password >/dev/null
echo second | Cli secret rotate db_password --wait >/dev/null
InContainer box cat /secrets/db_password >/dev/null
cat "$T/mnt/db_password" >/dev/null
Reads() { "$BIN/latchkey-fs" reads --config "$T/latchkey-fs.toml" >"$T/reads"; }
Has() { Reads && [ "$(grep -c '"secret":"db_password"' "$T/reads")" -ge "$1" ]; }
WaitUntil 10 "three reads are recorded" Has 3
grep '"secret":"db_password"' "$T/reads" | grep -q '"uid":33' || Fail "the container's user is not named: $(cat "$T/reads")"
grep '"secret":"db_password"' "$T/reads" | grep -q '"uid":0' || Fail "root on the host is not named"
# Each of them was a cat that was gone within milliseconds.
Expect "records that name the program" "$(grep '"secret":"db_password"' "$T/reads" | grep -c '"comm":"cat"')" 3
ExpectRun 4 CliAs app secret list
Cli audit tail >"$T/audit.txt"
for word in db_password app admin; do ExpectContains "the audit log" "$(cat "$T/audit.txt")" "$word"; done
ExpectRun 0 "$BIN/latchkeyd" check --config "$T/latchkeyd.toml"
