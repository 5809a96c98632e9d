# kill -9 of the server: reads in the container go on without an error. After its restart the feed resumes: a rotation made
# then arrives, and so does what was granted while the mount could not see it.
# Rules: R1, R3, R4, R11, R16.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
MakeContent 1 3000 | GrantSecret db_password app
StartMount app
EnterContainer box -v "$T/mnt:/secrets:ro"
StartReader box --threads 2 --hold /secrets/db_password
WaitUntil 20 "the readers go round" ReaderWentRound box

for round in 2 3 4; do
  KillServer
  for again in 1 2 3; do WaitUntil 20 "the readers go round without a server" ReaderWentRound box; done
  ExpectRun 0 InContainer box ls -l /secrets   # a listing and a missing name need no server
  ExpectRun 1 InContainer box cat /secrets/never_there
  ExpectContains "a missing name without a server" "$OUT" "No such file"
  RestartServer
  MakeContent $round $((round * 1000)) | Cli secret rotate db_password >/dev/null
  Shows() { InContainer box head -n 1 /secrets/db_password | grep -q "TEST $1 "; }
  WaitUntil 70 "the rotation after restart $((round - 1))" Shows $round
done
MakeContent 1 10 | GrantSecret api_token app
WaitUntil 20 "a new grant after the restarts" InContainer box cat /secrets/api_token
status=0
StopReader box || status=$?
Note "$(tail -n 1 "$T/reader.box.out")"
Expect "the readers' verdict" $status 0
