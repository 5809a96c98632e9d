# "First start" of docs/operations.md, word for word but for paths and user: directories, init and server as a user of its own.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
mkdir "$T/bin" "$T/here"
install -m 755 "$BIN/latchkeyd" "$T/bin/"   # where every user may run it
export PATH=$T/bin:$PATH
ln -s "$SOURCE_DIR/packaging" "$T/here/packaging"
cp "$T/pki/server.crt" "$T/pki/server.key" "$T/here/"
cp "$T/pki/ca.crt" "$T/here/clients-ca.crt"

# A user that exists stands for the one that the guide adds, and no limit is raised: a test may not be allowed to.
PATHS='s|/etc/latchkey|'$T'/etc|g; s|/var/lib/latchkey|'$T'/lib|g'
sed -n '/^## First start/,/^## /p' "$SOURCE_DIR/docs/operations.md" | sed -n '/^```/,/^```/{/^```/d;p}' | sed -E -e "$PATHS" \
  -e '/^(adduser|systemctl) /d; s/-o latchkey/-o nobody/; s/-g latchkey/-g nogroup/; s/ #.*//' \
  -e 's/^prlimit .* runuser -u latchkey/runuser -u nobody/; s/--admin ops/--admin admin --no-recovery/' >"$T/guide"
grep -q 'latchkeyd init' "$T/guide" || Fail "the guide has no init any more: $(cat "$T/guide")"
cd "$T/here"
while IFS= read -r line; do
  bash -c "$line" </dev/null >>"$T/guide.log" 2>&1 || Fail "\"$line\" of the guide fails"
  # What the reader looks through: here paths, ports, and memory that a test may not lock.
  [[ $line != *latchkeyd.toml*/etc/ ]] || sed -i -e "$PATHS" -e 's/^port = .*/port = 0/' \
    -e "0,/^# port_file = .*/s||port_file = \"$T/lib/port\"|" -e 's/^allow_unlocked = .*/allow_unlocked = true/' "$T/etc/latchkeyd.toml"
done <"$T/guide"
runuser -u nobody -- "$T/bin/latchkeyd" serve --config "$T/etc/latchkeyd.toml" >>"$T/server.log" 2>&1 &
SERVER_PID=$!
Serves() { [ -s "$T/lib/port" ] || IsGone "$SERVER_PID"; }
WaitUntil 30 "latchkeyd is ready" Serves
IsGone "$SERVER_PID" && Fail "latchkeyd ended instead of serving"
SERVER_PORT=$(cat "$T/lib/port")
ExpectContains "it answers" "$(Cli status)" "automation:                  yes"
Expect "whose the key is" "$(stat -c '%U %a' "$T/etc/private/kek")" "nobody 600"
