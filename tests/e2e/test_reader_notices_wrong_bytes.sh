# The reader that the other tests rely on is shown to be able to fail, in a real container: on a cut content, on mixed
# content, on a vanished file, on a version that goes backwards and on a held descriptor that changes.
source "$(dirname "$0")/../support/harness.sh"
Begin
mkdir "$T/mnt"
chmod 755 "$T/mnt"
EnterContainer app -v "$T/mnt:/secrets:ro"
Read() { ExpectRun "$1" InContainer app secret_reader --loop --reads 20 "${@:2}" /secrets/s; }

MakeContent 5 3000 >"$T/mnt/s"
Read 0
ExpectContains "a good read" "$OUT" '"errors":0,"first_error":"","wrong":0'
ExpectContains "a good read" "$OUT" '"lowest":5,"highest":5'

head -c 2900 <(MakeContent 5 3000) >"$T/mnt/s"
Read 1
ExpectContains "a cut read" "$OUT" "does not describe itself"

{ MakeContent 5 3000 | head -c 1500; MakeContent 6 3000 | tail -c +1501; } >"$T/mnt/s"
Read 1
ExpectContains "a mixed read" "$OUT" "does not describe itself"

rm "$T/mnt/s"
Read 1
ExpectContains "a missing file" "$OUT" "No such file or directory"

# While the reader runs: an older version by rename, and then new bytes in the file that it holds open.
MakeContent 7 100 >"$T/mnt/s"
StartReader app --hold /secrets/s
WaitUntil 10 "the reader goes round" ReaderWentRound app
MakeContent 3 100 >"$T/mnt/older"
ln "$T/mnt/s" "$T/held"
mv "$T/mnt/older" "$T/mnt/s"
WaitUntil 10 "the reader goes round" ReaderWentRound app
MakeContent 8 100 >"$T/held"
WaitUntil 10 "the reader goes round" ReaderWentRound app
ExpectRun 1 StopReader app
ExpectContains "an older version" "$(cat "$T/reader.app.out")" "an older version after a newer one"
[ "$(JsonNumber held_wrong "$T/reader.app.out")" -gt 0 ] || Fail "a held descriptor that changed was not noticed"
[ "$(JsonNumber backwards "$T/reader.app.out")" -gt 0 ] || Fail "a version that went backwards was not noticed"
