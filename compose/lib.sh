# Shared by the recipes of images below compose/; sourced, with `work` as a directory for what is only needed now.
# shellcheck shell=bash

say() { printf '%s: %s\n' "${speaker:-$(basename "$0")}" "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# Prints a hash of the content of files: what an image was made from.
recipe_of() { cat "$@" | sha256sum | cut -c1-16; }

label_of() { docker image inspect --format "{{index .Config.Labels \"$2\"}}" "$1" 2>/dev/null || :; }

# Runs a command whose output matters only on failure; then dies with problem $1. A log may end up in a public
# place, so it does not name the mirrors of this host.
logged() {
    local problem=$1
    shift
    # shellcheck disable=SC2154
    if ! "$@" >"$work/log" 2>&1; then
        tail -n 30 "$work/log" | sed -E "s#[a-z+]+://[^ ']*#<url>#g; s#host='[^']*'#host=<host>#g" >&2
        die "$problem"
    fi
}

# The classic builder: the one of Debian's engine; BuildKit would want a plugin. RUN steps need no network,
# so a host without a usable bridge can build too.
docker_build() {
    DOCKER_BUILDKIT=0 logged "docker build failed" docker build --network none "$@"
}

# Imports a Debian tree as image $2 with label $3, and removes the tree.
import_tree() {
    local tree=$1 name=$2 label=$3
    tar -C "$tree" --numeric-owner --xattrs --one-file-system -c . |
        docker import --change "LABEL $label" - "$name" >/dev/null
    rm -rf --one-file-system "$tree"
}

# Small where it is cheap: no package files, lists, logs, documentation or translations.
shrink_tree() {
    local tree=$1
    rm -rf "$tree"/var/cache/apt/* "$tree"/var/lib/apt/lists/* "$tree"/var/cache/debconf/*-old \
        "$tree"/usr/share/man/* "$tree"/usr/share/info/* "$tree"/usr/share/locale/*/LC_MESSAGES
    find "$tree/usr/share/doc" -type f ! -name copyright -delete
    find "$tree/var/log" -type f -delete
}
