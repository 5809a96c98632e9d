# podman refuses a run directory with a long path. Below one a container runs all the same, by the engine that runs
# elsewhere on this machine, and what had to lie elsewhere is gone afterwards.
source "$(dirname "$0")/../support/harness.sh"
Begin
mkdir "$T/data"
chmod 755 "$T/data"
echo through >"$T/data/word"

CONTAINER_HOME=$T/short CONTAINER_PROGRAMS=()
PrepareContainers
usual=$CONTAINER_ENGINE
Expect "the run directory of a short path" "$CONTAINER_RUN" "$T/short/run"

CONTAINER_HOME=$T/a/folder/in/the/home/of/somebody/with/a/tidy/mind CONTAINER_ENGINE=
OWN_CONTAINERS=(deep)
StartContainer deep -v "$T/data:/data:ro" || Fail "no container below a deep directory"
Expect "the engine" "$CONTAINER_ENGINE" "$usual"
[ ${#CONTAINER_RUN} -le 50 ] || Fail "the run directory is too long: $CONTAINER_RUN"
Expect "what a container reads" "$(InContainer deep cat /data/word)" through

RemoveContainer deep
OWN_CONTAINERS=()
ForgetContainers
[ ! -e "$CONTAINER_RUN" ] || Fail "$CONTAINER_RUN was left behind"
