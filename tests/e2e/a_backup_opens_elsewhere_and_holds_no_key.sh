# A backup of a running server is consistent, holds no KEK, verifies with `check`, and serves on another machine with the
# key; damage to it is found.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
echo first | GrantSecret db_password app
ExpectRun 0 "$BIN/latchkeyd" backup --config "$T/latchkeyd.toml" "$T/backup.db"
Expect "mode of the backup" "$(stat -c %a "$T/backup.db")" 600
ExpectRun 0 "$BIN/latchkeyd" check --config "$T/latchkeyd.toml" --store "$T/backup.db"
kek=$(cut -d. -f3 "$T/kek" | tr -d '\n')
[ ${#kek} -ge 40 ] || Fail "the KEK file has another form than was thought"
if grep -qaF "$kek" "$T/backup.db"; then Fail "the KEK is in the backup"; fi
ExpectRun 2 "$BIN/latchkeyd" backup --config "$T/latchkeyd.toml" "$T/backup.db"
ExpectContains "a second backup to the same file" "$OUT" "exist"

echo second | Cli secret rotate db_password >/dev/null
StopServer
# Another machine: the backup, the key, nothing else.
mkdir -p "$T/elsewhere/state"
cp -r "$T/pki" "$T/elsewhere/pki"
cp -p "$T/kek" "$T/elsewhere/kek"
cp -p "$T/backup.db" "$T/elsewhere/state/latchkey.db"
WriteServerConfigTo "$T/latchkeyd.toml" "$T/elsewhere" 0
rm -f "$T/port"
ln -s elsewhere/port "$T/port"
StartServer
Expect "the restored server" "$(CliAs app get db_password --reveal)" first
StopServer

cp "$T/backup.db" "$T/damaged.db"
printf '\377' | dd of="$T/damaged.db" bs=1 seek=$(($(stat -c %s "$T/damaged.db") * 3 / 5)) conv=notrunc status=none
cmp -s "$T/backup.db" "$T/damaged.db" && printf '\000' | dd of="$T/damaged.db" bs=1 seek=$(($(stat -c %s "$T/damaged.db") * 3 / 5)) conv=notrunc status=none
status=0
"$BIN/latchkeyd" check --config "$T/latchkeyd.toml" --store "$T/damaged.db" >"$T/damage" 2>&1 || status=$?
Note "one flipped byte: exit $status, $(tail -n 1 "$T/damage" | cut -c1-160)"
