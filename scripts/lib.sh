# shellcheck shell=bash
# Shared by the scripts beside this file: places, ports, messages. Sourced, never run.
#
#   $WORK/images/NAME      an OCI layout, tag "latest" (an image index: linux/amd64, linux/arm64)
#   $WORK/cache            downloads that make a second build quick
#   $WORK/registry         storage, configuration, pid and access log of the registry
#   $WORK/bench, compare   scratch of scripts/bench and scripts/compare-rootfs

export LC_ALL=C.UTF-8
umask 022

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WORK=${IMGFS_WORK_DIR:-$REPO/target/work}
IMAGES=$WORK/images
CACHE=$WORK/cache

# Fixed ports, so that a reference typed once stays right; other ones by environment where these are taken.
REGISTRY_PORT=${IMGFS_REGISTRY_PORT:-5417}
PROXY_PORT=${IMGFS_PROXY_PORT:-5418}
PROXY_CONTROL_PORT=${IMGFS_PROXY_CONTROL_PORT:-5419}
REGISTRY=127.0.0.1:$REGISTRY_PORT
PROXY=127.0.0.1:$PROXY_PORT
export REPO WORK IMAGES CACHE REGISTRY_PORT PROXY_PORT PROXY_CONTROL_PORT REGISTRY PROXY

# A section heading; progress; a warning; the end. All on stderr: stdout is for results.
heading() { printf '\n== %s\n' "$*" >&2; }
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# The comment block at the top of the running script is its help.
usage() {
    sed -n '2,/^[^#]/{ s/^# \{0,1\}//p; }' "$0"
}

need_root() { [[ $(id -u) == 0 ]] || die "needs root: $1"; }

# need TOOL PART: a tool that scripts/setup PART installs.
need() {
    command -v "$1" >/dev/null || die "$1 is missing: run scripts/setup $2"
}

# The built program: release before debug; IMGFS_BIN overrides.
find_imgfs() {
    local candidate
    for candidate in "${IMGFS_BIN:-}" "$REPO/target/release/imgfs" "$REPO/target/debug/imgfs"; do
        if [[ -n $candidate && -x $candidate ]]; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    die "no imgfs binary: run cargo build --release --locked"
}

# pid_alive FILE: the process whose id is in FILE runs.
pid_alive() {
    [[ -s $1 ]] && kill -0 "$(<"$1")" 2>/dev/null
}

# stop_pid FILE: ends that process, waits for it, removes the file.
stop_pid() {
    local tries=100
    if pid_alive "$1"; then
        kill "$(<"$1")" 2>/dev/null || true
        while pid_alive "$1" && ((tries-- > 0)); do sleep 0.05; done
        if pid_alive "$1"; then kill -9 "$(<"$1")"; fi
    fi
    rm -f "$1"
}

# is_mounted DIR: something is mounted there (a dead FUSE mount counts, which mountpoint(1) does not see).
is_mounted() {
    awk -v dir="$(realpath -ms "$1")" '$5 == dir { found = 1 } END { exit !found }' /proc/self/mountinfo
}
