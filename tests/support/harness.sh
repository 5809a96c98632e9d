# Functions for the end-to-end tests: source it first. A test is one script for one sentence.
#
#   source "$(dirname "$0")/../support/harness.sh"
#   Begin                       a scratch directory $T, the programs in $BIN, everything ended and unmounted at the end
#   MakeCerts app other         $T/pki with ca, server, admin and the named clients
#   InitServer; StartServer     latchkeyd on a free port with its database in $T/state; $SERVER_PID,
#                               $SERVER_PORT; $T/kek, $T/audit, $T/anchor
#   Cli secret create ...       latchkey as the automation client "admin"; CliAs NAME ... as another certificate
#   StartMount app              latchkey-fs for the client "app" at $T/mnt; $FS_PID is the keeper
#   EnterContainer app -v ...   a real container from a busybox tree; InContainer app COMMAND...
#   Expect WHAT GOT WANTED; ExpectRun CODE COMMAND...; WaitUntil SECONDS WHAT COMMAND...; Fail WHAT
#
# The environment BIN_DIR names the directory of the built programs. Each test has ports, directories and a container store
# of its own, so that tests run side by side and beside the leftovers of earlier ones. Needs root, /dev/fuse, podman and runc.
set -euo pipefail

SOURCE_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
source "$SOURCE_DIR/scripts/lib/container.sh"
source "$SOURCE_DIR/scripts/lib/config.sh"
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
  umask 022
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
  for file in "$T"/*.log "$T"/container/podman.log; do
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
  [ -z "${CONTAINER_HOME:-}" ] || ForgetContainers
  [ -z "$FS_PID" ] || StopMount >/dev/null 2>&1
  for pid in "${OWN_PIDS[@]}"; do EndProcess "$pid"; done
  EndProcess "$FS_PID"
  EndProcess "$SERVER_PID"
  for point in "${OWN_MOUNTS[@]}"; do umount "$point" 2>/dev/null || umount -l "$point" 2>/dev/null; done
  UnmountBelow "$T"
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
  WriteServerConfigTo "$T/latchkeyd.toml" "$T" "${SERVER_PORT:-0}"
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
# FollowAs CERTIFICATE-NAME ARGUMENTS...: for the background, where $! must be the program itself and not a shell around it.
FollowAs() {
  export LATCHKEY_ADDR=127.0.0.1:$SERVER_PORT LATCHKEY_CA=$T/pki/ca.crt LATCHKEY_CERT=$T/pki/$1.crt LATCHKEY_KEY=$T/pki/$1.key
  shift
  exec "$BIN/latchkey" "$@"
}

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
  WriteMountConfigTo "$T/latchkey-fs.toml" "$T" "127.0.0.1:$SERVER_PORT" "$1"
  shift
  [ $# -eq 0 ] || printf '\n%s\n' "$@" >>"$T/latchkey-fs.toml"
}

StartMount() {  # StartMount CLIENT
  mkdir -p "$T/mnt"
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
# The worker is the one child of the keeper that runs more than one thread; waker and notifier have one each.
WorkerPid() {
  local child
  for child in $(cat "/proc/$FS_PID/task/$FS_PID/children" 2>/dev/null); do
    if [ "$(sed -n 's/^Threads:\t//p' "/proc/$child/status" 2>/dev/null || echo 0)" -gt 1 ]; then echo "$child"; fi
  done | tail -n 1
}

# ---- Container ---------------------------------------------------------------------------------------------------------

EnterContainer() {  # EnterContainer NAME [-v SOURCE:TARGET:ro]...
  CONTAINER_HOME=$T/container
  CONTAINER_PROGRAMS=("$BIN/inotify_watch" "$BIN/read_ways" "$BIN/secret_reader")
  StartContainer "$@" || Fail "container $1 does not start; see podman.log"
  OWN_CONTAINERS+=("$1")
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
