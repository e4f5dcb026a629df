# shellcheck shell=sh
# Backup and restore of a site in containers; sourced by docker/containers/stack.
# shellcheck disable=SC2154 # `file` and `site` are the stack's

DUMP_ENDS='^-- Dump completed'

# Writes one archive with the site's files and a consistent dump under a temporary name, and
# renames it when it is proven complete: a backup that fails leaves the last good one alone.
backup() {
    running mariadb || die "the database of $site does not run: \`make up\` starts it"
    folder=${TO:-backups}
    (umask 077 && mkdir -p "$folder")
    work=$(mktemp -d "$folder/.unfinished-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    archive=$folder/soc-$site-$(date -u +%Y%m%dT%H%M%SZ).tar
    say "1/3 dumping the database"
    { dump || touch "$work/failed"; } | gzip >"$work/soc.sql.gz"
    [ ! -e "$work/failed" ] || die "the database could not be dumped: the lines above say why; nothing was written"
    count_tables >"$work/tables"
    say "2/3 adding env/$site.env and env/$site/"
    as_root tar -C /env -cf - "$site.env" "$site" >"$work/site.tar"
    echo "$site" >"$work/site"
    (umask 077 && tar -C "$work" -cf "$work/archive" site tables site.tar soc.sql.gz)
    say "3/3 reading it back"
    verify "$work/archive"
    sync "$work/archive"
    mv "$work/archive" "$archive"
    say "$archive is complete. It holds the site's secrets: keep it where only you can read it"
}

# shellcheck disable=SC2016 # the container's shell expands it
dump() {
    compose exec -T mariadb sh -c 'MYSQL_PWD=$(cat /run/site/root_password) exec mariadb-dump \
        --user=root --protocol=socket --skip-ssl --single-transaction --quick soc'
}
count_tables() {
    echo "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'soc'" | database_root | tail -n 1
}
# shellcheck disable=SC2016 # the container's shell expands it
database_root() {
    compose exec -T mariadb sh -c 'MYSQL_PWD=$(cat /run/site/root_password) exec mariadb \
        --user=root --protocol=socket --skip-ssl --skip-column-names soc'
}
as_root() {
    docker run --rm --interactive --user 0:0 --network none --cap-drop ALL --cap-add CHOWN \
        --cap-add DAC_OVERRIDE --cap-add FOWNER --volume "$PWD/env:/env" "$(app_image)" "$@"
}

# A dump that ends early has no last line; one that a table is missing from has too few.
verify() {
    member() { tar -xOf "$1" "$2" 2>/dev/null; }
    member "$1" site.tar | tar -t >/dev/null 2>&1 || die "$1 is damaged: it has no readable files of a site"
    member "$1" soc.sql.gz | gzip -dc 2>/dev/null | tail -n 1 | grep -q "$DUMP_ENDS" ||
        die "$1 is damaged: its dump has no end"
    dumped=$(member "$1" soc.sql.gz | gzip -dc | grep -c '^CREATE TABLE')
    [ "$dumped" = "$(member "$1" tables)" ] ||
        die "$1 is damaged: it has $dumped of $(member "$1" tables) tables"
}

# Restores a backup as a new site, up to the database; nothing else is started. `make up` migrates
# what an older version has dumped. Nothing changes before every check has passed.
restore() {
    [ -f "${FROM:-}" ] || die "name the backup: make restore FROM=backups/soc-....tar"
    verify "$FROM"
    [ "$(tar -xOf "$FROM" site)" = "$site" ] ||
        die "$FROM is of the site $(tar -xOf "$FROM" site): \`make restore SITE=$(tar -xOf "$FROM" site) FROM=$FROM\`"
    volume=$(tar -xOf "$FROM" site.tar | tar -xO "$site.env" | sed -n 's/^COMPOSE_PROJECT_NAME=//p')_mariadb
    for present in "$file" "env/$site"; do
        [ ! -e "$present" ] || die "$present is there: a backup is restored as a new site only. Move it away first; nothing was changed"
    done
    ! docker volume inspect "$volume" >/dev/null 2>&1 ||
        die "the volume $volume is there: a backup is restored as a new site only. \`docker volume rm $volume\` deletes the data in it; nothing was changed"
    choose_base_images
    build_app_image
    tar -xOf "$FROM" site.tar | as_root tar -C /env -xpf -
    # The site's own file may name other images.
    choose_base_images
    build_app_image
    prepare_site
    adopt_first_image
    say "starting the database alone"
    compose up --detach --wait mariadb
    say "restoring $(tar -xOf "$FROM" tables) tables"
    { tar -xOf "$FROM" soc.sql.gz | gzip -dc; hold_mail; } | database_root
    [ "$(count_tables)" = "$(tar -xOf "$FROM" tables)" ] || die "not every table was restored: \`docker compose down\`, \`docker volume rm $volume\`, then again"
    say "restored. Nothing runs but the database; \`make up\` migrates and starts the site"
}

# What waited at the time of the dump may have been sent since: a person decides.
hold_mail() {
    echo "UPDATE notify_outboundmail SET state = 'expired', next_try_at = NULL, last_error =
        'Restored from a backup: it may have been sent since. Try again now sends it.'
        WHERE state IN ('queued', 'sending');"
}
