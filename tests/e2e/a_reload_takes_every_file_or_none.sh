# SIGHUP takes a renewed certificate and a revocation list together; with one broken file everything stays as it was and the
# log says why. A revoked client's open connection is judged again.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app second
"$SOURCE_DIR/certs/make-dev-certs" crl --out "$T/pki"
WriteServerConfig
sed -i "s|^client_ca = .*|&\ncrl = \"$T/pki/ca.crl\"|" "$T/latchkeyd.toml"
InitServer
StartServer
echo first | GrantSecret db_password app
Cli client create second >/dev/null
Cli group add app-group second >/dev/null
Get() { curl -sS -o "$T/body" -w '%{http_code}' --max-time 10 --cacert "$T/pki/ca.crt" --cert "$T/pki/$1.crt" --key "$T/pki/$1.key" "https://127.0.0.1:$SERVER_PORT/secret/db_password" 2>/dev/null || true; }
Serial() { openssl s_client -connect "127.0.0.1:$SERVER_PORT" -cert "$T/pki/app.crt" -key "$T/pki/app.key" </dev/null 2>/dev/null | openssl x509 -noout -serial; }
Expect "before" "$(Get app)/$(Get second)" 200/200
old_serial=$(Serial)

# A new server certificate whose key does not fit, and a list that would lock a client out: neither is taken.
"$SOURCE_DIR/certs/make-dev-certs" server renewed --out "$T/pki"
cp "$T/pki/server.crt" "$T/server.crt.old"
cp "$T/pki/renewed.crt" "$T/pki/server.crt"
"$SOURCE_DIR/certs/make-dev-certs" revoke second --out "$T/pki"
lines=$(wc -l <"$T/server.log")
kill -HUP "$SERVER_PID"
Logged() { tail -n +$((lines + 1)) "$T/server.log" | grep -qi "reload"; }
WaitUntil 10 "the reload is logged" Logged
Expect "after a broken reload" "$(Get app)/$(Get second)/$(Serial)" "200/200/$old_serial"

cp "$T/pki/renewed.key" "$T/pki/server.key"
lines=$(wc -l <"$T/server.log")
kill -HUP "$SERVER_PID"
WaitUntil 10 "the reload is logged" Logged
Expect "after a good reload" "$(Get app)/$(Get second)" 200/000
[ "$(Serial)" != "$old_serial" ] || Fail "the renewed certificate is not served"
