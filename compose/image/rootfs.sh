#!/usr/bin/env bash
# Makes a Debian tree with the PostgreSQL that its release has, shaped like the root of the official image.
#
#   rootfs.sh TREE SUITE MAJOR          as in: rootfs.sh /tmp/tree trixie 17; bookworm has 15
#
# Needs root and debootstrap; uses debootstrap's default mirror. About a minute.
set -euo pipefail

tree=${1:?usage: rootfs.sh TREE SUITE MAJOR} suite=${2:?} major=${3:?}
# shellcheck source=compose/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

# libnss-wrapper: initdb wants a user name, also under `docker run --user 12345:12345`.
# xz-utils and zstd: the official image has them, for init scripts and for unpacking inside a container.
debootstrap --variant=minbase \
    --include="postgresql-$major",gosu,locales,libnss-wrapper,xz-utils,zstd \
    "$suite" "$tree"

in_tree() { chroot "$tree" "$@"; }

# The package made a cluster of its own and a postgres user with the next free system uid. The official
# image has 999:999, and files in a volume carry the number, not the name.
rm -rf "$tree"/etc/postgresql/"$major" "$tree"/var/lib/postgresql/* "$tree"/var/log/postgresql/*
old_uid=$(in_tree id -u postgres)
old_gid=$(in_tree id -g postgres)
in_tree groupmod --gid 999 postgres
in_tree usermod --uid 999 --gid 999 postgres
find "$tree" -xdev -uid "$old_uid" -exec chown --no-dereference 999 {} +
find "$tree" -xdev -gid "$old_gid" -exec chgrp --no-dereference 999 {} +
# Any uid may be given with --user, and each must be able to make its socket here and run initdb below.
install -d -o 999 -g 999 -m 3777 "$tree/run/postgresql"
install -d -o 999 -g 999 -m 1777 "$tree/var/lib/postgresql"

# Like the official image: en_US.utf8 and C, nothing else, so that a snapshot with another locale fails here too.
in_tree localedef -i en_US -c -f UTF-8 -A /usr/share/locale/locale.alias en_US.UTF-8

# Official images have gosu here, and people call it by this path.
ln -s ../../sbin/gosu "$tree/usr/local/bin/gosu"

shrink_tree "$tree"
