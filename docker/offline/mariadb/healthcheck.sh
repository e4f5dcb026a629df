#!/bin/sh
# usage: healthcheck.sh [--connect] [--innodb_initialized]
set -eu

for check; do
    case $check in
        --connect) ;;
        --innodb_initialized) innodb="AND EXISTS (SELECT 1 FROM information_schema.engines
            WHERE engine = 'InnoDB' AND support IN ('YES', 'DEFAULT'))" ;;
        *) echo "healthcheck.sh: unknown check $check" >&2; exit 1 ;;
    esac
done

# Over TCP: the server of the first initialisation listens on its socket only and must not count.
# Its certificate is not verified: it names the service, and this connection never leaves the container.
answer=$(mariadb --defaults-extra-file=/var/lib/mysql/.my-healthcheck.cnf \
    --protocol=tcp --host=127.0.0.1 --connect-timeout=5 --disable-ssl-verify-server-cert \
    --skip-column-names --batch --execute="SELECT 'up' WHERE TRUE ${innodb:-}")
[ "$answer" = up ]
