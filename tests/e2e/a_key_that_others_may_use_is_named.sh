# A private key that others may read or write works, but each program says so once, with the file, its mode and the remedy.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
InitServer
StartServer
echo first | GrantSecret db_password app
KEY=$T/pki/app.key
chmod 666 "$KEY"
WARNING="key file \"$KEY\" has mode 0666: others than its owner may use it; run chmod 600 $KEY"
CliAs app secret list --json >"$T/out" 2>"$T/err" || true
Expect "warnings of the CLI" "$(grep -cF "latchkey: warning: $WARNING" "$T/err" || true)" 1
StartMount app
StopMount
Expect "warnings of the mount" "$(grep -c 'warn .*mode 0666.*chmod 600' "$T/mount.log" || true)" 1
chmod 600 "$KEY"
CliAs app secret list >"$T/out" 2>"$T/err" || true
Expect "warnings about a good key" "$(grep -c warning "$T/err" || true)" 0
