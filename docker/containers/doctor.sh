# shellcheck shell=sh
# `make doctor`: gathers facts, all at once and each within a time limit, and has soc.doctor judge
# them in a container of its own. Nothing is changed; sourced by docker/containers/stack.
# shellcheck disable=SC2154 # `file` and `site` are the stack's

WITHIN=9 # seconds that one source of facts may take

doctor() {
    [ -f "$file" ] || die "$file does not exist; \`make site SITE=$site\` creates it"
    mkdir -p var
    facts=$(mktemp -d "$PWD/var/.doctor-XXXXXX")
    trap 'rm -rf "$facts"' EXIT
    project=$(value COMPOSE_PROJECT_NAME)
    begin=$(date +%s)
    for source in engine host backups containers images drift database broker relay; do
        "facts_of_$source" >"$facts/$source" 2>"$facts/$source.error" &
    done
    wait
    image=$(value APP_IMAGE)
    present "$image" || die "the image $image is not here: \`make up\` builds it"
    network=${project}_data
    docker network inspect "$network" >/dev/null 2>&1 || network=none
    # shellcheck disable=SC2086 # no option is no argument
    docker run --rm --user 0:0 --network "$network" --cap-drop ALL --cap-add DAC_OVERRIDE --read-only \
        --volume "$PWD/env:/env:ro" --volume "$facts:/facts:ro" "$image" \
        python3 -m soc.doctor "$site" --began "$begin" ${JSON:+--json}
}

# Runs a command in a service's first container, if that one runs.
within() {
    container=$(docker ps --quiet --filter "label=com.docker.compose.project=$project" \
        --filter label=com.docker.compose.oneoff=False --filter "label=com.docker.compose.service=$1" | head -n 1)
    shift
    [ -n "$container" ] || { echo "no container runs" >&2; return 1; }
    timeout "$WITHIN" docker exec --interactive "$container" "$@"
}

facts_of_engine() {
    docker version --format '{{.Server.Version}}'
    docker compose version --short
}

# Space and inodes where the engine keeps volumes, and where this tree is; then memory and load.
facts_of_host() {
    for folder in "$(docker info --format '{{.DockerRootDir}}')" "$PWD"; do
        [ -d "$folder" ] || continue
        echo "space $(df -Pk "$folder" | tail -n 1 | awk '{print $2, $4}') $folder"
        echo "inodes $(df -Pi "$folder" | tail -n 1 | awk '{print $2, $4}') $folder"
    done
    for service in mariadb rabbitmq; do
        case $service in mariadb) folder=/var/lib/mysql ;; rabbitmq) folder=/var/lib/rabbitmq ;; esac
        for kind in space:k inodes:i; do
            left=$(within $service df "-P${kind#*:}" "$folder" 2>/dev/null | tail -n 1 | awk '{print $2, $4}')
            [ -z "$left" ] || echo "${kind%:*} $left the volume of $service"
        done
    done
    sed -n 's/^MemTotal: *\([0-9]*\) kB/memory total \1/p; s/^MemAvailable: *\([0-9]*\) kB/memory available \1/p' /proc/meminfo
    echo "load $(cut -d ' ' -f 1 /proc/loadavg) $(nproc)"
}

facts_of_backups() {
    [ -d backups ] || return 0
    for archive in backups/soc-"$site"-*.tar; do
        [ ! -f "$archive" ] || stat -c '%Y %s %n' "$archive"
    done
}

facts_of_containers() {
    # shellcheck disable=SC2046 # each id is a word
    set -- $(docker ps --all --quiet --filter "label=com.docker.compose.project=$project" \
        --filter label=com.docker.compose.oneoff=False)
    [ $# -gt 0 ] || { echo "[]"; return 0; }
    docker inspect "$@"
}

facts_of_images() {
    for name in APP_IMAGE MARIADB_IMAGE RABBITMQ_IMAGE; do
        echo "$name $(value $name) $(image_id "$(value $name)")"
    done
}

# What has another configuration than at the last `make up`.
facts_of_drift() {
    configuration >"$facts/now" || return 1
    [ ! -f "$configured" ] || grep -vxFf "$configured" "$facts/now" | cut -d ' ' -f 1
}
configured=var/$site.configured

# A digest of each service's part of compose.yaml, and of the env file.
configuration() {
    compose config --hash '*' && echo "$file $(sha256sum <"$file")"
}

# One read of every table as well: MariaDB opens a damaged one only when it is asked for.
# shellcheck disable=SC2016 # the container's shell expands it
facts_of_database() {
    within mariadb sh -c 'export MYSQL_PWD=$(cat /run/site/root_password)
        ask() { mariadb --user=root --protocol=socket --skip-ssl --batch --skip-column-names --force "$@" soc; }
        ask 2>&1
        echo "SELECT CONCAT(\"SELECT 1 FROM \`\", table_name, \"\` LIMIT 1;\") FROM information_schema.tables
            WHERE table_schema = \"soc\"" | ask | ask 2>&1 | sed -n "s/^ERROR/unreadable\t&/p"' \
        <docker/containers/doctor.sql
}

# One after the other: each is an Erlang VM, and four at once had the broker killed at its memory
# limit. What comes first is of most use if the time is over.
facts_of_broker() {
    within rabbitmq sh -c '
        line() { "$@" | tr -d "\n"; echo; }
        line rabbitmq-diagnostics -q status --formatter json
        line rabbitmqctl -q list_queues name messages consumers members online --formatter json
        line rabbitmqctl -q list_feature_flags name state stability --formatter json
        line rabbitmqctl -q export_definitions -'
}

facts_of_relay() { within worker-email python3 -m soc.notify.relay_check; }
