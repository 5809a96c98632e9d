# A mount point that is not empty, missing, a link, writable by others or already mounted is refused with a line that says
# what to do; a dead mount that was left behind is replaced.
# Rules: F5, R9.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
echo first | GrantSecret db_password app
WriteMountConfig app

Refused() {  # Refused WHAT TEXT
  local status=0
  timeout 30 "$BIN/latchkey-fs" mount --config "$T/latchkey-fs.toml" >"$T/refusal" 2>&1 || status=$?
  [ $status -ne 0 ] && [ $status -ne 124 ] || Fail "$1 was not refused (status $status)"
  grep -qi "$2" "$T/refusal" || Fail "$1: the message does not say \"$2\": $(cat "$T/refusal")"
  grep -q " $T/mnt " /proc/self/mountinfo && Fail "$1: something is mounted"
  return 0
}
Refused "a missing mount point" "mnt"
mkdir "$T/mnt"
touch "$T/mnt/file"
Refused "a mount point that is not empty" "empty"
rm "$T/mnt/file"
chmod 777 "$T/mnt"
Refused "a mount point that others can write" "mnt"
rmdir "$T/mnt"
mkdir "$T/real"
ln -s real "$T/mnt"
Refused "a mount point behind a link" "mnt"
rm "$T/mnt"

StartMount app
Expect "a good mount" "$(cat "$T/mnt/db_password")" first
status=0
timeout 30 "$BIN/latchkey-fs" mount --config "$T/latchkey-fs.toml" >"$T/refusal" 2>&1 || status=$?
[ $status -ne 0 ] && [ $status -ne 124 ] || Fail "a second mount on the same point was not refused (status $status)"
Expect "after the refused second mount" "$(cat "$T/mnt/db_password")" first

# Everything of the first mount dies at once; the point is left dead.
children=$(cat "/proc/$FS_PID/task/$FS_PID/children")
kill -KILL "$FS_PID" $children
wait "$FS_PID" 2>/dev/null || true
WaitUntil 10 "the mount is dead" eval '! cat "$T/mnt/db_password"'
StartMount app
Expect "after a dead mount" "$(cat "$T/mnt/db_password")" first
StopMount
grep -q " $T/mnt " /proc/self/mountinfo && Fail "unmount left the mount"
Expect "the mount point after unmounting" "$(ls -A "$T/mnt")" ""
