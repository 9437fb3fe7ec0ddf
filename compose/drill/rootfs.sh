#!/usr/bin/env bash
# Makes the Debian tree below the image of drills, as debian:<suite>-slim would be after the Dockerfile's packages.
#
#   rootfs.sh TREE SUITE PACKAGE...
#
# Needs root and debootstrap; uses debootstrap's default mirror. Less than a minute.
set -euo pipefail

tree=${1:?usage: rootfs.sh TREE SUITE PACKAGE...} suite=${2:?}
shift 2
# shellcheck source=compose/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

debootstrap --variant=minbase --include="$(IFS=,; echo "$*")" "$suite" "$tree"
shrink_tree "$tree"
