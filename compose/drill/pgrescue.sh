#!/bin/sh
# pgrescue, with an account for the user id that the container was given: initdb and `postgres --single` do not run
# without one (src/common/username.c). libnss_extrausers looks in /var/lib/extrausers, which is a link to a place that
# can be written to where nothing else can. exec: pgrescue is process 1 then, and gets the signals itself.
if ! getent passwd "$(id -u)" >/dev/null; then
    (
        umask 022
        mkdir -p /tmp/extrausers &&
            printf 'rescuer:x:%s:%s::/tmp:/bin/false\n' "$(id -u)" "$(id -g)" >/tmp/extrausers/passwd
    ) || echo "pgrescue: /tmp cannot be written to, so that user id $(id -u) gets no account" >&2
fi
exec /opt/pgrescue/bin/pgrescue "$@"
