# `--dry-run` says what each writing command would do and changes nothing: the store's audit chain, which has an event for
# every change, is afterwards what it was.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
printf first | GrantSecret db_password app
printf second | Cli secret rotate db_password >/dev/null
printf gone | Cli secret create gone >/dev/null
Cli secret delete gone >/dev/null
Cli group create web >/dev/null
# The server's own record of the other chain's head comes by the clock, not by what anybody asked.
Chain() { Cli audit tail --chain store -n 1000 --json | grep -v '"type":"heads"'; }
Chain >"$T/before"
[ "$(wc -l <"$T/before")" -ge 8 ] || Fail "the audit chain has fewer events than changes were made"

Would() {  # Would COMMAND...: both forms
  ExpectRun 0 Cli "$@" --dry-run </dev/null
  ExpectContains "what $* says" "$OUT" would
  ExpectRun 0 Cli "$@" --dry-run --json </dev/null
  ExpectContains "what $* says in JSON" "$OUT" '"dryRun":true'
}
Would secret create new --generate uuid --group web
Would secret rotate db_password --generate uuid --wait
Would secret rollback db_password 1
Would secret rename db_password other
Would secret delete db_password
Would secret undelete gone
Would client create new --group web
Would client enable app
Would client disable app
Would client delete app
Would group create new
Would group delete web
Would group add web app
Would group remove app-group app
Would grant db_password web
Would revoke db_password app-group
Chain >"$T/after"
cmp "$T/before" "$T/after" || Fail "a dry run left an event: $(diff "$T/before" "$T/after")"

# What reading can tell is told.
ExpectRun 6 Cli secret create db_password --generate uuid --dry-run
ExpectRun 6 Cli client create app --dry-run
ExpectRun 6 Cli group create web --dry-run
ExpectRun 6 Cli secret rename db_password db_password --dry-run
ExpectRun 6 Cli secret undelete db_password --dry-run
ExpectRun 6 Cli secret rollback db_password 2 --dry-run
ExpectRun 5 Cli secret delete missing --dry-run
ExpectRun 5 Cli client delete missing --dry-run
ExpectRun 2 Cli secret create empty --from-file /dev/null --dry-run
