# Writes the configurations of a scratch server and mount; sourced by the quick start, the benchmark and the tests.

# WriteServerConfigTo FILE DIRECTORY PORT: certificates in DIRECTORY/pki, state in DIRECTORY/state, port in DIRECTORY/port.
WriteServerConfigTo() {
  cat >"$1" <<TOML
[listen]
address = "127.0.0.1:$3"
port_file = "$2/port"

[tls]
certificate = "$2/pki/server.crt"
key = "$2/pki/server.key"
client_ca = "$2/pki/ca.crt"

[store]
directory = "$2/state"

[kek]
file = "$2/kek"

[observe]
address = "127.0.0.1:0"
TOML
}

# WriteMountConfigTo FILE DIRECTORY ADDRESS CLIENT: mount point DIRECTORY/mnt, the client's certificate in DIRECTORY/pki.
WriteMountConfigTo() {
  cat >"$1" <<TOML
[server]
address = "$3"
ca = "$2/pki/ca.crt"

[identity]
certificate = "$2/pki/$4.crt"
key = "$2/pki/$4.key"

[mount]
target = "$2/mnt"
private_dir = "$2/private"
default_group = "www-data"
TOML
}
