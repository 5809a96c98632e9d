# A granted secret is a file in a real container, byte for byte; its neighbour that was not granted does not exist there;
# nobody can write, and nobody outside the group can read.
# Rules: R40.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app other
InitServer
StartServer

{ for ((i = 0; i < 256; ++i)); do printf "\\x$(printf %02x $i)"; done; head -c 5000 /dev/urandom; } >"$T/content"
GrantSecret db_password app <"$T/content"
Cli secret create not_granted <"$T/content" >/dev/null
StartMount app
EnterContainer box -v "$T/mnt:/secrets:ro" -v "$T/mnt/db_password:/one/db_password:ro"

InContainer box head -c 9000000 /secrets/db_password | cmp - "$T/content" || Fail "the file in the container differs"
InContainer box head -c 9000000 /one/db_password | cmp - "$T/content" || Fail "the file bound singly differs"
Expect "owner and mode" "$(InContainer box stat -c '%U %G %a %s' /secrets/db_password)" "root www-data 440 5256"
ExpectRun 1 InContainer box cat /secrets/not_granted
ExpectContains "a secret without a grant" "$OUT" "No such file or directory"
ExpectRun 1 InContainer box sh -c 'echo x >>/secrets/db_password'
ExpectContains "writing in the container" "$OUT" "Permission denied"
ExpectRun 2 sh -c "echo x >>$T/mnt/db_password"
ExpectContains "writing as root on the host" "$OUT" "Read-only file system"
ExpectRun 1 setpriv --reuid 12345 --regid 12345 --clear-groups cat "$T/mnt/db_password"
ExpectContains "reading as a stranger" "$OUT" "Permission denied"

ExpectRun 0 Cli can app db_password
ExpectRun 4 Cli can app not_granted
ExpectContains "who may read it" "$(Cli who db_password)" app

# A revocation takes the file away from the running container, and a grant brings the same bind back to life.
Cli revoke db_password app-group >/dev/null
WaitUntil 10 "the secret vanishes from the container" eval '! InContainer box head -c 9000000 /secrets/db_password'
ExpectRun 4 Cli can app db_password
Cli grant db_password app-group >/dev/null
WaitUntil 10 "the secret comes back" InContainer box head -c 9000000 /secrets/db_password
InContainer box head -c 9000000 /one/db_password | cmp - "$T/content" || Fail "the old single-file bind does not serve the secret again"
