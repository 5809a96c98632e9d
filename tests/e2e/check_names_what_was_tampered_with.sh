# `latchkeyd check` finds one flipped byte of content, one swapped row, one edited ACL row, one cut audit record in either
# chain and a store older than its anchor, and names each.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
echo first | GrantSecret db_password app
echo other | GrantSecret api_token app
for i in 1 2 3 4; do CliAs app get db_password --reveal >/dev/null; done
StopServer
ExpectRun 0 "$BIN/latchkeyd" check --config "$T/latchkeyd.toml"
# Everything is in the one file, so that a copy can be put back.
sqlite3 "$T/state/latchkey.db" 'PRAGMA wal_checkpoint(TRUNCATE);' >/dev/null
ExpectRun 0 "$BIN/latchkeyd" check --config "$T/latchkeyd.toml"
cp -r "$T/state" "$T/state.good"
cp -r "$T/audit" "$T/audit.good"
cp -p "$T/anchor" "$T/anchor.good" 2>/dev/null || cp -rp "$T/anchor" "$T/anchor.good"

Restore() {
  rm -rf "$T/state" "$T/audit" "$T/anchor"
  cp -r "$T/state.good" "$T/state"
  cp -r "$T/audit.good" "$T/audit"
  cp -rp "$T/anchor.good" "$T/anchor"
}
Found() {  # Found WHAT TEXT
  local status=0
  "$BIN/latchkeyd" check --config "$T/latchkeyd.toml" >"$T/found" 2>&1 || status=$?
  [ $status -eq 8 ] || Fail "$1: check ended with $status: $(cat "$T/found")"
  grep -qi "$2" "$T/found" || Fail "$1: check does not name \"$2\": $(cat "$T/found")"
  Note "$1: $(grep -i "$2" "$T/found" | head -n 1 | cut -c1-140)"
  Restore
}
Sql() { sqlite3 "$T/state/latchkey.db" "$1" || Fail "the statement does not fit the schema: $1"; }
Changed() { [ "$(sqlite3 "$T/state/latchkey.db" "$1")" != "$2" ] || Fail "the tampering changed nothing"; }

# One byte of one sealed content, in the middle.
Sql "UPDATE contents SET sealed = CAST(substr(sealed, 1, 20) || CASE substr(sealed, 21, 1) WHEN x'00' THEN x'ff' ELSE x'00' END || substr(sealed, 22) AS BLOB)
       WHERE version_id = (SELECT min(version_id) FROM contents)"
Found "one flipped byte of content" "(db_password number 1)\|(api_token number 1)"

# The sealed contents of two secrets change places.
Sql "CREATE TEMP TABLE pair AS SELECT version_id, wrapped, sealed FROM contents ORDER BY version_id LIMIT 2;
     UPDATE contents SET wrapped = (SELECT wrapped FROM pair WHERE pair.version_id <> contents.version_id),
                         sealed = (SELECT sealed FROM pair WHERE pair.version_id <> contents.version_id)
       WHERE version_id IN (SELECT version_id FROM pair)"
Found "two swapped contents" "db_password\|api_token"

# ACL rows: a client gives itself the automation bit, a grant is pointed at another secret, a membership at another client.
Sql "UPDATE clients SET automation = 1 WHERE name = 'app'"
Found "an edited client row" "app"
Sql "UPDATE clients SET content = 1 WHERE name = 'admin'"
Found "an edited content bit" "admin"
Sql "DELETE FROM grants WHERE secret_id = (SELECT id FROM secrets WHERE name = 'api_token');
     UPDATE grants SET secret_id = (SELECT id FROM secrets WHERE name = 'api_token')"
Found "an edited grant row" "grant"
Sql "UPDATE memberships SET client_id = (SELECT id FROM clients WHERE name = 'admin')"
Found "an edited membership row" "membership"
Sql "UPDATE secrets SET expiry = 1 WHERE name = 'db_password'"
Found "an edited secret row" "db_password"

# A group is deleted behind the server's back, and its old genuine membership kept. It must not become genuine again for a
# group that is made later: not even with every number in the store back where it was when the old group was made.
old_group=$(sqlite3 "$T/state/latchkey.db" "SELECT group_id FROM memberships")
old_row=$(sqlite3 "$T/state/latchkey.db" "SELECT client_id || ',' || group_id || ',' || created_at || ',' || quote(mac) FROM memberships")
Sql "DELETE FROM memberships; DELETE FROM grants; DELETE FROM groups; UPDATE store_info SET next_group = 1"
StartServer
Cli group create prod-admins >/dev/null
echo top-secret | Cli secret create prod_key >/dev/null
Cli grant prod_key prod-admins >/dev/null
ExpectRun 4 CliAs app get prod_key --reveal
StopServer
Sql "INSERT INTO memberships (client_id, group_id, created_at, mac) VALUES ($old_row)"
Changed "SELECT id FROM groups WHERE name = 'prod-admins'" "$old_group"
ExpectRun 8 "$BIN/latchkeyd" serve --config "$T/latchkeyd.toml"
Found "a membership of a group that is gone" "a row of memberships refers to a row that does not exist"

# One record out of the store's chain: in the middle, then the last.
Sql "DELETE FROM audit WHERE seq = (SELECT max(seq) - 3 FROM audit)"
Found "a cut record in the store chain" "store"
Sql "DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)"
Found "a cut tail of the store chain" "store\|anchor"
Sql "UPDATE audit SET event = CAST(substr(event, 1, 30) || x'21' || substr(event, 32) AS BLOB) WHERE seq = (SELECT max(seq) - 2 FROM audit)"
Found "an edited record in the store chain" "store"

# The access chain is a file: bytes in its used part are changed.
spool=$(find "$T/audit" -type f -size +0 | sort | head -n 1)
[ -n "$spool" ] || Fail "there is no spool file"
printf '\377\000\377' | dd of="$spool" bs=1 seek=400 conv=notrunc status=none
Found "an edited record in the access chain" "access"

# A store older than its anchor: the good anchor and spool, with a store from before the last writes.
StartServer
echo newest | Cli secret rotate db_password >/dev/null
StopServer
rm -rf "$T/state"
cp -r "$T/state.good" "$T/state"
Found "a store older than its anchor" "anchor\|older"

# Beside a running server: what was changed in either chain is not shown as if it had been written.
StartServer --accept-rollback
ExpectRun 0 Cli audit tail -n 50
Sql "UPDATE audit SET event = CAST(substr(event, 1, 30) || x'21' || substr(event, 32) AS BLOB) WHERE seq = (SELECT max(seq) - 2 FROM audit)"
ExpectRun 1 Cli audit tail -n 50
grep -q "of the audit chain store is not the one that was written; run latchkeyd check" "$T/server.log" || Fail "the log does not name the record"
StopServer
