# `audit tail -f` shows what both chains get, through a restart of the server: each event once, each chain in order; and on
# an idle server it comes to rest, for following the log must not make the log grow.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
printf first | GrantSecret db_password app
FollowAs admin audit tail -f --json >"$T/tail.out" 2>"$T/tail.log" &
TAIL_PID=$!
Own $TAIL_PID
Has() { grep -q "$1" "$T/tail.out"; }
WaitUntil 20 "the newest events" Has secret.create

CliAs app get db_password >/dev/null
printf second | Cli secret rotate db_password >/dev/null
WaitUntil 20 "a read, of the one chain" Has '"chain":"access:main".*secret.read'
WaitUntil 20 "a rotation, of the other" Has '"chain":"store".*secret.rotate'

# A glance shows what was done. What links the chains is shown on request, and does not push out what is asked for, however
# much of it there is: each read lets the store chain note the access chain's end within a second.
Heads() { Cli audit tail --chain store --all --json -n 1000 | grep -c '"type":"heads"'; }
HasHeads() { CliAs app get db_password >/dev/null; [ "$(Heads)" -ge 3 ]; }
WaitUntil 60 "the store chain has three heads" HasHeads
ExpectContains "the newest change" "$(Cli audit tail --chain store -n 1)" "secret.rotate"
ExpectContains "the same as JSON" "$(Cli audit tail --chain store -n 1 --json)" '"type":"secret.rotate"'
Expect "how many" "$(Cli audit tail -n 5 | wc -l)" 5
Expect "heads unasked" "$(Cli audit tail -n 1000 | grep -c '  heads  ' || true)" 0
Positions() { jq -r 'select(.type != "heads" and .type != "audit.read") | "\(.chain) \(.seq)"'; }
Cli audit tail --all -n 1000 --json | Positions >"$T/all-positions"
Expect "all but heads" "$(Cli audit tail -n 1000 --json | Positions)" "$(<"$T/all-positions")"
Expect "the newest two changes" "$(Cli audit tail --chain store -n 2 --json | Positions)" "$(grep ^store "$T/all-positions" | tail -n 2)"

KillServer
WaitUntil 30 "the word that the server is away" grep -q "still trying" "$T/tail.log"
RestartServer
WaitUntil 60 "the word that it is back" grep -q "is back" "$T/tail.log"
Cli secret delete db_password >/dev/null
WaitUntil 20 "an event of after the restart" Has secret.delete

# At rest: nothing new over three of its rounds.
IsAtRest() {
  local before
  before=$(wc -l <"$T/tail.out")
  sleep 4
  [ "$(wc -l <"$T/tail.out")" -eq "$before" ]
}
WaitUntil 40 "the followed log comes to rest" IsAtRest
EndProcess $TAIL_PID

jq -r '"\(.chain) \(.seq)"' "$T/tail.out" >"$T/positions"
Expect "events shown twice" "$(sort "$T/positions" | uniq -d)" ""
for chain in store access:main; do
  sed -n "s/^$chain //p" "$T/positions" >"$T/of-chain"
  [ -s "$T/of-chain" ] || Fail "nothing of the chain $chain was shown"
  sort -n -c "$T/of-chain" || Fail "the chain $chain was shown out of order"
done
# Everything but readings of the log itself was shown, up to what it rested on.
Cli audit tail --chain access -n 1000 --json | jq -r 'select(.type != "audit.read" and .type != "heads") | .seq' >"$T/all"
first=$(sed -n 's/^access:main //p' "$T/positions" | head -n 1)
awk -v first="$first" '$1 >= first' "$T/all" | while read -r seq; do
  grep -qx "access:main $seq" "$T/positions" || Fail "the event $seq of the access chain was never shown"
done
