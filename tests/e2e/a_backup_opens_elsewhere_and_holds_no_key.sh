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
ExpectRun 1 "$BIN/latchkeyd" backup --config "$T/latchkeyd.toml" "$T/backup.db"
ExpectContains "a second backup to the same file" "$OUT" "exist"

echo second | Cli secret rotate db_password >/dev/null
StopServer
# Another machine: the backup, the key, nothing else.
mkdir "$T/elsewhere"
cp -r "$T/pki" "$T/elsewhere/pki"
cp -p "$T/kek" "$T/elsewhere/kek"
WriteServerConfigTo "$T/latchkeyd.toml" "$T/elsewhere" 0
sed -i "s|^port_file = .*/elsewhere/port\"|port_file = \"$T/port\"|" "$T/latchkeyd.toml"
ExpectRun 0 "$BIN/latchkeyd" restore --config "$T/latchkeyd.toml" "$T/backup.db"
# There is no anchor here: that the store may be an old one must be said and is recorded.
ExpectRun 1 "$BIN/latchkeyd" serve --config "$T/latchkeyd.toml"
ExpectContains "a store without its anchor" "$OUT" "--accept-rollback"
StartServer --accept-rollback
Expect "the restored server" "$(CliAs app get db_password --reveal)" first
StopServer

cp "$T/backup.db" "$T/damaged.db"
sqlite3 "$T/damaged.db" "UPDATE contents SET sealed = CAST(substr(sealed, 1, 30) ||
  CASE substr(sealed, 31, 1) WHEN x'00' THEN x'01' ELSE x'00' END || substr(sealed, 32) AS BLOB)"
ExpectRun 8 "$BIN/latchkeyd" check --config "$T/latchkeyd.toml" --store "$T/damaged.db"
ExpectContains "the damage is named" "$OUT" "damaged: "
head -c 20000 "$T/backup.db" >"$T/cut.db"
chmod 600 "$T/cut.db"
if "$BIN/latchkeyd" check --config "$T/latchkeyd.toml" --store "$T/cut.db" >"$T/cut.log" 2>&1; then Fail "a cut backup passed the check"; fi
