# A client that the server refuses (401) is in an outage for its mount: the files stay, for an expired certificate looks the
# same. Taken out of its group before it is disabled it has none left.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
MakeContent 1 100 | GrantSecret db_password app
StartMount app
Status() { "$BIN/latchkey-fs" status --config "$T/latchkey-fs.toml"; }
IsRefused() { Status | grep -q '"fresh":false'; }
IsFresh() { Status | grep -q '"fresh":true'; }
Cli client disable app >/dev/null
"$BIN/latchkey-fs" refetch --config "$T/latchkey-fs.toml" >/dev/null
WaitUntil 30 "the refusal" IsRefused
cmp -s "$T/mnt/db_password" <(MakeContent 1 100) || Fail "a refused client lost its file"

Cli client enable app >/dev/null
WaitUntil 30 "the mount follows again" IsFresh
Cli group remove app-group app >/dev/null
WaitUntil 30 "the file is gone" test ! -e "$T/mnt/db_password"
Cli client disable app >/dev/null
"$BIN/latchkey-fs" refetch --config "$T/latchkey-fs.toml" >/dev/null
WaitUntil 30 "the refusal" IsRefused
[ ! -e "$T/mnt/db_password" ] || Fail "a revoked file came back"
