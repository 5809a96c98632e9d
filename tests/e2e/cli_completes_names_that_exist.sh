# Completion in a real bash offers commands, options and the names that exist on the server, and says nothing without one.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
for name in db_password db_user api:key; do printf x | GrantSecret $name app; done
printf x | Cli secret create hidden >/dev/null

# Completes the words of a line as bash would on TAB and prints what it offers.
cat >"$T/complete.bash" <<'SCRIPT'
PATH=$BIN_DIR:$PATH
[ -r /usr/share/bash-completion/bash_completion ] && [ "$1" = helped ] && source /usr/share/bash-completion/bash_completion
shift
source <(latchkey completion bash)
COMP_WORDS=("$@")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
COMP_LINE="${COMP_WORDS[*]}"
COMP_POINT=${#COMP_LINE}
compopt() { :; }
_latchkey
printf '%s\n' "${COMPREPLY[@]}" | sort | tr '\n' ' '
SCRIPT
Complete() {  # Complete CERTIFICATE WORDS...
  local name=$1
  shift
  LATCHKEY_ADDR=127.0.0.1:$SERVER_PORT LATCHKEY_CA=$T/pki/ca.crt LATCHKEY_CERT=$T/pki/$name.crt LATCHKEY_KEY=$T/pki/$name.key \
    BIN_DIR=$BIN bash "$T/complete.bash" plain "$@"
}
Expect "commands" "$(Complete admin latchkey secret ro)" "rollback rotate "
Expect "secrets" "$(Complete admin latchkey secret rotate db_)" "db_password db_user "
Expect "all secrets" "$(Complete admin latchkey who "")" "api:key db_password db_user hidden "
Expect "clients" "$(Complete admin latchkey client disable a)" "admin app "
Expect "groups of a grant" "$(Complete admin latchkey grant db_user a)" "app-group "
Expect "groups of a flag" "$(Complete admin latchkey secret create new --group "")" "app-group "
Expect "what the own certificate may read" "$(Complete app latchkey get "")" "api:key db_password db_user "
Expect "options" "$(Complete admin latchkey secret rotate db_user --gen)" "--generate "
Expect "no third argument" "$(Complete admin latchkey grant db_user app-group "")" " "

# Whoever has the automation bit may choose names that a shell would run. They reach no administrator's command line.
Curl() { curl -fsS --cacert "$T/pki/ca.crt" --cert "$T/pki/admin.crt" --key "$T/pki/admin.key" "$@"; }
evil="web-\$(touch\${IFS}$T/ran)"
for name in "$evil" "web-;id" -web; do
  jq -n --arg name "$name" '{name: $name}' | Curl -o "$T/made" -H 'Content-Type: application/json' --data @- \
    "https://localhost:$SERVER_PORT/automation/v2/groups"
done
Cli group create bad-only-there >/dev/null
ExpectContains "the group is there" "$(Cli group list)" "$evil"
Expect "no name that is code" "$(Complete admin latchkey group show web)" " "
Expect "no name that is an option" "$(Complete admin latchkey group show -- -)" " "
# The same with keys in an interactive bash: what a TAB completed is run by the newline after it.
Keys() {  # Keys DIRECTORY-OF-LATCHKEY KEYS
  printf 'source %s\n%s\nexit\n' "$T/completion.bash" "$2" | LATCHKEY_ADDR=127.0.0.1:$SERVER_PORT \
    LATCHKEY_CA=$T/pki/ca.crt LATCHKEY_CERT=$T/pki/admin.crt LATCHKEY_KEY=$T/pki/admin.key PATH=$1:$PATH \
    script -qec "bash --norc --noprofile -i" /dev/null 2>&1
}
"$BIN/latchkey" completion bash >"$T/completion.bash"
ExpectContains "a TAB completes" "$(Keys "$BIN" $'latchkey group show bad-\t')" "created:"
Keys "$BIN" $'latchkey group show web\t' >/dev/null || true   # the status is that of the last command typed
[ ! -e "$T/ran" ] || Fail "a TAB put a name's code on the command line, and it ran"
# And the script itself makes one word of whatever it is told.
mkdir "$T/fake"
cat >"$T/fake/latchkey" <<FAKE
#!/bin/sh
if [ "\$1" = __complete ]; then echo '$evil'; else printf 'got <%s>\n' "\$@"; fi
FAKE
chmod 755 "$T/fake/latchkey"
ExpectContains "what was offered came as one word" "$(Keys "$T/fake" $'latchkey group show web\t')" "got <$evil>"
[ ! -e "$T/ran" ] || Fail "the bash completion does not quote what it is told"

StopServer
Expect "commands without a server" "$(Complete admin latchkey secret ro)" "rollback rotate "
Expect "names without a server" "$(Complete admin latchkey secret rotate "" 2>&1)" " "
