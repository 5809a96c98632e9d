# kill -9 of the server in the middle of 1 000 writes by 8 writers: every write whose command said yes is there afterwards,
# with its content, and `latchkeyd check` finds store and both audit chains whole.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
Cli client create app >/dev/null
Cli group create readers >/dev/null
Cli group add readers app >/dev/null
port=$SERVER_PORT

mkdir "$T/acked"
Writer() {  # each writer makes secrets of its own and rotates every one once; it notes what was acknowledged
  local writer=$1 i name
  for ((i = 0; i < 63; ++i)); do
    name=w${writer}n$i
    if echo "content $name 1" | Cli secret create "$name" --group readers >/dev/null 2>&1; then echo "$name 1" >>"$T/acked/$writer"; else continue; fi
    if echo "content $name 2" | Cli secret rotate "$name" >/dev/null 2>&1; then echo "$name 2" >>"$T/acked/$writer"; fi
  done
}
writers=()
for writer in 1 2 3 4 5 6 7 8; do
  Writer $writer &
  writers+=($!)
  Own $!
done
Acked() { cat "$T"/acked/* 2>/dev/null | wc -l; }
AtLeast() { [ "$(Acked)" -ge "$1" ]; }
for mark in 150 400 650; do
  WaitUntil 120 "$mark acknowledged writes" AtLeast $mark
  KillServer
  RestartServer
  Expect "the port after the restart" "$SERVER_PORT" "$port"
done
for pid in "${writers[@]}"; do wait "$pid"; done
Note "$(Acked) writes were acknowledged around three kills"
AtLeast 700 || Fail "too few writes were acknowledged to mean anything"

cat "$T"/acked/* | sort >"$T/acked.all"
sort -k1,1 -k2,2nr "$T/acked.all" | sort -u -k1,1 >"$T/newest"
while read -r name number; do
  got=$(CliAs app get "$name" --reveal) || Fail "acknowledged secret $name is gone"
  case "$got" in
    "content $name $number") ;;
    # The rotation may have been committed while its answer was lost; the other way round is a loss.
    "content $name 2") ;;
    *) Fail "$name holds \"$got\" but version $number was acknowledged" ;;
  esac
done <"$T/newest"
ExpectRun 0 "$BIN/latchkeyd" check --config "$T/latchkeyd.toml"
StopServer
ExpectRun 0 "$BIN/latchkeyd" check --config "$T/latchkeyd.toml"
