# The completions for zsh and fish are good programs of those shells and offer commands and the names that exist.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
for name in db_password api:key; do printf x | GrantSecret $name app; done
for shell in bash zsh fish; do "$BIN/latchkey" completion $shell >"$T/completion.$shell"; done
ExpectRun 0 bash -n "$T/completion.bash"
ExpectRun 0 zsh -f -n "$T/completion.zsh"
ExpectRun 0 fish --no-config --no-execute "$T/completion.fish"

export PATH=$BIN:$PATH LATCHKEY_ADDR=127.0.0.1:$SERVER_PORT LATCHKEY_CA=$T/pki/ca.crt LATCHKEY_CERT=$T/pki/admin.crt \
  LATCHKEY_KEY=$T/pki/admin.key HOME=$T
Fish() { fish --no-config -c "source $T/completion.fish; complete -C '$1'" | cut -f1 | sort | tr '\n' ' '; }
Expect "fish: commands" "$(Fish 'latchkey secret ro')" "rollback rotate "
Expect "fish: secrets" "$(Fish 'latchkey secret rotate ')" "api:key db_password "
Expect "fish: groups" "$(Fish 'latchkey grant db_password a')" "app-group "

# The function as compinit would call it; what it hands to _describe is what a TAB shows.
cat >"$T/ask.zsh" <<'ZSH'
autoload -U compinit && compinit -u -d "$T_DIR/zcompdump"
source "$T_DIR/completion.zsh"
[[ $_comps[latchkey] == _latchkey ]] || { print "not registered"; exit 1 }
_describe() { local -a shown; shown=("${(@P)2}"); print -rl -- "$shown[@]" }
words=("$@")
CURRENT=$#words
_latchkey
ZSH
Zsh() { T_DIR=$T zsh -f "$T/ask.zsh" "$@" | sort | tr '\n' ' '; }
ExpectContains "zsh: commands" "$(Zsh latchkey secret ro)" "rotate:"
Expect "zsh: secrets" "$(Zsh latchkey secret rotate '')" 'api\:key db_password '
Expect "zsh: groups" "$(Zsh latchkey grant db_password a)" "app-group "
