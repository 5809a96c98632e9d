# Of two secrets that want one file name neither is mounted (rule F2), by the next worker too: `latchkey-fs status` names
# both, and `rotate --wait` vouches for neither. The others are waited for as ever. When one is deleted the other's file
# comes back.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
MakeContent 1 100 | GrantSecret db_password app
MakeContent 1 80 | GrantSecret healthy app
StartMount app
Status() { "$BIN/latchkey-fs" status --config "$T/latchkey-fs.toml"; }
BothAreNamed() { Status | grep -q '"name":"d2"' && Status | grep -q '"name":"db_password"'; }
IsLeftOut() { [ ! -e "$T/mnt/db_password" ] && [ ! -e "$T/mnt/d2" ]; }
RotateHealthy() {
  MakeContent "$1" 80 >"$T/content"
  ExpectRun 0 Cli secret rotate healthy --wait --from-file "$T/content"
  cmp -s "$T/mnt/healthy" "$T/content" || Fail "version $1 was said to be served and is not"
}
MakeContent 1 50 | Cli secret create d2 --group app-group --filename db_password >/dev/null
WaitUntil 30 "both in the status" BothAreNamed
IsLeftOut || Fail "one of two rivals is mounted"
ExpectContains "the log" "$(cat "$T/mount.log")" 'secret=d2'

RotateHealthy 2
MakeContent 2 50 >"$T/rival"
for name in d2 db_password; do ExpectRun 7 Cli secret rotate "$name" --wait=2 --from-file "$T/rival"; done
RotateHealthy 3

kill -KILL "$(WorkerPid)"
RotateHealthy 4
WaitUntil 30 "both in the status of the next worker" BothAreNamed
IsLeftOut || Fail "the next worker mounts one of two rivals"

Cli secret delete db_password --yes >/dev/null
WaitUntil 30 "the file of the one that is left" cmp -s "$T/mnt/db_password" "$T/rival"
ExpectRun 0 Cli secret rotate d2 --wait --from-file "$T/content"
