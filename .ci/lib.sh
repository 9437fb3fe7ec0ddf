# Shared by .ci/run and .ci/docker-engine; sourced.
# shellcheck shell=bash

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# Prints the end of log $1 without the names of this host's mirrors: CI logs are public.
show_log() { tail -n "${2:-40}" "$1" | sed -E "s#[a-z+]+://[^ ']*#<url>#g; s#host='[^']*'#host=<host>#g" >&2; }

installed() { [[ $(dpkg-query -W -f='${db:Status-Abbrev}' "$1" 2>/dev/null) == ii* ]]; }

# Installs those of the Debian packages that are missing. One apt at a time: its lists have a lock that it
# does not wait for. A second try after a fresh `update`, for a mirror in the middle of its own update.
apt_install() {
    local package missing=() log
    for package in "$@"; do installed "$package" || missing+=("$package"); done
    ((${#missing[@]})) || return 0
    say "installing ${missing[*]}"
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    (
        flock 8
        apt_once() {
            apt-get update -q && apt-get install -q -y --no-install-recommends \
                -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "${missing[@]}"
        }
        # Not to be inherited: what a package starts would hold the lock for ever.
        apt_once 8>&- || { sleep 5 && apt_once 8>&-; }
    ) 8>/run/pgrescue-ci-apt.lock </dev/null >"$log" 2>&1 || {
        show_log "$log"
        rm -f "$log"
        die "apt-get could not install ${missing[*]}"
    }
    rm -f "$log"
}

# Any Python from 3.11 on that can make virtual environments will do; Debian's when there is none.
need_python() {
    python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        apt_install python3 python3-venv
}
