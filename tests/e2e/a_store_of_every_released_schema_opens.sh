# A store that an earlier release wrote is verified and served by this one, down to every byte of its contents.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
golden=$SOURCE_DIR/tests/golden
stores=0
for store in "$golden"/schema-*.db; do
  Note "${store##*/}"
  stores=$((stores + 1))
  rm -rf "$T/state" "$T/audit" "$T/anchor" "$T/latchkeyd.toml"
  mkdir -m 700 "$T/state" "$T/audit"
  install -m 600 "$store" "$T/state/latchkey.db"
  install -m 600 "${store%.db}.kek" "$T/kek"
  WriteServerConfig
  # A backup comes without its anchor: the one thing that must be accepted.
  StartServer --accept-rollback
  Expect "the grant" "$(Cli can app rotated --json | jq -r .allowed)" true
  Expect "the current version" "$(CliAs app get rotated --reveal)" second
  Expect "the versions" "$(Cli secret versions rotated --json | jq -c '[.[] | [.version, .current]]')" '[[3,false],[2,true],[1,false]]'
  CliAs app get binary -o "$T/binary"
  Expect "binary content" "$(od -An -tx1 <"$T/binary" | tr -d '\n')" " 00 01 ff 20 62 69 6e 61 72 79 0a"
  CliAs app get large -o "$T/large"
  Expect "large content" "$(Digest "$T/large")" "$(head -c 70000 /dev/zero | tr '\0' z | sha256sum | cut -d' ' -f1)"
  rm -f "$T/binary" "$T/large"
  ExpectRun 5 CliAs app get removed --reveal
  ExpectRun 4 CliAs app get ungranted --reveal
  Cli secret undelete removed >/dev/null
  Cli grant removed readers >/dev/null
  Expect "what was brought back" "$(CliAs app get removed --reveal)" gone
  printf fourth | Cli secret rotate rotated >/dev/null
  Expect "a version written now" "$(CliAs app get rotated --reveal)" fourth
  StopServer
  ExpectRun 0 "$BIN/latchkeyd" check --config "$T/latchkeyd.toml"
done
[ "$stores" -ge 1 ] || Fail "there is no golden store"
# The same store under another key is refused: what was shown above was shown with the key.
install -m 600 "$golden/schema-1.db" "$T/other.db"
tr 'A-Za-z' 'B-ZAb-za' <"$T/kek" >"$T/wrong" && chmod 600 "$T/wrong"
ExpectRun 78 "$BIN/latchkeyd" check --config "$T/latchkeyd.toml" --store "$T/other.db" --kek "$T/wrong"
