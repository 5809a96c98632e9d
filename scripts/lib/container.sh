# A real container without a registry: podman with runc and an image made from busybox-static. Sourced by the quick start,
# the benchmark and the end-to-end tests. Each user has a store of its own, so nothing is shared with the machine's podman.
#
#   CONTAINER_HOME     directory for image, store and logs (set before the first call)
#   CONTAINER_PROGRAMS static programs that go into the image
#   PrepareContainers; StartContainer NAME [-v SOURCE:TARGET:ro]...; InContainer NAME COMMAND...; RemoveContainer NAME;
#   ForgetContainers when the last is removed
#
# Where podman cannot run, bubblewrap takes its place; where neither runs, that is an error and never skipped.

CONTAINER_ENGINE=
CONTAINER_STORAGE=overlay
CONTAINER_ENTRY=exec
CONTAINER_RUN=
CONTAINER_PROGRAMS=()
CONTAINER_IMAGE=localhost/latchkey-demo:1

Podman() {
  CONTAINERS_CONF=$CONTAINER_HOME/containers.conf podman --root "$CONTAINER_HOME/store" --runroot "$CONTAINER_RUN" \
    --tmpdir "$CONTAINER_RUN/libpod" --storage-driver "$CONTAINER_STORAGE" "$@"
}

# podman takes a run directory of at most 50 characters, and a folder in somebody's home is soon deeper than that.
ChooseRunDirectory() {
  CONTAINER_RUN=$CONTAINER_HOME/run
  [ ${#CONTAINER_RUN} -gt 50 ] || return 0
  [ -s "$CONTAINER_HOME/run-at" ] || mktemp -d /tmp/latchkey-run.XXXXXX >"$CONTAINER_HOME/run-at"
  CONTAINER_RUN=$(<"$CONTAINER_HOME/run-at")
}

MakeRootTree() {
  local root=$CONTAINER_HOME/rootfs applet
  mkdir -p "$root"/{bin,etc,proc,dev,sys,tmp,secrets,run}
  cp "$(command -v busybox)" "${CONTAINER_PROGRAMS[@]}" "$root/bin/"
  for applet in sh cat ls id sleep stat mount sha256sum wc dd touch head tail kill sed; do
    ln -sf busybox "$root/bin/$applet"
  done
  printf 'root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\n' >"$root/etc/passwd"
  echo container >"$root/etc/latchkey-demo"
  printf 'root:x:0:\nwww-data:x:33:\n' >"$root/etc/group"
  chmod 755 "$root" "$root"/* "$root"/bin/busybox
  # crun fails on hybrid control groups, and without CAP_SYS_RESOURCE podman must not raise limits.
  cat >"$CONTAINER_HOME/containers.conf" <<'CONF'
[containers]
default_ulimits=["nofile=1024:4096","nproc=1024:1024"]
netns="none"
[engine]
runtime="runc"
cgroup_manager="cgroupfs"
events_logger="file"
CONF
}

PrepareContainers() {
  [ -z "$CONTAINER_ENGINE" ] || return 0
  mkdir -p "$CONTAINER_HOME"
  ChooseRunDirectory
  # A later call of a script finds what an earlier one chose.
  if [ -s "$CONTAINER_HOME/engine" ]; then
    read -r CONTAINER_ENGINE CONTAINER_STORAGE CONTAINER_ENTRY <"$CONTAINER_HOME/engine"
    return 0
  fi
  local log=$CONTAINER_HOME/podman.log
  MakeRootTree
  tar -C "$CONTAINER_HOME/rootfs" -cf "$CONTAINER_HOME/rootfs.tar" .
  for CONTAINER_STORAGE in overlay vfs; do
    if Podman import "$CONTAINER_HOME/rootfs.tar" $CONTAINER_IMAGE >>"$log" 2>&1 &&
      Podman run --rm --read-only --cap-drop all $CONTAINER_IMAGE /bin/sh -c 'exit 0' >>"$log" 2>&1; then
      CONTAINER_ENGINE=podman
      ChooseEntry
      echo "podman $CONTAINER_STORAGE $CONTAINER_ENTRY" >"$CONTAINER_HOME/engine"
      return 0
    fi
    rm -rf "$CONTAINER_HOME/store" "$CONTAINER_RUN"
  done
  if bwrap --ro-bind "$CONTAINER_HOME/rootfs" / --proc /proc --dev /dev --unshare-all /bin/sh -c 'exit 0' >>"$log" 2>&1; then
    CONTAINER_ENGINE=bwrap
    CONTAINER_ENTRY=nsenter
    echo "bwrap none nsenter" >"$CONTAINER_HOME/engine"
    echo "   podman does not run here; using bubblewrap"
    return 0
  fi
  tail -n 10 "$log" >&2
  echo "neither podman with runc nor bubblewrap can run a container here; the lines above say why" >&2
  return 1
}

# Below a chroot `podman exec` lands in the root of the mount namespace, which is not the container's (runc enters the
# namespace, and its root is the machine's). There nsenter goes by the root of the container's own process instead.
ChooseEntry() {
  local log=$CONTAINER_HOME/podman.log
  CONTAINER_ENTRY=nsenter
  Podman run -d --name probe --read-only --cap-drop all $CONTAINER_IMAGE /bin/sleep 600 >>"$log" 2>&1 || return 0
  if Podman exec probe cat /etc/latchkey-demo >>"$log" 2>&1; then CONTAINER_ENTRY=exec; fi
  Podman rm -f -t 0 probe >>"$log" 2>&1 || true
}

# User and group www-data (33), no capability, read-only root, no network.
StartContainer() {
  local name=$1 volume binds=()
  shift
  PrepareContainers || return 1
  if [ $CONTAINER_ENGINE = podman ]; then
    Podman run -d --name "$name" --user 33:33 --read-only --cap-drop all --security-opt no-new-privileges "$@" \
      $CONTAINER_IMAGE /bin/sleep 2147483 >>"$CONTAINER_HOME/podman.log" 2>&1
    return
  fi
  while [ $# -gt 0 ]; do
    [ "$1" = -v ] || { echo "the fallback knows only -v, not $1" >&2; return 1; }
    volume=${2%:ro}
    binds+=(--ro-bind "${volume%:*}" "${volume##*:}")
    shift 2
  done
  setsid bwrap --ro-bind "$CONTAINER_HOME/rootfs" / "${binds[@]}" --proc /proc --dev /dev --tmpfs /tmp --unshare-all \
    --uid 33 --gid 33 --info-fd 9 /bin/sleep 2147483 9>"$CONTAINER_HOME/bwrap.$name" \
    >>"$CONTAINER_HOME/podman.log" 2>&1 &
  while [ ! -s "$CONTAINER_HOME/bwrap.$name" ] && kill -0 $! 2>/dev/null; do sleep 0.02; done
}

# The first process of a container, as this machine numbers it.
ContainerPid() {
  if [ $CONTAINER_ENGINE = podman ]; then
    Podman inspect --format '{{.State.Pid}}' "$1"
  else
    sed -n 's/.*"child-pid": *\([0-9]*\).*/\1/p' "$CONTAINER_HOME/bwrap.$1"
  fi
}

InContainer() {
  local name=$1
  shift
  if [ $CONTAINER_ENTRY = exec ]; then
    Podman exec -i "$name" "$@"
  else
    PATH=/bin nsenter -t "$(ContainerPid "$name")" -m -p -i -u -n -r -w -S 33 -G 33 "$@"
  fi
}

RemoveContainer() {
  [ -n "$CONTAINER_ENGINE" ] || return 0
  if [ "$CONTAINER_ENGINE" = bwrap ]; then
    kill -KILL "$(ContainerPid "$1")" 2>/dev/null || true
  else
    Podman rm -f -t 0 "$1" >>"$CONTAINER_HOME/podman.log" 2>&1 || true
  fi
}

# Call it before CONTAINER_HOME is deleted: what lies outside of it goes here.
ForgetContainers() {
  local at
  [ -s "$CONTAINER_HOME/run-at" ] || return 0
  at=$(<"$CONTAINER_HOME/run-at")
  UnmountBelow "$at"
  rm -rf --one-file-system "$at"
}

# What is mounted below a directory goes, deepest first: a container's store, a mount whose keeper was killed.
UnmountBelow() {
  local point
  awk -v top="$1/" 'index($5, top) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r point; do
    umount -l "$point" 2>/dev/null || true
  done
}
