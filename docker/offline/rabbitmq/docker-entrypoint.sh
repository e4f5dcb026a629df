#!/bin/sh
set -eu

[ "$1" = rabbitmq-server ] || exec "$@"

old=$(env | sed -nE 's/^(RABBITMQ_((MANAGEMENT_)?SSL_[A-Z_]+|VM_MEMORY_HIGH_WATERMARK))=.*/\1/p' | sort)
if [ -n "$old" ]; then
    echo "error: these variables are no longer read; say the same in a file in /etc/rabbitmq/conf.d instead:" >&2
    echo "$old" >&2
    exit 1
fi

# Left to itself, Erlang makes a guessable cookie: 20 letters out of a weak generator.
cookie=/var/lib/rabbitmq/.erlang.cookie
if [ ! -s "$cookie" ]; then
    rm -f "$cookie.new"
    (umask 377 && head -c 36 /dev/urandom | base64 -w 0 >"$cookie.new")
    mv "$cookie.new" "$cookie"
fi

# Makes rabbitmq-server become the Erlang machine instead of waiting for it, so that it gets SIGTERM.
export RUNNING_UNDER_SYSTEMD=true
exec "$@"
