# A wrong, missing, readable, linked or cut KEK ends the start with 78 before anything listens or is written; a typing error
# in the configuration, an unwritable directory, a missing CA and a key of another certificate are each said in one line.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
echo first | GrantSecret db_password app
StopServer
cp "$T/latchkeyd.toml" "$T/good.toml"
cp -p "$T/kek" "$T/kek.good"

Refused() {  # Refused WHAT CODE TEXT
  local what=$1 code=$2 text=$3 status=0 before after
  before=$(sha256sum "$T"/state/latchkey.db "$T"/state/latchkey.db-wal)
  rm -f "$T/port"
  timeout 20 "$BIN/latchkeyd" serve --config "$T/latchkeyd.toml" >"$T/refusal" 2>&1 || status=$?
  Expect "$what: exit status ($(tail -n 1 "$T/refusal"))" $status "$code"
  Expect "$what: lines of the refusal" "$(grep -c 'latchkeyd: error:' "$T/refusal")" 1
  grep -qi "$text" "$T/refusal" || Fail "$what: the message does not say \"$text\": $(cat "$T/refusal")"
  [ ! -e "$T/port" ] || Fail "$what: the server listened"
  after=$(sha256sum "$T"/state/latchkey.db "$T"/state/latchkey.db-wal)
  [ "$code" -ne 78 ] || Expect "$what: the store" "$after" "$before"
  cp "$T/good.toml" "$T/latchkeyd.toml"
  rm -f "$T/kek"
  cp -p "$T/kek.good" "$T/kek"
}

mkdir "$T/other"
cp -r "$T/pki" "$T/other/pki"
WriteServerConfigTo "$T/other.toml" "$T/other" 0
ExpectRun 0 "$BIN/latchkeyd" init --config "$T/other.toml" --admin admin --no-recovery
cp -p "$T/other/kek" "$T/kek"
Refused "the KEK of another store" 78 "key"
rm "$T/kek"
Refused "a missing KEK" 78 "key"
chmod 644 "$T/kek"
Refused "a KEK that others can read" 78 "mode\|0600"
mv "$T/kek" "$T/kek.moved"
ln -s kek.moved "$T/kek"
Refused "a KEK behind a link" 78 "link"
rm -f "$T/kek.moved"
head -c 20 "$T/kek.good" >"$T/kek"
Refused "a cut KEK" 78 "key"

sed -i 's/^port_file/prot_file/' "$T/latchkeyd.toml"
Refused "a typing error" 2 "port_file"
sed -i 's|/pki/server.key|/pki/app.key|' "$T/latchkeyd.toml"
Refused "a key that is not the certificate's" 1 "key"
sed -i 's|/pki/ca.crt|/pki/none.crt|' "$T/latchkeyd.toml"
Refused "a missing client CA" 1 "none.crt"
sed -i "s|$T/audit|/proc/nowhere|" "$T/latchkeyd.toml"
Refused "a directory that cannot be written" 1 "/proc/nowhere"

# And the same store starts with everything in its place.
StartServer
Expect "with the right key" "$(CliAs app get db_password --reveal)" first
