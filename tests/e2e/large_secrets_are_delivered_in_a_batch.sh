# A batch with a secret as large as can be set up is delivered: its reply and its content together are more than the locked
# arena of the server holds.
source "$(dirname "$0")/../support/harness.sh"
Begin
MakeCerts app
WriteServerConfig '[limits]' 'max_content_bytes = 8388608'
InitServer
StartServer
head -c 8388608 /dev/urandom >"$T/large"
printf small >"$T/small"
GrantSecret large app <"$T/large"
GrantSecret small app <"$T/small"

Batch() {
  curl -sS --cacert "$T/pki/ca.crt" --cert "$T/pki/app.crt" --key "$T/pki/app.key" -H 'Content-Type: application/json' \
    -d '{"secrets":["large","small"]}' -o "$T/batch.json" -w '%{http_code}' "https://127.0.0.1:$SERVER_PORT/batchsecret"
}
for attempt in 1 2 3; do Expect "batch number $attempt" "$(Batch)" 200; done
jq -r '.[] | select(.name == "large") | .secret' "$T/batch.json" | base64 -d | cmp - "$T/large" || Fail "the large content differs"
