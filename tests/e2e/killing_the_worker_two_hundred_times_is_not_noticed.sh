# kill -9 of the mount's worker, 200 times, while readers with held descriptors loop in a container and secrets rotate: not
# one failed, mixed, cut or stale read, and the same container all along.
# Rules: R6, R10.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
MakeContent 1 3000 | GrantSecret db_password app
MakeContent 1 70000 | GrantSecret big app
StartMount app
EnterContainer box -v "$T/mnt:/secrets:ro" -v "$T/mnt/db_password:/one/db_password:ro"

StartReader box --threads 2 --hold /secrets/db_password /one/db_password /secrets/big
WaitUntil 20 "the readers go round" ReaderWentRound box
OtherWorker() { local now; now=$(WorkerPid); [ -n "$now" ] && [ "$now" != "$1" ] && ! IsGone "$now"; }
number=1
for ((kills = 0; kills < 200; ++kills)); do
  worker=$(WorkerPid)
  [ -n "$worker" ] || Fail "status names no worker before kill $kills"
  kill -KILL "$worker"
  if ((kills % 20 == 0)); then
    number=$((number + 1))
    MakeContent $number $((number * 211)) | Cli secret rotate db_password >/dev/null
  fi
  WaitUntil 10 "a new worker after kill $kills" OtherWorker "$worker"
done
Shows() { InContainer box head -n 1 /secrets/db_password | grep -q "TEST $1 "; }
WaitUntil 10 "the last rotation in the container" Shows $number
WaitUntil 20 "the readers go round" ReaderWentRound box
status=0
StopReader box || status=$?
Note "$(tail -n 1 "$T/reader.box.out")"
Expect "the readers' verdict" $status 0
Expect "the keeper is still the same process" "$(IsGone "$FS_PID" && echo gone || echo there)" there
