#!/bin/sh
# A monitor that looks at the certificate of a MariaDB server, and leaves without a login, is locked
# out by the server after 100 looks, and with it every client behind the same address.
#
# Software: MariaDB 11.8.9 (Debian 13), openssl s_client 3.5; 2026-11-27.
# Guess: a connection that completes the protocol's own TLS start and closes properly counts as an
#   aborted connection and no more; the server refuses an address for malformed packets or floods.
# Expected: the 110th look succeeds like the first, and a client with the right password logs in.
# Seen: each look counts as a connect error of its address (max_connect_errors: 100 by default,
#   never reset by time); from the 101st on the server answers error 1129, also to a client with
#   the right password. A login that is refused ("Access denied") counts nothing: 110 of those are
#   harmless, so that ending a look with a wrong login is the gentle way.
# Exit 0: still so. Exit 1: the behaviour has changed.
set -eu

base=${BASE:-soc-offline/debian:trixie}
docker image inspect "$base" >/dev/null 2>&1 || base=debian:trixie
folder=$(mktemp -d)
name="finding-mariadb-$$"
image=
cleanup() {
    docker rm -f "$name" >/dev/null 2>&1 || true
    [ -z "$image" ] || docker rmi -f "$image" >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap cleanup EXIT INT TERM

cat > "$folder/Dockerfile" <<END
FROM $base
RUN apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
    --no-install-recommends mariadb-server mariadb-client openssl >/dev/null
END
image=$(docker build --quiet --network host "$folder")
docker run --detach --name "$name" "$image" sleep infinity >/dev/null
docker exec --interactive "$name" sh -eu <<'END'
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=db -keyout /tmp/key.pem \
    -out /tmp/cert.pem 2>/dev/null
chown mysql /tmp/key.pem
install -d -o mysql /run/mysqld
mariadbd --user=mysql --ssl-cert=/tmp/cert.pem --ssl-key=/tmp/key.pem --bind-address=0.0.0.0 \
    >/tmp/log 2>&1 &
until mariadb-admin ping >/dev/null 2>&1; do sleep 0.2; done
mariadb -e "CREATE USER app@'%' IDENTIFIED BY 'right'"
# Loopback is exempt: a client comes from elsewhere.
address=$(hostname -I | cut -d' ' -f1)
log_in() { mariadb -h "$address" -u app -p"$1" --skip-ssl-verify-server-cert -e 'SELECT 1' 2>&1; }
look() { openssl s_client -connect "$address:3306" -starttls mysql </dev/null 2>&1; }

echo "version:  $(mariadb -Ne 'SELECT version()')"
refused=0
for _ in $(seq 110); do log_in wrong | grep -q 'Access denied' && refused=$((refused + 1)); done
after_refusals=$(log_in right | tail -1)
seen=0
for _ in $(seq 110); do look | grep -q 'BEGIN CERTIFICATE' && seen=$((seen + 1)); done
last=$(log_in right | tail -1)
echo "expected: 110 of 110 looks see the certificate; a client with the right password logs in"
echo "seen:     $seen of 110 looks; the client then: $last"
echo "          after $refused refused logins the client: $after_refusals"
[ "$refused" = 110 ] && [ "$after_refusals" = 1 ] && [ "$seen" -lt 110 ] &&
    echo "$last" | grep -q 'is blocked because of many connection errors'
END
