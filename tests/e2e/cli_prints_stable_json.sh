# The JSON of every command has the members that docs/cli.md promises, in that order; errors are one JSON object on stderr.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
Cli client create app >/dev/null
Cli group create web >/dev/null
Cli group add web app >/dev/null
Keys() { jq -c 'if type == "array" then .[0] else . end | keys_unsorted | join(" ")' -r; }
Promise() {  # Promise MEMBERS COMMAND...
  local wanted=$1
  shift
  Expect "members of $*" "$(Cli "$@" --json </dev/null | Keys)" "$wanted"
  grep -qF "\`$wanted\`" "$SOURCE_DIR/docs/cli.md" || Fail "docs/cli.md does not list the members of $*: $wanted"
}
Promise "action name dryRun version generation groups" secret create db --generate uuid --group web
Promise "action name dryRun version generation" secret rotate db --generate uuid
Promise "action name dryRun version generation wait" secret rotate db --generate uuid --wait
Promise "action name dryRun version generation" secret rollback db 1
Promise "name" secret list
secret="name description type owner metadata expirySeconds checksum createdAtSeconds createdBy updatedAtSeconds updatedBy contentCreatedAtSeconds contentCreatedBy versionId"
Promise "$secret" secret list -l
Promise "$secret version versions groups" secret show db
Promise "version versionId current createdAtSeconds createdBy checksum" secret versions db
Promise "name" client list
Promise "name description spiffeId owner enabled automation content lastSeenSeconds createdAtSeconds createdBy updatedAtSeconds updatedBy groups secrets" client show app
Promise "name" group list
Promise "name description owner metadata createdAtSeconds createdBy updatedAtSeconds updatedBy clients secrets" group show web
Promise "client groups" who db
Promise "client secret allowed reason groups" can app db
Promise "client version current servedSinceSeconds lastSeenSeconds" serving db
Promise "server status message checks known automation readableSecrets" status
Expect "client disable and show" "$(Cli client disable app >/dev/null; Cli client show app --json | jq -c '[.enabled, .automation, .content]')" "[false,false,false]"
Cli secret show dc --json >"$T/out" 2>"$T/err" && Fail "a secret that is not there was shown"
Expect "stdout of a failure" "$(cat "$T/out")" ""
Expect "stderr of a failure" "$(cat "$T/err")" '{"error":"not_found","message":"secret \"dc\" not found","didYouMean":["db"]}'
# What a terminal would obey is an escape in the text, and the same character once parsed.
odd=$'csi \302\23331m bidi \342\200\256\342\201\246 mark \342\200\217'  # U+009B, U+202E, U+2066, U+200F
Cli secret create odd --generate uuid --description "$odd" >/dev/null
Cli secret show odd --json >"$T/out"
ExpectContains "a description" "$(cat "$T/out")" '"description":"csi \u009b31m bidi \u202e\u2066 mark \u200f"'
Expect "the description, parsed" "$(jq -r .description "$T/out")" "$odd"
