# A misspelt name or command is answered with the error, the names that were probably meant, and the exit code of its kind.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app stranger
InitServer
StartServer
printf first | GrantSecret db_password app
Cli group create web >/dev/null

ExpectHint() {  # ExpectHint CODE MESSAGE HINT COMMAND...
  local code=$1 message=$2 hint=$3
  shift 3
  ExpectRun "$code" "$@"
  ExpectContains "the error of $*" "$OUT" "latchkey: error: $message"
  ExpectContains "the hint of $*" "$OUT" "latchkey: hint: did you mean \"$hint\"?"
}
ExpectHint 5 'secret "db_pasword" not found' db_password Cli secret show db_pasword
ExpectHint 5 'secret "db_pasword" not found' db_password Cli secret rotate db_pasword --generate uuid
ExpectHint 5 'secret "db_pasword" not found' db_password Cli secret versions db_pasword
ExpectHint 5 'secret "db_pasword" not found' db_password Cli secret rollback db_pasword 1
ExpectHint 5 'secret "db_pasword" not found' db_password Cli secret delete db_pasword
ExpectHint 5 'secret "db_pasword" not found' db_password Cli who db_pasword
ExpectHint 5 'secret "db_pasword" not found' db_password Cli serving db_pasword
ExpectHint 5 'secret "db_pasword" not found' db_password Cli grant db_pasword web
ExpectHint 5 'secret "db_pasword" not found' db_password CliAs app get db_pasword
ExpectHint 5 'client "ap" not found' app Cli client show ap
ExpectHint 5 'client "ap" not found' app Cli client disable ap
ExpectHint 5 'client "ap" not found' app Cli group add web ap
ExpectHint 5 'group "wbe" not found' web Cli grant db_password wbe
ExpectHint 5 'group "wbe" not found' web Cli revoke db_password wbe
ExpectHint 5 'group "wbe" not found' web Cli group add wbe app
ExpectHint 5 'group "wbe" not found' web Cli group show wbe
printf x >"$T/content"
ExpectHint 5 'group "wbe" not found' web Cli secret create other --group wbe --from-file "$T/content"
ExpectRun 5 Cli secret show other   # nothing was created on the way
ExpectHint 2 'latchkey secret has no command "rotat"' rotate Cli secret rotat db_password
ExpectHint 2 'latchkey secret has no command "ls"' list Cli secret ls
ExpectHint 2 'latchkey secret has no command "update"' rotate Cli secret update db_password
ExpectHint 2 'latchkey secret has no command "get"' "latchkey get" Cli secret get db_password
ExpectHint 2 'the following argument was not expected: 5' --wait=5 Cli secret rotate db_password --generate uuid --wait 5
ExpectRun 2 Cli secret create drawn --generate alnum:0
ExpectContains "the limit of a generator" "$OUT" "from 1 to 1048576"
ExpectRun 0 Cli secret create drawn --generate alnum:1 --dry-run
ExpectContains "one of a thing" "$OUT" "1 byte"
[[ $OUT != *"1 bytes"* ]] || Fail "one is said to be many: $OUT"

# What is piped in is not dropped for a generated content; a pipe that only stays open is no content.
mkfifo "$T/pipe"
exec 9<>"$T/pipe"
ExpectRun 0 Cli secret create from_open_pipe --generate uuid <&9
printf typed >&9
ExpectRun 2 Cli secret create from_pipe --generate uuid <&9
ExpectContains "the refusal" "$OUT" "content is piped in, and --generate draws another"
exec 9>&-
ExpectRun 5 Cli secret show from_pipe

# A wait for nobody says so, and does not look like one that was answered.
Cli client create never_seen >/dev/null
Cli group create quiet >/dev/null
Cli group add quiet never_seen >/dev/null
printf x | Cli secret create lonely --group quiet >/dev/null
ExpectRun 0 Cli secret rotate lonely --generate uuid --wait
ExpectContains "a wait for nobody" "$OUT" 'version 2, but no client that was seen in the last 5 minutes holds it'
ExpectContains "whom it did not wait for" "$OUT" 'not waited for, unseen for 5 minutes: "never_seen"'

ExpectRun 2 Cli client create sidecar --spiffe example.org/sidecar
ExpectContains "what is no SPIFFE id" "$OUT" 'as in spiffe://example.org/app'
ExpectRun 5 Cli client show sidecar
ExpectRun 0 Cli client create sidecar --spiffe spiffe://example.org/sidecar

# The other codes of the contract.
ExpectRun 2 Cli secret show 'not a name'
ExpectRun 3 CliAs stranger get db_password
ExpectRun 4 CliAs app secret list
printf second | Cli secret create not_granted >/dev/null
ExpectRun 4 CliAs app get not_granted
ExpectRun 4 Cli can app not_granted
ExpectRun 0 Cli can app db_password
ExpectRun 6 Cli secret create db_password --generate uuid
ExpectRun 6 Cli group create web
ExpectRun 6 Cli client create app
ExpectRun 6 Cli secret rename not_granted db_password
StopServer
ExpectRun 7 Cli secret list
ExpectContains "the error without a server" "$OUT" "is latchkeyd running there?"
