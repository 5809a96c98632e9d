# `latchkeyd restore` after kill -9 of the server, with a thousand pages of newer writes still in its write-ahead log: the
# store is the backup, to the last byte, whole, and the one that it replaced can be put back. A file that was copied over
# the database by hand, with that log beside it, is not accepted.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
for i in $(seq 1 20); do MakeContent "$i" 30000 | Cli secret create "secret$i" >/dev/null; done
echo first | GrantSecret db_password app
ExpectRun 0 "$BIN/latchkeyd" backup --config "$T/latchkeyd.toml" "$T/backup.db"
Dump() { sqlite3 "$1" .dump >"$2"; }
Dump "$T/backup.db" "$T/backup.sql"

ExpectRun 1 "$BIN/latchkeyd" restore --config "$T/latchkeyd.toml" "$T/backup.db"
ExpectContains "a restore beside the server" "$OUT" "is in use by process"

echo second | Cli secret rotate db_password >/dev/null
for i in $(seq 1 20); do MakeContent "1$i" 250000 | Cli secret rotate "secret$i" >/dev/null; done
wal_pages=$(($(stat -c %s "$T/state/latchkey.db-wal") / 4120))
[ "$wal_pages" -gt 1000 ] || Fail "only $wal_pages pages are in the write-ahead log"
# The checkpoint of those began the log anew: what follows is in it, what came before is in the database.
for i in $(seq 1 4); do MakeContent "2$i" 30000 | Cli secret rotate "secret$i" >/dev/null; done
KillServer
cp -r "$T/state" "$T/state.killed"

# By hand, as an older manual had it.
cp -p "$T/backup.db" "$T/state/latchkey.db"
ExpectRun 8 timeout 60 "$BIN/latchkeyd" serve --config "$T/latchkeyd.toml" --accept-rollback
ExpectContains "a file copied over a store that has a log" "$OUT" "latchkeyd restore"
rm -r "$T/state"
cp -r "$T/state.killed" "$T/state"

ExpectRun 0 "$BIN/latchkeyd" restore --config "$T/latchkeyd.toml" "$T/backup.db"
ExpectContains "what was restored" "$OUT" "21 secrets"
ExpectContains "what comes next" "$OUT" "--accept-rollback"
Expect "mode of the restored file" "$(stat -c %a "$T/state/latchkey.db")" 600
Dump "$T/state/latchkey.db" "$T/restored.sql"
cmp "$T/backup.sql" "$T/restored.sql" || Fail "the restored store is not the backup"
[ ! -s "$T/state/latchkey.db-wal" ] || Fail "there is a write-ahead log beside the restored file"

# The replaced store has every write up to the kill: no later restore overwrites it, and it can be put back.
ExpectRun 1 "$BIN/latchkeyd" restore --config "$T/latchkeyd.toml" "$T/backup.db"
ExpectContains "a restore over a kept store" "$OUT" "latchkey.db.before-restore"
mv "$T/state/latchkey.db.before-restore" "$T/mistaken.db"
ExpectRun 0 "$BIN/latchkeyd" restore --config "$T/latchkeyd.toml" "$T/mistaken.db"
ExpectContains "the restore undone" "$OUT" "46 versions"
ExpectRun 0 "$BIN/latchkeyd" check --config "$T/latchkeyd.toml"
rm "$T/state/latchkey.db.before-restore"
ExpectRun 0 "$BIN/latchkeyd" restore --config "$T/latchkeyd.toml" "$T/backup.db"

ExpectRun 1 timeout 60 "$BIN/latchkeyd" serve --config "$T/latchkeyd.toml"
ExpectContains "a start that was not told" "$OUT" "older than its anchor"
StartServer --accept-rollback
Expect "the restored content" "$(CliAs app get db_password --reveal)" first
MakeContent 7 30000 >"$T/wanted"
Cli grant secret7 app-group >/dev/null
CliAs app get secret7 --output "$T/got" >/dev/null
cmp "$T/wanted" "$T/got" || Fail "secret7 is not what it was at the backup"
ExpectRun 0 "$BIN/latchkeyd" check --config "$T/latchkeyd.toml"
StopServer
ExpectRun 0 "$BIN/latchkeyd" check --config "$T/latchkeyd.toml"
