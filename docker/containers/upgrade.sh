# shellcheck shell=sh
# What `make up` does before it replaces a container; sourced by docker/containers/stack.
# shellcheck disable=SC2154,SC2034 # `file`, `site`, `next` and `scaled` are the stack's

# The database is migrated: what was built takes the name that is started from now on. What ran
# until now keeps a tag; it had been migrated for too, so `previous` never is a version that failed.
adopt_next_image() {
    ran=$(image_that_ran)
    if [ -n "$ran" ] && [ "$ran" != "$(image_id "$next")" ]; then
        docker tag "$ran" "$(value APP_IMAGE)-previous"
    fi
    docker tag "$next" "$(value APP_IMAGE)"
    docker rmi "$next" >/dev/null
    next=
}
image_that_ran() {
    container=$(compose ps --all --quiet web 2>/dev/null | head -n 1)
    [ -z "$container" ] || docker inspect --format '{{.Image}}' "$container"
}

# A new site has nothing to migrate; other sites of this host may run what has the name.
adopt_first_image() {
    if present "$(value APP_IMAGE)" && [ -n "$(docker ps --all --quiet --filter "ancestor=$(value APP_IMAGE)")" ]; then
        docker rmi "$next" >/dev/null
        next=
    else
        adopt_next_image
    fi
}

# Goes back to the version that ran before, if the database is still one that it knows.
rollback() {
    app=$(value APP_IMAGE)
    present "$app-previous" ||
        die "there is no $app-previous: this host has had one version only; restore a backup (docs/operations.md)"
    ran=$(image_that_ran)
    [ "$ran" != "$(image_id "$app-previous")" ] ||
        die "$app-previous is what runs; nothing was changed"
    running mariadb || compose up --detach --wait mariadb || die "the database did not start: \`make logs S=mariadb\`"
    unknown=$(compose_with "$app-previous" run --rm --no-deps -T migrate \
        python3 - <docker/containers/unknown_migrations.py) ||
        die "the previous version cannot read the database; nothing was changed"
    [ -z "$unknown" ] ||
        die "the database was migrated since: $app-previous does not know $unknown. Nothing was changed. Restore the backup of before: docs/operations.md, Restore"
    scaled=$(scaled)
    docker tag "$app-previous" "$app"
    [ -z "$ran" ] || docker tag "$ran" "$app-previous"
    replace ""
    say "the version of before runs again; \`make rollback\` goes forward again"
    say "compose.yaml and configs/ are still the new ones: \`git checkout\` the version of before before the next \`make up\`"
}

way_back() {
    ! present "$(value APP_IMAGE)-previous" || echo ". \`make rollback\` goes back to the version that ran before"
}

# MAJOR.MINOR of what an image runs, and of what wrote a volume last; nothing if nobody knows.
image_series() {
    case $1 in
        mariadb) reads='mariadbd --version | sed "s/.*Ver //"' ;;
        rabbitmq) reads='rabbitmqctl version' ;;
    esac
    docker run --rm --network none --entrypoint sh "$2" -c "$reads" 2>/dev/null | series
}
volume_series() {
    case $1 in
        mariadb) file=mariadb_upgrade_info ;;
        rabbitmq) file=soc-series ;;
    esac
    docker run --rm --network none --user 0:0 --entrypoint sh --volume "$2:/volume:ro" \
        "$(app_image)" -c "cat /volume/$file" 2>/dev/null | series
}
series() { sed -nE 's/^([0-9]+\.[0-9]+).*/\1/p' | head -n 1; }
is_older() { [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# Whether a service's container, if there is one, was made of another image than its variable names.
is_replaced() {
    container=$(compose ps --all --quiet "$1" | head -n 1)
    [ -z "$container" ] || [ "$(docker inspect --format '{{.Image}}' "$container")" != "$(image_id "$(value "$2")")" ]
}

# Neither server reads what a newer series of it has written: MariaDB logs errors and serves on,
# RabbitMQ hangs before it serves.
refuse_downgrades() {
    for server in mariadb rabbitmq; do
        name=$(echo "$server" | tr '[:lower:]' '[:upper:]')_IMAGE
        volume=$(value COMPOSE_PROJECT_NAME)_$server
        docker volume inspect "$volume" >/dev/null 2>&1 || continue
        is_replaced "$server" "$name" || continue
        image=$(image_id "$(value "$name")")
        wrote=$(volume_series "$server" "$volume")
        [ -n "$wrote" ] || continue
        runs=$(image_series "$server" "$image")
        if is_older "$runs" "$wrote"; then
            downgrade_advice "$server" "$name" "$wrote" "$runs"
        fi
    done
}

downgrade_advice() {
    case $1 in
        mariadb) way="\`make backup\` with $3, \`docker compose down\`, \`docker volume rm $volume\`, set the older image, \`make restore FROM=...\`" ;;
        rabbitmq) way="wait with $3 until the queues are empty (\`docker compose exec web python3 manage.py backlog show\`), \`docker compose down\`, \`docker volume rm $volume\`, set the older image, \`make up\`" ;;
    esac
    die "$2 in $file is $1 $4, but $3 wrote the volume $volume, which $4 cannot read. Nothing was changed.
   Set $2 back to $3. To go back all the same: $way"
}

# A feature that the next major series demands must be on before: stable ones are switched on once
# for each series. The file says which series wrote the volume.
settle_broker() {
    # shellcheck disable=SC2016 # the container's shell expands it
    compose exec -T rabbitmq sh -c 'now=$(rabbitmqctl version)
        [ "$(cat /var/lib/rabbitmq/soc-series 2>/dev/null)" != "$now" ] || exit 0
        rabbitmqctl -q enable_feature_flag all && echo "$now" >/var/lib/rabbitmq/soc-series' ||
        say "RabbitMQ's feature flags could not be enabled; the next \`make up\` tries again"
}

# Migrates while the old version still serves, its servers as well: what changes of MariaDB and
# RabbitMQ is replaced afterwards. On failure nothing has been replaced.
migrate() {
    running rabbitmq || compose up --detach --no-deps rabbitmq
    running mariadb || compose up --detach --wait mariadb || die "the database did not start: \`make logs S=mariadb\`"
    backup_before_upgrade
    say "migrating the database"
    compose_with "$next" up --detach --no-deps --force-recreate migrate
    container=$(compose ps --all --quiet migrate | head -n 1)
    [ "$(docker wait "$container")" != 0 ] || return 0
    docker logs --tail 20 "$container" >&2
    if running web; then
        die "the migration failed: the old version runs on, and nothing was replaced. Mend what the lines above say, then \`make up\` goes on where the migration stopped; to stay with the old version, \`git checkout\` it"
    fi
    die "the migration failed, nothing else was started; \`make up\` goes on where it stopped"
}

# A database that is migrated, or opened by a newer series of its server, does not go back.
backup_before_upgrade() {
    [ "${BACKUP:-yes}" != no ] || return 0
    [ "$(count_tables)" != 0 ] || return 0
    if is_replaced mariadb MARIADB_IMAGE; then
        say "MariaDB will be replaced: backing up first (BACKUP=no does not)"
    # What runs already has migrated: the question costs a start of Django.
    elif [ "$(image_that_ran)" != "$(image_id "$next")" ] &&
        ! compose_with "$next" run --rm --no-deps -T migrate python3 manage.py migrate --check >/dev/null 2>&1; then
        say "the database will be migrated: backing up first (BACKUP=no does not)"
    else
        return 0
    fi
    backup
}
