# `latchkey-fs refetch` fetches now, also while the feed request waits at the server, and the mount goes on following.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
echo first | GrantSecret db_password app
StartMount app
METRICS_PORT=$(sed -n 's/.*metrics_port=\([0-9]*\).*/\1/p' "$T/server.log" | tail -n 1)
Waiters() {
  exec 9<>"/dev/tcp/127.0.0.1/$METRICS_PORT"
  printf 'GET /metrics HTTP/1.0\r\n\r\n' >&9
  sed -n 's/^latchkey_feed_waiters \([0-9]*\).*/\1/p' <&9
  exec 9>&-
}
IsWaiting() { [ "$(Waiters)" = 1 ]; }
Fetched() { Cli audit tail -n 1000 | grep -c 'secret.read.* by app .*secret=db_password' || true; }
FetchedMoreThan() { [ "$(Fetched)" -gt "$1" ]; }
Refetch() { "$BIN/latchkey-fs" refetch --config "$T/latchkey-fs.toml" >/dev/null; }
# The server holds the request for up to 55 seconds: each round needs it to be ended, not to end.
for round in 1 2 3; do
  WaitUntil 10 "the mount waits for a change, round $round" IsWaiting
  before=$(Fetched)
  Refetch
  WaitUntil 15 "the secret is fetched again, round $round" FetchedMoreThan "$before"
done
"$BIN/latchkey-fs" status --config "$T/latchkey-fs.toml" >"$T/status"
ExpectContains "the status" "$(cat "$T/status")" '"fresh":true,"last_error":""'
Expect "failures in the log" "$(grep -c "cannot be followed" "$T/mount.log" || true)" 0
WaitUntil 10 "the mount waits for a change again" IsWaiting
echo second | Cli secret rotate db_password --wait >/dev/null
Expect "the content" "$(cat "$T/mnt/db_password")" second
# A stop ends the wait the same way.
Refetch
StopMount
