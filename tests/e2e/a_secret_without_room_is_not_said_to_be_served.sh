# What a mount has no room for (64 MiB in all) is named in its status and not acknowledged, so `rotate --wait` does not
# vouch for it; the other secrets go on. Once there is room it is mounted and acknowledged without being asked for.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
WriteServerConfig '[limits]' 'max_content_bytes = 8388608'
InitServer
StartServer
printf first | GrantSecret small app
head -c 8380000 /dev/urandom >"$T/large"
StartMount app
for number in 1 2 3 4 5 6 7 8; do Cli secret create "large$number" --group app-group --from-file "$T/large" >/dev/null; done
WaitUntil 30 "the eighth is mounted" test -e "$T/mnt/large8"
Cli secret create late --group app-group --from-file "$T/large" >/dev/null
Refused() { "$BIN/latchkey-fs" status --config "$T/latchkey-fs.toml" | grep -q '"name":"late"'; }
WaitUntil 30 "the refusal in the status" Refused
ExpectRun 7 Cli secret rotate late --wait=2 --from-file "$T/large"
printf second >"$T/small"
Cli secret rotate small --from-file "$T/small" >/dev/null
WaitUntil 30 "the others go on" cmp -s "$T/mnt/small" "$T/small"

Cli secret delete large1 --yes >/dev/null
WaitUntil 90 "it is mounted" cmp -s "$T/mnt/late" "$T/large"
IsGoodAgain() { ! Refused; }
WaitUntil 30 "the status names it no more" IsGoodAgain
ExpectRun 0 Cli secret rotate small --wait --from-file "$T/small"
