# certs/make-dev-certs makes certificates that verify, keeps keys private, and never replaces a file.
source "$(dirname "$0")/../support/harness.sh"
Begin
make=$SOURCE_DIR/certs/make-dev-certs

MakeCerts app
for name in server admin app; do
  ExpectRun 0 openssl verify -x509_strict -CAfile "$T/pki/ca.crt" "$T/pki/$name.crt"
  Expect "mode of $name.key" "$(stat -c %a "$T/pki/$name.key")" 600
done
ExpectContains "use of the client certificate" "$(openssl x509 -in "$T/pki/app.crt" -noout -ext extendedKeyUsage)" \
  "TLS Web Client Authentication"
ExpectContains "names of the server certificate" "$(openssl x509 -in "$T/pki/server.crt" -noout -ext subjectAltName)" \
  "DNS:localhost, IP Address:127.0.0.1"

before=$(cd "$T/pki" && sha256sum ./*)
ExpectRun 1 "$make" all --out "$T/pki" --client app
ExpectContains "the refusal" "$OUT" "exists"
ExpectRun 1 "$make" client app --out "$T/pki"
ExpectRun 1 "$make" client ../escape --out "$T/pki"
Expect "the files after three refusals" "$(cd "$T/pki" && sha256sum ./*)" "$before"

# One existing file among several is enough to refuse all of them, and a dangling link counts as a file.
mkdir "$T/other"
ln -s nowhere "$T/other/server.key"
ExpectRun 1 "$make" all --out "$T/other"
Expect "files made beside a dangling link" "$(ls "$T/other")" server.key

ExpectRun 0 "$make" client second --out "$T/pki"
ExpectRun 0 "$make" revoke app --out "$T/pki"
ExpectRun 2 openssl verify -crl_check -CRLfile "$T/pki/ca.crl" -CAfile "$T/pki/ca.crt" "$T/pki/app.crt"
ExpectContains "the revoked certificate" "$OUT" "certificate revoked"
ExpectRun 0 openssl verify -crl_check -CRLfile "$T/pki/ca.crl" -CAfile "$T/pki/ca.crt" "$T/pki/second.crt"
