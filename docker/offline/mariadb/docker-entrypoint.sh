#!/bin/bash
set -euo pipefail

data=/var/lib/mysql
# There from before the first file until after the last: a start that finds it starts over.
unfinished=$data/.initialising

say() { echo "entrypoint: $*" >&2; }
die() { say "$*"; exit 1; }

# NAME or NAME_FILE, never both.
secret() {
    local file_name=$1_FILE
    [ -n "${!file_name:-}" ] || return 0
    [ -z "${!1:-}" ] || die "both $1 and $file_name are set"
    [ -r "${!file_name}" ] || die "$file_name: cannot read ${!file_name}"
    export "$1=$(<"${!file_name}")"
    unset "$file_name"
}

quoted() {
    local text=${1//\\/\\\\}
    printf "'%s'" "${text//\'/\'\'}"
}

# The password goes by the environment: a command line is open to every process.
sql() { MYSQL_PWD=${root_password-} mariadb --user=root --protocol=socket "$@"; }

start_private_server() {
    "$@" --skip-networking --skip-log-bin --innodb-flush-log-at-trx-commit=0 &
    server=$!
    until mariadb-admin --no-defaults --socket=/run/mysqld/mysqld.sock ping >/dev/null 2>&1; do
        kill -0 "$server" 2>/dev/null || die "the server stopped during the preparation, see above"
        sleep 0.2
    done
}

stop_private_server() {
    kill "$server"
    wait "$server"
}

create_accounts() {
    local health_password
    health_password=$(head -c 24 /dev/urandom | base64 -w 0)
    (umask 077 && printf '[mariadb-client]\nuser=healthcheck\npassword=%s\n' "$health_password" >"$data/.my-healthcheck.cnf")
    {
        for host in 127.0.0.1 ::1 localhost; do
            echo "CREATE USER healthcheck@'$host' IDENTIFIED BY $(quoted "$health_password");"
        done
        [ -z "${MARIADB_DATABASE:-}" ] || echo "CREATE DATABASE IF NOT EXISTS \`$MARIADB_DATABASE\`;"
        if [ -n "${MARIADB_USER:-}" ]; then
            echo "CREATE USER $(quoted "$MARIADB_USER")@'%' IDENTIFIED BY $(quoted "$MARIADB_PASSWORD");"
            [ -z "${MARIADB_DATABASE:-}" ] ||
                echo "GRANT ALL ON \`${MARIADB_DATABASE//_/\\_}\`.* TO $(quoted "$MARIADB_USER")@'%';"
        fi
        # They have no password, and over TCP one network is enough to reach them.
        echo "DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost';"
        echo "DELETE FROM mysql.proxies_priv WHERE Host <> 'localhost';"
        echo "FLUSH PRIVILEGES;"
        echo "SET PASSWORD FOR root@localhost = PASSWORD($(quoted "$MARIADB_ROOT_PASSWORD"));"
    } | sql
    root_password=$MARIADB_ROOT_PASSWORD
}

# shellcheck disable=SC1090 # the site's scripts are not known here
run_site_scripts() {
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) say "running $file"; if [ -x "$file" ]; then "$file"; else (. "$file"); fi ;;
            *.sql) say "running $file"; sql ${MARIADB_DATABASE:+"--database=$MARIADB_DATABASE"} <"$file" ;;
        esac
    done
}

initialise() {
    [ -n "${MARIADB_ROOT_PASSWORD:-}" ] || die "the data directory is empty: set MARIADB_ROOT_PASSWORD or MARIADB_ROOT_PASSWORD_FILE"
    [ -z "${MARIADB_USER:-}" ] || [ -n "${MARIADB_PASSWORD:-}" ] || die "MARIADB_USER needs MARIADB_PASSWORD or MARIADB_PASSWORD_FILE"
    say "making a new database"
    [ ! -e "$unfinished" ] || find "$data" -mindepth 1 ! -path "$unfinished" -delete
    touch "$unfinished"
    mariadb-install-db --auth-root-authentication-method=normal --skip-test-db --skip-log-bin >/dev/null
    start_private_server "$@"
    mariadb-tzinfo-to-sql --skip-write-binlog /usr/share/zoneinfo 2>/dev/null | sql --database=mysql
    create_accounts
    run_site_scripts
    stop_private_server
    mariadbd --version | sed -E 's/.*Ver ([0-9.]+-MariaDB).*/\1/' | tr -d '\n' >"$data/mariadb_upgrade_info"
    sync -f "$data"
    rm "$unfinished"
    say "the database is ready"
}

upgrade() {
    local made_by runs
    made_by=$(grep -oE '^[0-9]+\.[0-9]+' "$data/mariadb_upgrade_info" 2>/dev/null || echo unknown)
    runs=$(mariadbd --version | grep -oE '[0-9]+\.[0-9]+' | head -n 1)
    [ "$made_by" != "$runs" ] || return 0
    say "upgrading the system tables from $made_by to $runs"
    start_private_server "$@" --skip-grant-tables
    mariadb-upgrade --socket=/run/mysqld/mysqld.sock
    stop_private_server
}

[[ $1 != -* ]] || set -- mariadbd "$@"
[ "$1" = mariadbd ] || exec "$@"
secret MARIADB_ROOT_PASSWORD
secret MARIADB_PASSWORD
if [ ! -d "$data/mysql" ] || [ -e "$unfinished" ]; then
    initialise "$@"
elif [ -n "${MARIADB_AUTO_UPGRADE:-}" ]; then
    upgrade "$@"
fi
unset MARIADB_ROOT_PASSWORD MARIADB_PASSWORD
exec "$@"
