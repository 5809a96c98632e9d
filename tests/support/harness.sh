# Functions for the end-to-end tests: source it first. A test is one script for one sentence.
#
#   source "$(dirname "$0")/../support/harness.sh"
#   Begin                       a scratch directory $T, the programs in $BIN, everything ended and unmounted at the end
#   MakeCerts app other         $T/pki with ca, server, admin and the named clients
#   InitServer; StartServer     latchkeyd on a free port with its state in $T/state; $SERVER_PID, $SERVER_PORT
#   Cli secret create ...       latchkey as the automation client "admin"; CliAs NAME ... as another certificate
#   StartMount app              latchkey-fs for the client "app" at $T/mnt; $FS_PID is the keeper
#   StartContainer app -v ...   a real container from a busybox tree; InContainer app COMMAND...
#   Expect WHAT GOT WANTED; ExpectRun CODE COMMAND...; WaitUntil SECONDS WHAT COMMAND...; Fail WHAT
#
# The environment BIN_DIR names the directory of the built programs. Each test has ports, directories and a container store
# of its own, so that tests run side by side and beside the leftovers of earlier ones. Needs root, /dev/fuse, podman and runc.
set -euo pipefail

SOURCE_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BIN=${BIN_DIR:?set BIN_DIR to the directory of the built programs}
T=
SERVER_PID= SERVER_PORT= FS_PID=
OWN_PIDS=()
OWN_CONTAINERS=()
OWN_MOUNTS=()
declare -A READER_PID READER_RCHAR

Note() { printf '   %s\n' "$*"; }
Fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

# ---- Scratch directory and the end of everything -----------------------------------------------------------------------

Begin() {
  [ "$(id -u)" -eq 0 ] || Fail "the end-to-end tests mount file systems: run them as root"
  T=$(mktemp -d "${TMPDIR:-/tmp}/latchkey-e2e.XXXXXX")
  chmod 755 "$T"
  trap End EXIT
  trap 'exit 130' INT TERM
}

# Reads `condition` until it holds; no fixed waiting anywhere else.
WaitUntil() {  # WaitUntil SECONDS WHAT COMMAND...
  local limit=$1 what=$2 start=$SECONDS
  shift 2
  until "$@" >/dev/null 2>&1; do
    if (( SECONDS - start > limit )); then Fail "$what did not happen within $limit s"; fi
    sleep 0.02
  done
}

IsGone() { ! kill -0 "$1" 2>/dev/null || [ "$(cut -d' ' -f3 <"/proc/$1/stat" 2>/dev/null || echo Z)" = Z ]; }
EndProcess() {  # EndProcess PID: politely, then not
  [ -n "$1" ] || return 0
  IsGone "$1" || { kill -TERM "$1" 2>/dev/null || true; ( WaitUntil 15 "the end of $1" IsGone "$1" ) 2>/dev/null || kill -KILL "$1" 2>/dev/null || true; }
  wait "$1" 2>/dev/null || true
}

ShowLogs() {
  local file
  for file in "$T"/*.log; do
    [ -s "$file" ] || continue
    printf -- '--- %s\n' "${file##*/}" >&2
    tail -n 25 "$file" >&2
  done
}

End() {
  local status=$? pid container point
  trap - EXIT INT TERM
  set +e
  [ $status -eq 0 ] || ShowLogs
  for container in "${OWN_CONTAINERS[@]}"; do RemoveContainer "$container"; done
  [ -z "$FS_PID" ] || StopMount >/dev/null 2>&1
  for pid in "${OWN_PIDS[@]}"; do EndProcess "$pid"; done
  EndProcess "$FS_PID"
  EndProcess "$SERVER_PID"
  for point in "${OWN_MOUNTS[@]}"; do umount "$point" 2>/dev/null || umount -l "$point" 2>/dev/null; done
  # Whatever is still mounted below the scratch directory (a container store, a mount whose keeper died) goes, deepest first.
  awk -v top="$T/" 'index($5, top) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r point; do
    umount -l "$point" 2>/dev/null
  done
  if [ -n "${KEEP_SCRATCH:-}" ]; then echo "kept: $T" >&2; else rm -rf --one-file-system "$T"; fi
  exit $status
}

Own() { OWN_PIDS+=("$1"); }

# ---- Assertions --------------------------------------------------------------------------------------------------------

Expect() { [ "$2" = "$3" ] || Fail "$1: got \"$2\", wanted \"$3\""; }
ExpectContains() { [[ "$2" == *"$3"* ]] || Fail "$1: \"$2\" does not contain \"$3\""; }
ExpectRun() {  # ExpectRun CODE COMMAND...: the output of both streams is left in $OUT
  local wanted=$1 got=0
  shift
  "$@" >"$T/expect.out" 2>&1 || got=$?
  OUT=$(<"$T/expect.out")
  [ "$got" -eq "$wanted" ] || Fail "\"$*\" ended with $got, wanted $wanted; it said: $OUT"
}
Digest() { sha256sum "$1" | cut -d' ' -f1; }
# JsonNumber FIELD FILE: the last value of a number in JSON lines.
JsonNumber() { sed -n "s/.*\"$1\":\(-\{0,1\}[0-9]*\).*/\1/p" "$2" | tail -n 1; }

# ---- Server ------------------------------------------------------------------------------------------------------------

MakeCerts() {  # MakeCerts CLIENT...
  local name arguments=()
  for name in "$@"; do arguments+=(--client "$name"); done
  "$SOURCE_DIR/certs/make-dev-certs" all --out "$T/pki" --automation admin "${arguments[@]}"
}

WriteServerConfig() {  # WriteServerConfig [EXTRA TOML...]
  cat >"$T/latchkeyd.toml" <<TOML
[listen]
address = "127.0.0.1"
port = ${SERVER_PORT:-0}
port_file = "$T/port"

[tls]
certificate = "$T/pki/server.crt"
key = "$T/pki/server.key"
client_ca = "$T/pki/ca.crt"

[store]
directory = "$T/state"

[log]
level = "info"
format = "text"
TOML
  [ $# -eq 0 ] || printf '\n%s\n' "$@" >>"$T/latchkeyd.toml"
}

InitServer() {
  [ -e "$T/latchkeyd.toml" ] || WriteServerConfig
  "$BIN/latchkeyd" init --config "$T/latchkeyd.toml" --admin admin --no-recovery >"$T/init.log" 2>&1 ||
    Fail "latchkeyd init failed"
}

StartServer() {  # StartServer [SERVE OPTIONS...]
  rm -f "$T/port"
  "$BIN/latchkeyd" serve --config "$T/latchkeyd.toml" "$@" >>"$T/server.log" 2>&1 &
  SERVER_PID=$!
  WaitUntil 30 "latchkeyd is ready" ServerIsUpOrGone
  IsGone "$SERVER_PID" && Fail "latchkeyd ended instead of serving"
  SERVER_PORT=$(cat "$T/port")
}
ServerIsUpOrGone() { [ -s "$T/port" ] || IsGone "$SERVER_PID"; }

StopServer() { EndProcess "$SERVER_PID"; SERVER_PID=; }
KillServer() { kill -KILL "$SERVER_PID"; wait "$SERVER_PID" 2>/dev/null || true; SERVER_PID=; }
# A server that comes back on the same port, as clients expect it to.
RestartServer() { WriteServerConfig "$@"; StartServer; }

CliAs() {  # CliAs CERTIFICATE-NAME ARGUMENTS...
  local name=$1
  shift
  LATCHKEY_ADDR=127.0.0.1:$SERVER_PORT LATCHKEY_CA=$T/pki/ca.crt LATCHKEY_CERT=$T/pki/$name.crt \
    LATCHKEY_KEY=$T/pki/$name.key "$BIN/latchkey" "$@"
}
Cli() { CliAs admin "$@"; }

MakeContent() { "$BIN/secret_reader" --make "$1" "$2"; }  # MakeContent NUMBER BODY-BYTES

# GrantSecret SECRET CLIENT: content on stdin; makes the client and a group of the same name when they are not there.
GrantSecret() {
  local secret=$1 client=$2
  Cli secret create "$secret" >/dev/null
  Cli client show "$client" >/dev/null 2>&1 || Cli client create "$client" >/dev/null
  Cli group show "$client-group" >/dev/null 2>&1 || {
    Cli group create "$client-group" >/dev/null
    Cli group add "$client-group" "$client" >/dev/null
  }
  Cli grant "$secret" "$client-group" >/dev/null
}

# ---- Mount -------------------------------------------------------------------------------------------------------------

WriteMountConfig() {  # WriteMountConfig CLIENT [EXTRA TOML...]
  local client=$1
  shift
  cat >"$T/latchkey-fs.toml" <<TOML
[server]
address = "127.0.0.1:$SERVER_PORT"
ca = "$T/pki/ca.crt"

[identity]
certificate = "$T/pki/$client.crt"
key = "$T/pki/$client.key"

[mount]
point = "$T/mnt"
runtime_directory = "$T/fs-run"
TOML
  [ $# -eq 0 ] || printf '\n%s\n' "$@" >>"$T/latchkey-fs.toml"
}

StartMount() {  # StartMount CLIENT
  mkdir -p "$T/mnt" "$T/fs-run"
  [ -e "$T/latchkey-fs.toml" ] || WriteMountConfig "$1"
  "$BIN/latchkey-fs" mount --config "$T/latchkey-fs.toml" >>"$T/mount.log" 2>&1 &
  FS_PID=$!
  WaitUntil 30 "the mount is there" MountIsUpOrGone
  IsGone "$FS_PID" && Fail "latchkey-fs ended instead of mounting"
  return 0
}
MountIsUpOrGone() { [ -e "$T/mnt/.running" ] || IsGone "$FS_PID"; }
StopMount() {
  "$BIN/latchkey-fs" unmount --config "$T/latchkey-fs.toml" >>"$T/mount.log" 2>&1 || true
  EndProcess "$FS_PID"
  FS_PID=
}
# The worker is the keeper's child that serves requests; `status` names it.
WorkerPid() { "$BIN/latchkey-fs" status --config "$T/latchkey-fs.toml" --json | sed -n 's/.*"worker_pid": *\([0-9]*\).*/\1/p'; }

# ---- Container ---------------------------------------------------------------------------------------------------------
# podman with runc; where that cannot run, bubblewrap; where neither runs the test fails (it never skips).

CONTAINER_ENGINE=

Podman() {
  CONTAINERS_CONF=$T/containers.conf podman --root "$T/podman/store" --runroot "$T/podman/run" --tmpdir "$T/podman/tmp" \
    --storage-driver "$CONTAINER_STORAGE" "$@"
}

MakeRootTree() {
  local root=$T/rootfs applet
  mkdir -p "$root"/{bin,etc,proc,dev,sys,tmp,secrets,run}
  cp "$(command -v busybox)" "$BIN/inotify_watch" "$BIN/secret_reader" "$root/bin/"
  for applet in sh cat ls id sleep stat mount sha256sum wc dd touch head tail kill sed; do ln -sf busybox "$root/bin/$applet"; done
  printf 'root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n' >"$root/etc/passwd"
  printf 'root:x:0:\napp:x:1000:\n' >"$root/etc/group"
}

PrepareContainers() {
  [ -z "$CONTAINER_ENGINE" ] || return 0
  MakeRootTree
  # crun fails on hybrid control groups, and without CAP_SYS_RESOURCE podman must not raise limits.
  cat >"$T/containers.conf" <<'CONF'
[containers]
default_ulimits=["nofile=1024:4096","nproc=1024:1024"]
netns="none"
[engine]
runtime="runc"
cgroup_manager="cgroupfs"
events_logger="file"
CONF
  tar -C "$T/rootfs" -cf "$T/rootfs.tar" .
  for CONTAINER_STORAGE in overlay vfs; do
    rm -rf "$T/podman"
    mkdir -p "$T/podman"
    if Podman import "$T/rootfs.tar" localhost/latchkey-test:1 >>"$T/podman.log" 2>&1 &&
      Podman run --rm --read-only --cap-drop all localhost/latchkey-test:1 /bin/sh -c 'exit 0' >>"$T/podman.log" 2>&1; then
      CONTAINER_ENGINE=podman
      return 0
    fi
  done
  if bwrap --ro-bind "$T/rootfs" / --proc /proc --dev /dev --unshare-all /bin/sh -c 'exit 0' >>"$T/podman.log" 2>&1; then
    CONTAINER_ENGINE=bwrap
    Note "podman does not run here; using bubblewrap"
    return 0
  fi
  Fail "neither podman with runc nor bubblewrap can run a container here; see podman.log"
}

# StartContainer NAME [-v SOURCE:TARGET:ro]...: uid 1000, no capabilities, read-only root, no network.
StartContainer() {
  local name=$1 volume pid
  shift
  PrepareContainers
  if [ $CONTAINER_ENGINE = podman ]; then
    Podman run -d --name "$name" --user 1000:1000 --read-only --cap-drop all --security-opt no-new-privileges "$@" \
      localhost/latchkey-test:1 /bin/sleep 86400 >>"$T/podman.log" 2>&1 || Fail "podman cannot start container $name"
    OWN_CONTAINERS+=("$name")
    return 0
  fi
  local binds=()
  while [ $# -gt 0 ]; do
    [ "$1" = -v ] || Fail "the fallback knows only -v, not $1"
    volume=${2%:ro}
    binds+=(--ro-bind "${volume%:*}" "${volume##*:}")
    shift 2
  done
  bwrap --ro-bind "$T/rootfs" / "${binds[@]}" --proc /proc --dev /dev --tmpfs /tmp --unshare-all --uid 1000 --gid 1000 \
    --info-fd 9 /bin/sleep 86400 9>"$T/bwrap.$name" >>"$T/podman.log" 2>&1 &
  Own $!
  WaitUntil 10 "container $name runs" test -s "$T/bwrap.$name"
}

InContainer() {  # InContainer NAME COMMAND...
  local name=$1 pid
  shift
  if [ $CONTAINER_ENGINE = podman ]; then
    Podman exec -i "$name" "$@"
  else
    pid=$(sed -n 's/.*"child-pid": *\([0-9]*\).*/\1/p' "$T/bwrap.$name")
    nsenter -t "$pid" -m -p -i -u -n -r -w -S 1000 -G 1000 "$@"
  fi
}

# A reader that loops in a container; its report is in $T/reader.NAME.out once it was stopped.
StartReader() {  # StartReader NAME [READER OPTIONS] PATH...
  local name=$1
  shift
  InContainer "$name" secret_reader --loop "$@" >"$T/reader.$name.out" 2>&1 &
  READER_PID[$name]=$!
  Own $!
  WaitUntil 10 "the reader in $name started" test -s "$T/reader.$name.out"
}
# True once the reader has read another 64 KiB since the last call that was true.
ReaderWentRound() {
  local inner now
  inner=$(InContainer "$1" busybox pidof secret_reader) || return 1
  now=$(InContainer "$1" sed -n 's/^rchar: //p' "/proc/$inner/io")
  [ "$now" -gt $((${READER_RCHAR[$1]:-0} + 65536)) ] || return 1
  READER_RCHAR[$1]=$now
}
StopReader() {  # the reader's own exit status
  InContainer "$1" sh -c 'kill -TERM $(busybox pidof secret_reader)'
  wait "${READER_PID[$1]}"
}

RemoveContainer() {
  [ "$CONTAINER_ENGINE" != podman ] || Podman rm -f -t 0 "$1" >>"$T/podman.log" 2>&1 || true
}
