# On a full disk writes are refused with a clear error that says what helps, the health shows it, reads go on, nothing
# acknowledged is lost, and the server recovers without a restart once there is room. A start on a full disk names the path.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
mkdir -p "$T/state" "$T/audit"
# The audit spool keeps 128 MiB allocated ahead; the database gets little room beside it.
mount -t tmpfs -o size=4m,mode=0700 tmpfs "$T/state"
OWN_MOUNTS+=("$T/state")
InitServer
StartServer
echo first | GrantSecret db_password app
head -c 100000 /dev/urandom | base64 -w0 >"$T/large"

acked=()
status=0
for ((i = 0; i < 200; ++i)); do
  status=0
  Cli secret create "filler$i" <"$T/large" >"$T/out" 2>&1 || status=$?
  [ $status -eq 0 ] || break
  acked+=("filler$i")
done
Expect "exit status of the first refused write" $status 7
[ ${#acked[@]} -ge 3 ] || Fail "the disk was full at once"
Note "refused after ${#acked[@]} secrets: $(head -c 200 "$T/out")"
ExpectContains "the refusal" "$(cat "$T/out")" "latchkey: error: disk full: free space where store.path lies, at the server"
# Until a write goes through again: the small records of each second, which still find a gap, change nothing.
StoreWritable() { curl -fsS "http://127.0.0.1:$(cat "$T/metrics-port")/metrics" | sed -n 's/^latchkey_store_writable //p'; }
ShowsTrouble() {
  ExpectRun 7 Cli status
  ExpectContains "the status" "$OUT" "failing health checks: [db-read-write-health]"
  Expect "latchkey_store_writable" "$(StoreWritable)" 0
  # Reads are served, so balancers go on: the path for them stays good.
  Expect "/readyz" "$(curl -fsS "http://127.0.0.1:$(cat "$T/metrics-port")/readyz")" ready
  Expect "the code of /_status" "$(curl -sS -o "$T/status.json" -w '%{http_code}' --cacert "$T/pki/ca.crt" "https://127.0.0.1:$SERVER_PORT/_status")" 200
}
ShowsTrouble
Expect "reads on a full disk" "$(CliAs app get db_password --reveal)" first
ExpectRun 7 Cli secret create one_more <"$T/large"
ShowsTrouble
IsGone "$SERVER_PID" && Fail "the server ended"
ExpectRun 1 "$BIN/latchkeyd" backup --config "$T/latchkeyd.toml" "$T/state/copy"
ExpectContains "a backup to the full disk" "$OUT" "no room for $T/state/copy; free some"
Expect "what is left of it" "$(find "$T/state" -name 'copy*')" ""

mount -o remount,size=64m "$T/state"
Writable() { Cli secret create after_the_flood <"$T/large"; }
WaitUntil 15 "writes work again" Writable
for name in "${acked[@]}"; do ExpectRun 0 Cli secret show "$name"; done
ExpectRun 0 Cli status
Expect "latchkey_store_writable after the recovery" "$(StoreWritable)" 1
ExpectRun 0 "$BIN/latchkeyd" check --config "$T/latchkeyd.toml"

StopServer
head -c 100M /dev/zero >"$T/state/filler" 2>/dev/null || true
ExpectRun 1 "$BIN/latchkeyd" serve --config "$T/latchkeyd.toml"
ExpectContains "a start on a full disk" "$OUT" "store: disk full: free space where $T/state/latchkey.db lies"
rm "$T/state/filler"
StartServer
ExpectRun 0 Cli secret show after_the_flood
