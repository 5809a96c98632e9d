# A second server on the same store, an occupied port, a second init and offline commands beside a running server are each
# refused with one line that says what to do; the running server does not notice.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
echo first | GrantSecret db_password app

Refused() {  # Refused WHAT TEXT COMMAND...
  local what=$1 text=$2 status=0
  shift 2
  timeout 20 "$@" >"$T/refusal" 2>&1 || status=$?
  [ $status -ne 0 ] || Fail "$what was not refused"
  [ $status -ne 124 ] || Fail "$what did not end"
  grep -q "$text" "$T/refusal" || Fail "$what was refused without \"$text\": $(cat "$T/refusal")"
}
sed 's/^port = .*/port = 0/; s|^port_file = .*|port_file = "'"$T"'/port2"|' "$T/latchkeyd.toml" >"$T/second.toml"
Refused "a second server" "in use\|already\|holds" "$BIN/latchkeyd" serve --config "$T/second.toml"
Refused "client set beside a server" "in use\|already\|holds\|stop" "$BIN/latchkeyd" client set app --disable --config "$T/latchkeyd.toml"
Refused "a second init" "already there" "$BIN/latchkeyd" init --config "$T/latchkeyd.toml" --admin other --no-recovery

# Another store that wants the same port.
mkdir "$T/other"
cp -r "$T/pki" "$T/other/pki"
WriteServerConfigTo "$T/other.toml" "$T/other" "$SERVER_PORT"
ExpectRun 0 "$BIN/latchkeyd" init --config "$T/other.toml" --admin admin --no-recovery
Refused "an occupied port" "port\|address\|$SERVER_PORT" "$BIN/latchkeyd" serve --config "$T/other.toml"
[ ! -e "$T/other/port" ] || Fail "a server that could not listen wrote its port file"

Expect "the first server still answers" "$(CliAs app get db_password --reveal)" first
ExpectRun 0 "$BIN/latchkeyd" check --config "$T/latchkeyd.toml"
# No lock outlives its server.
KillServer
StartServer
Expect "after kill -9 and a restart" "$(CliAs app get db_password --reveal)" first
