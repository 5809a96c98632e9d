# `rotate --wait` returns once each client that held the grant serves the new version, names those that were not seen, and
# ends with 7 when one of them does not get there in time. Reading it in the container right after needs no waiting.
# Rules: R16.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app absent
InitServer
StartServer
MakeContent 1 100 | GrantSecret db_password app
StartMount app
EnterContainer box -v "$T/mnt:/secrets:ro"
for number in 2 3 4 5 6 7 8 9 10 11; do
  MakeContent $number 1000 | Cli secret rotate db_password --wait >/dev/null 2>"$T/wait.err" || Fail "rotate --wait: $(cat "$T/wait.err")"
  InContainer box head -n 1 /secrets/db_password | grep -q "TEST $number " || Fail "version $number was said to be served and is not"
done
ExpectContains "who serves what" "$(Cli serving db_password)" app

# A client that was never seen is named and not waited for.
Cli client create absent >/dev/null
Cli group add app-group absent >/dev/null
MakeContent 12 100 | Cli secret rotate db_password --wait=20 >"$T/wait.out" 2>&1 || Fail "a client that was never seen was waited for: $(cat "$T/wait.out")"
ExpectContains "the client that was not seen" "$(cat "$T/wait.out")" absent

# A client that was seen and has stopped is waited for until the time is over.
kill -STOP "$FS_PID" $(cat "/proc/$FS_PID/task/$FS_PID/children")
status=0
MakeContent 13 100 | Cli secret rotate db_password --wait=2 >"$T/wait.out" 2>&1 || status=$?
kill -CONT $(cat "/proc/$FS_PID/task/$FS_PID/children") "$FS_PID"
Expect "exit status when a client does not follow" $status 7
