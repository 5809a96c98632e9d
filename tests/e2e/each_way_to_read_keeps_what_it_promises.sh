# In a container that holds a secret open over a rotation: read(2) in all its forms keeps the old bytes, a new open gives the
# new ones whichever way they are read, and sendfile, splice and mappings follow the path. Nothing is cut, padded or mixed.
# Rules: R17, R18.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
Letters() { head -c "$2" /dev/zero | tr '\0' "$1"; }  # Letters LETTER COUNT
Letters a 3000 | GrantSecret db_password app
StartMount app
EnterContainer box -v "$T/mnt:/secrets:ro" -v "$T/mnt/db_password:/one/db_password:ro"

# Rotates, and comes back once the waker has touched the file.
Rotate() {  # Rotate LETTER COUNT
  Letters "$1" "$2" >"$T/next"
  rm -f "$T/seen"
  "$BIN/inotify_watch" --timeout 20 --until-digest "$(Digest "$T/next")" "$T/mnt/db_password" >"$T/seen" &
  local watcher=$!
  WaitUntil 10 "the watcher started" test -s "$T/seen"
  Cli secret rotate db_password <"$T/next" >/dev/null
  wait "$watcher" || Fail "the rotation to $1 was not announced"
}

for path in /secrets/db_password /one/db_password; do
  # The newer version is shorter, of the same length, longer.
  for length in 100 3000 9000; do
    Rotate a 3000
    rm -f "$T/ways"
    mkfifo "$T/ask"
    InContainer box read_ways $path <"$T/ask" >"$T/ways" &
    reader=$!
    Own $reader
    exec 9>"$T/ask"
    WaitUntil 10 "the file is held" grep -q ready "$T/ways"
    Rotate b $length
    echo >&9
    WaitUntil 10 "each way was tried" grep -q '^map' "$T/ways"
    exec 9>&-
    wait $reader || Fail "read_ways ended with $?"
    rm "$T/ask"
    mapped=$((length < 4096 ? length : 4096))
    Expect "the ways to read $path at $length bytes" "$(<"$T/ways")" "ready
read held a 3000 new b $length
pread held a 3000 new b $length
sendfile held b $length new b $length
splice held b $length new b $length
map held b $mapped new b $mapped"
  done

  # The same by the programs that containers have: busybox' cat sends files, its dd and head read.
  Rotate a 3000
  rm -f "$T/ways"
  mkfifo "$T/ask"
  InContainer box sh -c "exec 3<$path 4<$path 5<$path; echo ready; read go; for get in 'dd bs=9000 count=1 <&3' 'head -c 9000 <&4' 'cat <&5' \
    'cat $path' 'head -c 9000 $path'; do eval \"\$get\" 2>/dev/null | wc -c; done" <"$T/ask" >"$T/ways" &
  reader=$!
  Own $reader
  exec 9>"$T/ask"
  WaitUntil 10 "the shell holds the file" grep -q ready "$T/ways"
  Rotate b 100
  echo >&9
  exec 9>&-
  wait $reader || Fail "the shell ended with $?"
  rm "$T/ask"
  Expect "bytes by held dd, head and cat, then new cat and head" "$(echo $(<"$T/ways"))" "ready 3000 3000 100 100 100"
done
