# Writes the configurations of a scratch server and mount; sourced by the quick start, the benchmark and the tests.

# WriteServerConfigTo FILE DIRECTORY PORT: certificates are in DIRECTORY/pki; everything else
# goes to DIRECTORY too: state, kek, audit, anchor, port, metrics-port.
WriteServerConfigTo() {
  cat >"$1" <<TOML
[listen]
address = "127.0.0.1"
port = $3
port_file = "$2/port"

[tls]
certificate = "$2/pki/server.crt"
key = "$2/pki/server.key"
client_ca = "$2/pki/ca.crt"

[store]
path = "$2/state/latchkey.db"

[keys]
kek_file = "$2/kek"

[audit]
dir = "$2/audit"

[anchor]
path = "$2/anchor"

[metrics]
address = "127.0.0.1"
port = 0
port_file = "$2/metrics-port"
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
