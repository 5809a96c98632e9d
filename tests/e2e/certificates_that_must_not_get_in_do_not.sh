# No certificate, another authority's, one without the client's extended key usage, an expired one, a revoked one after a
# reload, an unknown client and a client without the automation bit are each refused; the neighbour gets in each time.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app unknown
InitServer
StartServer
echo first | GrantSecret db_password app

Curl() { curl -sS -o "$T/body" -w '%{http_code}' --max-time 10 --cacert "$T/pki/ca.crt" "$@" "https://127.0.0.1:$SERVER_PORT/secret/db_password" 2>"$T/curl.err"; }
With() { Curl --cert "$1.crt" --key "$1.key"; }
GetsIn() { Expect "the good neighbour" "$(With "$T/pki/app")" 200; }
GetsIn
Expect "no certificate" "$(Curl || true)" 401
Expect "an unknown client" "$(With "$T/pki/unknown" || true)" 401
"$SOURCE_DIR/certs/make-dev-certs" all --out "$T/foreign" --client app
Expect "another authority" "$(With "$T/foreign/app" || true)" 000
Expect "a server's certificate as a client's" "$(With "$T/pki/server" || true)" 000
GetsIn

Sign() {  # Sign NAME EXTENSIONS [x509 options]: a certificate for CN=app from the right authority
  local name=$1 extensions=$2
  shift 2
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$T/pki/$name.key" 2>/dev/null
  openssl req -new -key "$T/pki/$name.key" -subj /CN=app -out "$T/$name.csr"
  openssl x509 -req -in "$T/$name.csr" -CA "$T/pki/ca.crt" -CAkey "$T/pki/ca.key" -CAcreateserial -sha256 \
    -extfile <(printf '%b' "$extensions") -out "$T/pki/$name.crt" "$@" 2>/dev/null
}
full='basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n'
Sign good "${full}extendedKeyUsage=clientAuth\n" -days 1
Expect "a certificate made by hand" "$(With "$T/pki/good")" 200
Sign no_eku "$full" -days 1
Expect "no extended key usage" "$(With "$T/pki/no_eku" || true)" 000
Sign any_eku "${full}extendedKeyUsage=anyExtendedKeyUsage\n" -days 1
Expect "any extended key usage" "$(With "$T/pki/any_eku" || true)" 000
faketime '40 days ago' "$SOURCE_DIR/certs/make-dev-certs" client old --out "$T/pki" --days 5 2>/dev/null ||
  Sign old "${full}extendedKeyUsage=clientAuth\n" -not_before 20200101000000Z -not_after 20200201000000Z
[ -e "$T/pki/old.crt" ] && ! openssl x509 -in "$T/pki/old.crt" -noout -checkend 0 >/dev/null || Fail "no expired certificate to try"
Expect "an expired certificate" "$(With "$T/pki/old" || true)" 000
GetsIn

# An automation request with a client's certificate, and the automation client asking for content without the content bit.
ExpectRun 4 CliAs app secret list
ExpectRun 0 Cli secret list

Cli client disable app >/dev/null
Expect "a disabled client" "$(With "$T/pki/app" || true)" 401
Cli client enable app >/dev/null
GetsIn
