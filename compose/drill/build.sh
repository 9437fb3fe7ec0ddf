#!/usr/bin/env bash
# Builds the image of drills: pgrescue with PostgreSQL 17 and 18, for any user id and a read-only root file system.
#
#   build.sh                             on a Debian tree made here: needs root and debootstrap; about two minutes
#   BASE=debian:trixie-slim build.sh     on an image that can be pulled: needs neither
#
# Tags pgrescue-drill:VERSION and pgrescue-drill:latest. Needs a Docker engine, and python3 with venv, whose pip fetches
# the wheels: the build itself needs no network, unless Debian packages are missing in BASE. Does nothing when the
# image of this very recipe and this very program is there.
set -euo pipefail
shopt -s inherit_errexit

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=compose/lib.sh
source "$here/../lib.sh"

speaker=drill-image
readonly image=pgrescue-drill suite=trixie
readonly ours_label=io.pgrescue.drill-image recipe_label=io.pgrescue.recipe
work=''

clean_up() { if [[ -n $work ]]; then rm -rf --one-file-system "$work"; fi; }
trap clean_up EXIT

# Prints a hash of all that goes into the image: the recipe, the base, the program.
whole_recipe() {
    local base=$1
    (
        cd "$root"
        {
            printf '%s\n' "$base"
            cat compose/lib.sh compose/drill/* pyproject.toml README.md
            find pgrescue -type f ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
        } | sha256sum | cut -c1-16
    )
}

# Prints the name of the base, after making it when it is missing.
own_base() {
    local name packages old
    name=$image:base-$(cd "$here" && recipe_of ../lib.sh rootfs.sh packages)
    # Bases of other recipes. Where an image still has their files, only their names go.
    for old in $(docker image ls --format '{{.Repository}}:{{.Tag}}' "$image:base-*"); do
        if [[ $old != "$name" ]]; then docker image rm "$old" >/dev/null 2>&1 || :; fi
    done
    if [[ -z $(docker image ls --quiet "$name") ]]; then
        say "making a tree of Debian $suite (about a minute)"
        mapfile -t packages <"$here/packages"
        logged "the tree of Debian $suite could not be made" "$here/rootfs.sh" "$work/tree" "$suite" "${packages[@]}"
        import_tree "$work/tree" "$name" "$ours_label=true"
    fi
    printf '%s\n' "$name"
}

# Prints pip's options for the wheels that the Python of image $1 takes, which need not be that of this host.
wheel_options() {
    # shellcheck disable=SC2016
    docker run --rm --network none --entrypoint python3 "$1" -c '
import platform, sys
version = "%d%d" % sys.version_info[:2]
print("--implementation cp --python-version", version, "--abi cp" + version, "--abi abi3 --abi none")
minor = int(platform.libc_ver()[1].split(".")[1])
tags = [f"manylinux_2_{older}" for older in range(minor, 4, -1)] + ["manylinux2014", "manylinux2010", "manylinux1"]
for tag in tags:
    print("--platform", tag + "_" + platform.machine())
'
}

# Makes the context of the build in $1: pip's own wheel, those of what pgrescue needs, and pgrescue's.
make_context() {
    local context=$1 base=$2 options
    mapfile -t options < <(wheel_options "$base" | tr ' ' '\n')
    ((${#options[@]})) || die "$base has no Python"
    mkdir "$context"
    cp "$here/packages" "$here/pgrescue.sh" "$context/"
    # An environment of its own: Debian's python3 may have no pip.
    python3 -m venv "$work/venv"
    pip() { logged "the wheels could not be fetched" "$work/venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
    pip wheel --no-deps --wheel-dir "$context/project" "$root"
    pip download --no-deps --dest "$context/pip" pip
    pip download --only-binary :all: "${options[@]}" --dest "$context/wheels" \
        "pgrescue[embedded,cloud] @ file://$(echo "$context"/project/*.whl)"
    rm "$context"/wheels/pgrescue-*.whl
}

build() {
    local recipe version base=${BASE:-} context=$work/context
    recipe=$(whole_recipe "${base:-own}")
    if [[ $(label_of "$image:latest" $recipe_label) == "$recipe" ]]; then
        say "$image is there and up to date"
        return
    fi
    if [[ -z $base ]]; then
        base=$(own_base)
    else
        mkdir "$work/base"
        cp "$here/packages" "$work/base/"
        DOCKER_BUILDKIT=0 logged "the base cannot be built on $base" docker build --file "$here/Dockerfile" \
            --build-arg "BASE=$base" --target base --tag "$image:base" "$work/base"
        base=$image:base
    fi
    say "fetching wheels"
    make_context "$context" "$base"
    say "building"
    version=$(sed -nE 's/^__version__ = "(.*)"$/\1/p' "$root/pgrescue/__init__.py")
    # The stage with the dependencies has a name, so that it is not removed below: most changes are of pgrescue alone.
    docker_build --file "$here/Dockerfile" --build-arg "BASE=$base" --target dependencies \
        --tag "$image:dependencies" "$context"
    docker_build --file "$here/Dockerfile" --build-arg "BASE=$base" --build-arg "VERSION=$version" \
        --label "$ours_label=true" --label "$recipe_label=$recipe" \
        --tag "$image:$version" --tag "$image:latest" "$context"
    say "$image:$version is there, $(docker image ls --format '{{.Size}}' "$image:$version")"
}

main() {
    docker version >/dev/null 2>&1 || die "no Docker engine answers"
    # Two builds at once would make the same image twice.
    exec 7<"$here"
    flock 7
    work=$(mktemp -d)
    build 7>&-
    # The images that this one replaced and its stages, unless a container still uses them.
    docker image prune --force --filter "label=$ours_label=true" >/dev/null
}

main "$@"
