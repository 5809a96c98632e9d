# A process in the container that holds the old file open keeps reading the old bytes while new opens give the new ones,
# through the directory and through a single-file bind; no read is mixed, cut or goes backwards.
# Rules: R17.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
MakeContent 1 4000 | GrantSecret db_password app
StartMount app
EnterContainer box -v "$T/mnt:/secrets:ro" -v "$T/mnt/db_password:/one/db_password:ro"

StartReader box --threads 2 --hold /secrets/db_password /one/db_password
WaitUntil 20 "the readers go round" ReaderWentRound box
# Lengths go up and down: a size that belongs to the wrong version would show as a cut or padded read.
# head reads with read(2). busybox' cat uses sendfile, which goes through the page cache like a mapping: for two seconds
# after a rotation it may see the larger of two sizes (docs/operations.md).
number=1
for bytes in 10 90000 1 4096 4095 70000 333 12000 4097 20; do
  number=$((number + 1))
  MakeContent $number $bytes | Cli secret rotate db_password >/dev/null
  Shows() { InContainer box head -n 1 /secrets/db_password | grep -q "TEST $1 "; }
  WaitUntil 10 "version $number in the container" Shows $number
  MakeContent $number $bytes >"$T/wanted"
  InContainer box head -c 9000000 /one/db_password | cmp - "$T/wanted" || Fail "version $number differs through the single-file bind"
  Expect "size of version $number" "$(InContainer box head -c 9000000 /secrets/db_password | wc -c)" "$(wc -c <"$T/wanted")"
  WaitUntil 20 "the readers go round" ReaderWentRound box
done
status=0
StopReader box || status=$?
Expect "the readers' verdict ($(tail -n 1 "$T/reader.box.out"))" $status 0
Expect "the newest version that they saw" "$(JsonNumber highest "$T/reader.box.out")" $number
