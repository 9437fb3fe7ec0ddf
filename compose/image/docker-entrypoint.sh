#!/usr/bin/env bash
# Starts PostgreSQL as the official image's entrypoint does; written anew from its documented behaviour.
#
#   existing data directory   the server starts on it, whatever the environment says
#   empty data directory      initdb first: needs POSTGRES_PASSWORD or POSTGRES_HOST_AUTH_METHOD=trust
#   any other command         runs as it is, as the caller's user
set -Eeuo pipefail

note() { printf '%s\n' "$*" >&2; }

die() {
    note "Error: $*"
    exit 1
}

# Sets variable $1 from the file named by ${1}_FILE, or to $2 when neither is given.
from_env_or_file() {
    local name=$1 file_name=$1_FILE default=${2:-}
    if [[ -n ${!name:-} && -n ${!file_name:-} ]]; then
        die "$name and $file_name exclude each other"
    fi
    if [[ -n ${!file_name:-} ]]; then
        export "$name=$(<"${!file_name}")"
    else
        export "$name=${!name:-$default}"
    fi
    unset "$file_name"
}

have_database() { [[ -s $PGDATA/PG_VERSION ]]; }

# True for options that make postgres print something and exit: they need no data directory.
only_asks() {
    local arg
    for arg in "$@"; do
        case $arg in
            -'?' | --help | --describe-config | -V | --version) return 0 ;;
        esac
    done
    return 1
}

# Makes the data directory, and as root gives all of it to postgres. Failures of mkdir and chmod are left to
# the server to report: an exotic volume may refuse them and still be usable.
prepare_directories() {
    mkdir -p "$PGDATA" || :
    chmod 0700 "$PGDATA" || :
    mkdir -p /var/run/postgresql || :
    if [[ -n ${POSTGRES_INITDB_WALDIR:-} ]]; then
        mkdir -p "$POSTGRES_INITDB_WALDIR" || :
        chmod 0700 "$POSTGRES_INITDB_WALDIR" || :
    fi
    if (($(id -u) == 0)); then
        find "$PGDATA" ${POSTGRES_INITDB_WALDIR:+"$POSTGRES_INITDB_WALDIR"} \
            \! -user postgres -exec chown postgres '{}' +
    fi
}

# From 18 on the volume is /var/lib/postgresql. Data where an older image had it would be passed over in
# silence and an empty cluster made beside it, so refuse.
refuse_old_layout() {
    ((PG_MAJOR >= 18)) || return 0
    [[ $PGDATA == "/var/lib/postgresql/$PG_MAJOR/docker" ]] || return 0
    local found=() dir
    for dir in /var/lib/postgresql /var/lib/postgresql/data /var/lib/postgresql/*/docker; do
        if [[ -s $dir/PG_VERSION ]]; then found+=("$dir"); fi
    done
    if ((${#found[@]} == 0)) && grep -q ' /var/lib/postgresql/data ' /proc/self/mountinfo; then
        found+=("/var/lib/postgresql/data (unused mount/volume)")
    fi
    ((${#found[@]} == 0)) && return 0
    note "Error: in 18+, these Docker images keep the data in a directory named after the major version"
    note "  ($PGDATA) below the volume /var/lib/postgresql, but there is PostgreSQL data in:"
    printf '    %s\n' "${found[@]}" >&2
    note "  Mount one volume at /var/lib/postgresql, and upgrade with pg_upgrade; or set PGDATA."
    exit 1
}

verify_environment() {
    if [[ -z $POSTGRES_PASSWORD && $POSTGRES_HOST_AUTH_METHOD != trust ]]; then
        note "Error: Database is uninitialized and superuser password is not specified."
        note "  Set POSTGRES_PASSWORD to a non-empty value, for example: docker run -e POSTGRES_PASSWORD=..."
        note "  (or POSTGRES_HOST_AUTH_METHOD=trust, to let everybody in without one)."
        exit 1
    fi
    if [[ $POSTGRES_HOST_AUTH_METHOD == trust ]]; then
        note "WARNING: POSTGRES_HOST_AUTH_METHOD is trust: anybody who reaches the port is in, as any user."
    fi
}

# initdb into PGDATA. It looks up its own user's name, which an arbitrary --user does not have: lend it one.
init_database() {
    local passwd='' group='' args=()
    if ! getent passwd "$(id -u)" >/dev/null; then
        local lib
        lib=$(find /usr/lib -name libnss_wrapper.so -print -quit)
        passwd=$(mktemp) group=$(mktemp)
        printf 'postgres:x:%s:%s:PostgreSQL:%s:/bin/false\n' "$(id -u)" "$(id -g)" "$PGDATA" >"$passwd"
        printf 'postgres:x:%s:\n' "$(id -g)" >"$group"
        export LD_PRELOAD=$lib NSS_WRAPPER_PASSWD=$passwd NSS_WRAPPER_GROUP=$group
    fi
    if [[ -n ${POSTGRES_INITDB_WALDIR:-} ]]; then args+=("--waldir=$POSTGRES_INITDB_WALDIR"); fi
    # POSTGRES_INITDB_ARGS is a line of shell words, quotes included, as documented: hence the eval.
    eval 'initdb --username="$POSTGRES_USER" --pwfile=<(printf "%s\n" "$POSTGRES_PASSWORD")' \
        "${POSTGRES_INITDB_ARGS:-}" '"${args[@]}"'
    if [[ -n $passwd ]]; then
        rm -f "$passwd" "$group"
        unset LD_PRELOAD NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
    fi
}

# Lets other hosts in, by the method that the server's passwords are stored with unless told otherwise.
open_to_hosts() {
    local method=$POSTGRES_HOST_AUTH_METHOD
    if [[ -z $method ]]; then method=$(postgres -C password_encryption "$@"); fi
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
}

run_sql() {
    PGHOST='' PGHOSTADDR='' psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password \
        --username "$POSTGRES_USER" "$@"
}

# A server for the init phase only: on the socket, so that nobody outside takes it for the finished one.
temp_server_start() {
    PGUSER=$POSTGRES_USER pg_ctl -D "$PGDATA" -w start \
        -o "$(printf '%q ' "$@" -c listen_addresses='' -p "${PGPORT:-5432}")"
}

temp_server_stop() { PGUSER=postgres pg_ctl -D "$PGDATA" -m fast -w stop; }

create_database() {
    local found
    found=$(run_sql --dbname postgres -v db="$POSTGRES_DB" --tuples-only \
        <<<"SELECT 1 FROM pg_database WHERE datname = :'db';")
    if [[ -z $found ]]; then
        run_sql --dbname postgres -v db="$POSTGRES_DB" <<<'CREATE DATABASE :"db";'
    fi
}

run_init_files() {
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        note "$0: running $file"
        case $file in
            *.sh)
                # Executable: a program. Else: a part of this script, which may use its functions.
                # shellcheck disable=SC1090
                if [[ -x $file ]]; then "$file"; else . "$file"; fi
                ;;
            *.sql) run_sql --dbname "$POSTGRES_DB" -f "$file" ;;
            *.sql.gz) gunzip -c "$file" | run_sql --dbname "$POSTGRES_DB" ;;
            *.sql.xz) xzcat "$file" | run_sql --dbname "$POSTGRES_DB" ;;
            *.sql.zst) zstd -dc "$file" | run_sql --dbname "$POSTGRES_DB" ;;
            *) note "$0: ignoring $file" ;;
        esac
    done
}

create_cluster() {
    from_env_or_file POSTGRES_PASSWORD
    from_env_or_file POSTGRES_USER postgres
    from_env_or_file POSTGRES_DB "$POSTGRES_USER"
    from_env_or_file POSTGRES_INITDB_ARGS
    : "${POSTGRES_HOST_AUTH_METHOD:=}"
    verify_environment
    # Find an unreadable directory of init files now, not after the cluster exists.
    ls /docker-entrypoint-initdb.d/ >/dev/null
    shopt -s nullglob
    init_database
    open_to_hosts "$@"
    export PGPASSWORD=$POSTGRES_PASSWORD
    temp_server_start "$@"
    create_database
    run_init_files
    temp_server_stop
    unset PGPASSWORD
    note
    note "PostgreSQL init process complete; ready for start up."
    note
}

main() {
    if [[ $# == 0 || $1 == -* ]]; then set -- postgres "$@"; fi
    if [[ $1 == postgres ]] && ! only_asks "${@:2}"; then
        prepare_directories
        if (($(id -u) == 0)); then
            exec gosu postgres "${BASH_SOURCE[0]}" "$@"
        fi
        if have_database; then
            note
            note "PostgreSQL Database directory appears to contain a database; Skipping initialization"
            note
        else
            refuse_old_layout
            create_cluster "${@:2}"
        fi
    fi
    exec "$@"
}

main "$@"
