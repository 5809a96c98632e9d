# Contents leave the command line by three doors only: `get` to a terminal with --reveal, `get` to a pipe as exact bytes, and
# `get -o FILE`, which is 0600 and whole or absent. No other command, option or error prints one (rule O4).
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer

# Runs a command on a terminal of its own; the output of both streams is left in $OUT.
ExpectOnTerminal() {  # ExpectOnTerminal CODE ARGUMENTS...
  local wanted=$1 got=0
  shift
  LATCHKEY_ADDR=127.0.0.1:$SERVER_PORT LATCHKEY_CA=$T/pki/ca.crt LATCHKEY_CERT=$T/pki/app.crt LATCHKEY_KEY=$T/pki/app.key \
    SHELL=/bin/bash script -qec "$(printf '%q ' "$BIN/latchkey" "$@")" /dev/null </dev/null >"$T/terminal.out" || got=$?
  OUT=$(tr -d '\r' <"$T/terminal.out")
  [ "$got" -eq "$wanted" ] || Fail "\"$*\" on a terminal ended with $got, wanted $wanted; it said: $OUT"
}

# ---- A terminal and a pipe
secret=PLANTED-$(head -c 18 /dev/urandom | base64 | tr -dc A-Za-z0-9)
printf %s "$secret" | GrantSecret planted app
for options in "" "-o -" "--json" "--json --reveal"; do
  ExpectOnTerminal 2 get planted $options
  [[ $OUT != *"$secret"* ]] || Fail "get $options showed a content on a terminal"
done
ExpectOnTerminal 2 get planted
Expect "refusal on a terminal" "$OUT" 'latchkey: error: content goes to a terminal only with --reveal
latchkey: hint: use --reveal, -o FILE or a pipe'
ExpectOnTerminal 0 get planted --reveal
Expect "get --reveal on a terminal" "$OUT" "$secret"

# Every byte value, a zero and a line feed at the end: a pipe gets neither more nor less.
for code in $(seq 0 255); do printf "\\x$(printf %02x "$code")"; done >"$T/bytes"
printf '\0\n' >>"$T/bytes"
GrantSecret bytes app <"$T/bytes"
for options in "" "--reveal" "-o -"; do
  CliAs app get bytes $options | cat >"$T/got"
  cmp "$T/bytes" "$T/got" || Fail "get $options through a pipe changed the bytes"
done
(CliAs app get bytes >/dev/full) 2>"$T/err" && Fail "a pipe that takes nothing was taken for success"
ExpectContains "the error of a full output" "$(cat "$T/err")" "cannot write to standard output"

# ---- A file
mkdir "$T/out"
OnlyFile() { Expect "files beside the output" "$(ls -A "$T/out")" "${1-}"; }
umask 000
ExpectRun 0 CliAs app get bytes -o "$T/out/file"
cmp "$T/bytes" "$T/out/file" || Fail "get -o changed the bytes"
Expect "mode of a new file" "$(stat -c %a "$T/out/file")" 600
OnlyFile file
# In place of a longer file that everybody may read; whoever has that one open does not see the content.
head -c 100000 /dev/zero >"$T/out/file"
chmod 666 "$T/out/file"
exec 7<"$T/out/file"
ExpectRun 0 CliAs app get bytes -o "$T/out/file"
umask 022
cmp "$T/bytes" "$T/out/file" || Fail "get -o did not replace what was there"
Expect "mode of a replaced file" "$(stat -c %a "$T/out/file")" 600
Expect "bytes of the file that was open" "$(head -c 10 <&7 | tr -d '\0' | wc -c)" 0
exec 7<&-
# A failure leaves what was there, and nothing where there was nothing.
echo old >"$T/out/file"
ExpectRun 5 CliAs app get missing -o "$T/out/file"
Expect "what was there before a failure" "$(cat "$T/out/file")" old
rm "$T/out/file"
ExpectRun 5 CliAs app get missing -o "$T/out/file"
OnlyFile ""
ln -s "$T/elsewhere" "$T/out/link"
ExpectRun 2 CliAs app get bytes -o "$T/out/link"
[ ! -e "$T/elsewhere" ] || Fail "get -o followed a link"
OnlyFile link

# ---- A full disk: the content has more bytes than there is room
mkdir "$T/small"
mount -t tmpfs -o size=64k tmpfs "$T/small"
OWN_MOUNTS+=("$T/small")
head -c 200000 /dev/urandom | base64 -w0 >"$T/large"
GrantSecret large app <"$T/large"
ExpectRun 7 CliAs app get large -o "$T/small/file"
ExpectContains "the error of a full disk" "$OUT" "no space left on the disk"
Expect "files on the full disk" "$(ls -A "$T/small")" ""
echo old >"$T/small/file"
ExpectRun 7 CliAs app get large -o "$T/small/file"
Expect "what was on the full disk" "$(ls -A "$T/small"):$(cat "$T/small/file")" file:old
umount "$T/small"

# ---- Nothing else prints a content
: >"$T/everything"
Keep() { printf '$ %s\n' "$*" >>"$T/everything"; KEPT=0; "$@" </dev/null >>"$T/everything" 2>&1 || KEPT=$?; }
printf %s "$secret" | GrantSecret extra app
# What to give each command; a command that is missing here fails the test.
declare -A arguments=(
  ["secret create"]="planted --from-file $T/planted" ["secret rotate"]="planted --from-file $T/planted --wait=1"
  ["secret list"]="-l" ["secret show"]=planted ["secret versions"]=planted ["secret rollback"]="planted 1"
  ["secret rename"]="extra extra2" ["secret delete"]=extra2 ["secret undelete"]=extra2
  ["client create"]=new ["client list"]="" ["client show"]=app ["client enable"]=app ["client disable"]=new
  ["client delete"]=new ["group create"]=new ["group list"]="" ["group show"]=app-group ["group delete"]=new
  ["group add"]="app-group admin" ["group remove"]="app-group admin" ["grant"]="planted app-group"
  ["revoke"]="extra2 app-group" ["who"]=planted ["can"]="app planted" ["serving"]=planted ["audit tail"]="-n 1000"
  ["status"]="" ["get"]="planted -o $T/out/planted" ["completion"]=bash)
must_succeed=",secret list,secret show,secret versions,client list,client show,group list,group show,who,can,serving,audit tail,status,completion,"
printf %s "$secret" >"$T/planted"
Below() { Cli __complete -- "$@" "" | sed -n 's/\t.*//p'; }
commands=()
for word in $(Below); do
  below=$(Below "$word")
  if [ -z "$below" ]; then commands+=("$word"); fi
  for second in $below; do commands+=("$word $second"); done
done
[ ${#commands[@]} -ge 30 ] || Fail "only ${#commands[@]} commands were found"
for command in "${commands[@]}"; do
  [ -n "${arguments[$command]+there}" ] || Fail "this test does not know the command \"$command\""
  for form in "" --json; do
    Keep CliAs app $command ${arguments[$command]} $form
    Keep CliAs admin $command ${arguments[$command]} $form
    [[ $must_succeed != *",$command,"* || $KEPT -eq 0 ]] || Fail "$command $form ended with $KEPT: $(tail -n 1 "$T/everything")"
    Keep Cli $command --help $form
    [[ $command != secret\ r* && $command != secret\ create ]] || Keep Cli $command ${arguments[$command]} --dry-run $form
  done
done
printf %s "$secret" | Cli secret rotate large --dry-run --json >>"$T/everything" 2>&1
printf %s "$secret" | Cli secret create "not a name" >>"$T/everything" 2>&1 && Fail "a wrong name was taken"
Keep Cli secret rotate planted --generate "$T/planted"
Keep CliAs app get planted --json
Keep CliAs app __complete -- get ""

# The search itself must be able to find.
text=$(head -c 40 "$T/large")
{ cat "$T/everything"; printf 'x%sx' "$secret"; } >"$T/decoy"
grep -qaF -e "$secret" "$T/decoy" || Fail "the search does not find a decoy"
grep -qF '$ CliAs admin audit tail' "$T/everything" || Fail "the outputs were not kept"
for text in "$secret" "$text"; do
  # base64 of the three alignments, without the characters that depend on the neighbours
  forms=("$text" "$(printf %s "$text" | od -An -v -tx1 | tr -d ' \n')")
  for skip in 0 1 2; do forms+=("$(printf %s "${text:$skip}" | head -c $(((${#text} - skip) / 3 * 3)) | base64 -w0)"); done
  for form in "${forms[@]}"; do
    ! grep -aF -B 3 -e "$form" "$T/everything" || Fail "a content (form of ${#form} characters) was printed"
  done
done
