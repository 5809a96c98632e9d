# On a full disk writes are refused with a clear error, reads go on, nothing acknowledged is lost, and the server recovers
# without a restart once there is room.
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
ExpectContains "the refusal" "$(cat "$T/out")" "latchkey: error:"
Expect "reads on a full disk" "$(CliAs app get db_password --reveal)" first
ExpectRun 7 Cli secret create one_more <"$T/large"
IsGone "$SERVER_PID" && Fail "the server ended"

mount -o remount,size=64m "$T/state"
Writable() { Cli secret create after_the_flood <"$T/large"; }
WaitUntil 15 "writes work again" Writable
for name in "${acked[@]}"; do ExpectRun 0 Cli secret show "$name"; done
ExpectRun 0 "$BIN/latchkeyd" check --config "$T/latchkeyd.toml"
