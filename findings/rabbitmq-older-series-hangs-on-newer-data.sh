#!/bin/sh
# RabbitMQ 4.0 that opens what 4.3 has written does not refuse: it hangs, and logs no error.
#
# Software: rabbitmq-server 4.3.6 of Debian forky and 4.0.5 of Debian 13 (trixie), as packaged;
# seen on 2026-11-27.
# Expected: within seconds an older server names what it does not know (a feature flag, a version of
# the store) in an error and ends, so that whoever supervises it sees it.
# Seen: the process stays, listens on no AMQP port and logs no line of level error. The last lines
# tell of peer discovery for a "virgin node". rabbitmqctl await_startup runs into its timeout. On an
# empty folder the same server serves within seconds, and 4.3 serves again from the same data.
# It hurts whoever sets an image back to an older tag: the container is "starting" for ever, and
# nothing says that the data is the reason. Read the version that wrote the data before the start.
set -eu

newer=${NEWER_IMAGE:-debian:forky}
older=${OLDER_IMAGE:-debian:trixie}
docker image inspect "$newer" >/dev/null 2>&1 || newer=soc-offline/debian:forky
docker image inspect "$older" >/dev/null 2>&1 || older=soc-offline/debian:trixie
work=$(mktemp -d)
written=finding-rabbitmq-$$-written
empty=finding-rabbitmq-$$-empty
trap 'rm -rf "$work"; docker volume rm -f "$written" "$empty" >/dev/null' EXIT

cat >"$work/try" <<'EOF'
#!/bin/sh
# Installs RabbitMQ, starts it on /data, and says whether it serves, hangs or ends.
set -eu
{
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends rabbitmq-server
} >/tmp/install 2>&1 || { cat /tmp/install; exit 1; }
chown -R rabbitmq:rabbitmq /data
export RABBITMQ_MNESIA_BASE=/data RABBITMQ_NODENAME=finding@localhost RABBITMQ_NODE_PORT=25673
export RABBITMQ_DIST_PORT=25674 ERL_EPMD_PORT=24369 HOME=/var/lib/rabbitmq
setpriv --reuid rabbitmq --regid rabbitmq --clear-groups rabbitmq-server >/dev/null 2>&1 &
server=$!
answer=hangs
for attempt in 1 2 3; do
    if rabbitmqctl -q await_startup --timeout 20 >/dev/null 2>&1; then answer=serves; break; fi
    if ! kill -0 "$server" 2>/dev/null; then answer=ends; break; fi
    sleep 5
done
log=/var/log/rabbitmq/finding@localhost.log
echo "$(rabbitmqctl version) $answer, $(grep -c '\[error\]' "$log" || true) errors in its log"
[ "$answer" = serves ] || tail -n 3 "$log" >&2
[ "$answer" != serves ] || rabbitmqctl -q stop >/dev/null
EOF
chmod +x "$work/try"

# usage: try IMAGE VOLUME
try() {
    docker run --rm --network host --hostname localhost --volume "$work:/finding:ro" \
        --volume "$2:/data" "$1" /finding/try
}

seen=
for step in "$older $empty" "$newer $written" "$older $written" "$newer $written"; do
    # shellcheck disable=SC2086 # two words
    line=$(try $step)
    echo "seen: $line"
    seen="$seen$(echo "$line" | cut -d ' ' -f 2-);"
done
echo "expected of the third: ends, with an error that names the reason"
[ "$seen" = "serves, 0 errors in its log;serves, 0 errors in its log;hangs, 0 errors in its log;serves, 0 errors in its log;" ]
