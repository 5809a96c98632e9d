# inotify watchers in a running container see every rotation on the file, in its directory and on a single-file bind, with
# MODIFY and CLOSE_WRITE, and read the new bytes at once; a new secret is MOVED_TO, a revoked one DELETE. No watch is ever
# added again.
# Rules: R19.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
MakeContent 1 500 | GrantSecret db_password app
StartMount app
EnterContainer box -v "$T/mnt:/secrets:ro" -v "$T/mnt/db_password:/one/db_password:ro"

Watch() {  # Watch LABEL PATH
  InContainer box inotify_watch --timeout 240 "$2" >"$T/watch.$1" 2>&1 &
  Own $!
  WaitUntil 10 "watcher $1 started" test -s "$T/watch.$1"
}
Watch file /secrets/db_password
Watch single /one/db_password
Watch directory /secrets
"$BIN/inotify_watch" --timeout 240 "$T/mnt/db_password" >"$T/watch.host" 2>&1 &
Own $!
WaitUntil 10 "watcher host started" test -s "$T/watch.host"

SawRotation() {  # SawRotation LABEL DIGEST: both events, and the new bytes behind each
  grep "\"event\":\"MODIFY\"" "$T/watch.$1" | grep -q "$2" && grep "\"event\":\"CLOSE_WRITE\"" "$T/watch.$1" | grep -q "$2"
}
for number in 2 3 4 5 6 7 8 9 10 11; do
  MakeContent $number $((number * 100)) >"$T/next"
  Cli secret rotate db_password <"$T/next" >/dev/null
  for label in file single directory host; do
    WaitUntil 10 "rotation $number seen by watcher $label" SawRotation $label "$(Digest "$T/next")"
  done
done

MakeContent 1 10 | GrantSecret api_token app
Saw() { grep -q "\"event\":\"$2\",\"path\":\"$3\"" "$T/watch.$1"; }
WaitUntil 10 "the new secret is announced" Saw directory MOVED_TO /secrets/api_token
Cli revoke api_token app-group >/dev/null
WaitUntil 10 "the revocation is announced" Saw directory DELETE /secrets/api_token
for label in file single directory host; do
  if grep -Eq 'IGNORED|DELETE_SELF|UNMOUNT|Q_OVERFLOW' "$T/watch.$label"; then Fail "watcher $label lost its watch"; fi
done
