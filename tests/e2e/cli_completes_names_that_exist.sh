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
StopServer
Expect "commands without a server" "$(Complete admin latchkey secret ro)" "rollback rotate "
Expect "names without a server" "$(Complete admin latchkey secret rotate "" 2>&1)" " "
