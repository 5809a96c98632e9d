# Versions are 1, 2, 3 for people: rotate gives the next number, versions lists them, rollback takes one and get delivers it;
# metadata stay through a rotation unless a flag says otherwise.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
Cli client create app >/dev/null
Cli group create web >/dev/null
Cli group add web app >/dev/null
Expect "create" "$(printf one | Cli secret create db --group web --mode 0400 --owner app --metadata _team=db --expiry 2031-01-31 --description 'the db')" \
  'created secret "db", version 1, granted to "web"'
Expect "rotate from stdin" "$(printf two | Cli secret rotate db)" 'rotated secret "db", version 2'
printf three >"$T/three"
Expect "rotate from a file" "$(Cli secret rotate db --from-file "$T/three")" 'rotated secret "db", version 3'
Expect "rotate from a descriptor" "$(Cli secret rotate db --from-file <(printf four))" 'rotated secret "db", version 4'
Expect "metadata after rotations" "$(Cli secret show db --json | jq -c '[.metadata, .description, .expirySeconds, .version, .versions, .groups]')" \
  '[{"mode":"0400","owner":"app","_team":"db"},"the db",1927584000,4,4,["web"]]'

Expect "numbers, newest first" "$(Cli secret versions db --json | jq -c '[.[] | [.version, .current]]')" \
  '[[4,true],[3,false],[2,false],[1,false]]'
Cli secret rollback db 2 >/dev/null
Expect "content after the rollback" "$(CliAs app get db)" two
Expect "current after the rollback" "$(Cli secret versions db --json | jq -c '[.[] | select(.current) | .version]')" '[2]'
ExpectRun 6 Cli secret rollback db 2
ExpectRun 5 Cli secret rollback db 9
ExpectContains "a version that is not there" "$OUT" 'has no version 9'
Expect "a rotation after a rollback" "$(printf five | Cli secret rotate db --mode 0440 --metadata _team= --metadata _note=x)" 'rotated secret "db", version 5'
Expect "content after it" "$(CliAs app get db)" five
Expect "changed metadata" "$(Cli secret show db --json | jq -c .metadata)" '{"mode":"0440","owner":"app","_note":"x"}'

# A rename keeps versions and grants; a deleted secret comes back with both.
Cli secret rename db database >/dev/null
Expect "content under the new name" "$(CliAs app get database)" five
ExpectRun 5 CliAs app get db
Cli secret delete database >/dev/null
ExpectRun 5 CliAs app get database
Cli secret undelete database >/dev/null
Expect "versions after undelete" "$(Cli secret versions database --json | jq length)" 5
