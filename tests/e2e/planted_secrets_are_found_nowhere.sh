# After a secret has been stored, rotated, delivered, mounted, read and revoked, and after every process was killed with
# SIGABRT, neither its bytes nor their base64 or hex forms are in the database, its journal, the audit spool, the anchor,
# the logs, the mount's own directory, or a core dump.
# Rules: R20.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
# Cores would land beside the programs; the programs must forbid them.
ulimit -c unlimited 2>/dev/null || true

planted=()
# Plants a new text in $text.
Plant() { text=PLANTED-$1-$(head -c 18 /dev/urandom | base64 | tr -dc A-Za-z0-9); planted+=("$text"); }
Plant 0
GrantSecret db_password app <<<"$text"
StartMount app
EnterContainer box -v "$T/mnt:/secrets:ro"
for i in 1 2 3; do
  Plant "$i"
  Cli secret rotate db_password --wait <<<"$text" >/dev/null
  Expect "rotation $i in the container" "$(InContainer box head -c 9000000 /secrets/db_password)" "$text"
  Expect "the answer to the client" "$(CliAs app get db_password --reveal)" "$text"
done
# Refused and malformed requests end up in logs and audit records, too.
ExpectRun 4 CliAs app secret rotate db_password <<<"${planted[1]}"
Cli audit tail >"$T/audit-tail.txt"
Cli revoke db_password app-group >/dev/null
kill -ABRT "$(WorkerPid)"
kill -ABRT "$SERVER_PID"
wait "$SERVER_PID" 2>/dev/null || true
SERVER_PID=

# The search itself must be able to find: a copy is laid out and found, then removed.
Everywhere() { grep -rlaF -e "$1" "$T/state" "$T/audit" "$T/anchor" "$T"/*.log "$T/private" "$T/audit-tail.txt" "$T/container/podman.log" "$PWD"/core* /tmp/core* 2>/dev/null || true; }
printf 'x%sx' "${planted[1]}" >"$T/state/decoy"
ExpectContains "the search finds a decoy" "$(Everywhere "${planted[1]}")" decoy
rm "$T/state/decoy"
for text in "${planted[@]}"; do
  [ ${#text} -gt 20 ] || Fail "nothing was planted"
  # base64 of the three alignments, without the characters that depend on the neighbours
  forms=("$text" "$(printf %s "$text" | od -An -v -tx1 | tr -d ' \n')")
  for skip in 0 1 2; do forms+=("$(printf %s "${text:$skip}" | head -c $(( (${#text} - skip) / 3 * 3 )) | base64 -w0)"); done
  for form in "${forms[@]}"; do
    found=$(Everywhere "$form")
    [ -z "$found" ] || Fail "a planted secret (form of ${#form} characters) is in: $found"
  done
done
Expect "core dumps" "$(find "$T" -name 'core*' -size +0 -not -path '*/container/*' | head -n 3)" ""
