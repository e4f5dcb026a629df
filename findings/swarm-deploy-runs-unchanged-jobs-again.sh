#!/bin/sh
# "docker stack deploy" of an unchanged stack file runs every job of it again, and leaves every
# service alone.
#
# Software: docker.io 26.1.5 of Debian 13 (trixie), one engine as a swarm. Seen on 2026-11-27.
# Guess: a deploy applies differences: what has not changed, a finished job among it, stays as it is.
# Expected: after two deploys of one file the service has had one task, and the job has run once.
# Seen: the service has had one task; the job has run twice. "replicated-job" takes each update of
# its service as a new execution, and a deploy updates all services.
# It hurts whoever puts a migration, an import or a mail-out into a stack as a job: scaling another
# service by way of the file repeats it. Keep jobs in a file of their own.
set -eu

image=${TRIXIE_IMAGE:-debian:trixie}
docker image inspect "$image" >/dev/null 2>&1 || image=soc-offline/debian:trixie
engine=finding-swarm-$$
trap 'docker rm --force --volumes "$engine" >/dev/null' EXIT
docker run --detach --name "$engine" --network host --volume /var/lib/docker \
    --cap-add ALL --cap-drop SYS_RESOURCE --security-opt seccomp=unconfined \
    --security-opt apparmor=unconfined --security-opt systempaths=unconfined \
    --device-cgroup-rule 'a *:* rwm' --volume /sys/fs/cgroup:/sys/fs/cgroup:rw \
    "$image" sleep 900 >/dev/null

docker exec --interactive "$engine" sh -eu <<'EOF' >/dev/null
exec 2>&1
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends docker.io docker-cli busybox-static
EOF
# From here on without the host's network: the engine makes bridges and firewall rules of its own.
docker commit "$engine" "$engine" >/dev/null
docker rm --force --volumes "$engine" >/dev/null
trap 'docker rm --force --volumes "$engine" >/dev/null; docker rmi "$engine" >/dev/null' EXIT
docker run --detach --name "$engine" --volume /var/lib/docker --tmpfs /run --tmpfs /tmp \
    --cap-add ALL --cap-drop SYS_RESOURCE --security-opt seccomp=unconfined \
    --security-opt apparmor=unconfined --security-opt systempaths=unconfined \
    --device-cgroup-rule 'a *:* rwm' --volume /sys/fs/cgroup:/sys/fs/cgroup:rw \
    "$engine" sh -c 'mount -o remount,rw /sys; exec dockerd --exec-opt native.cgroupdriver=cgroupfs' >/dev/null

docker exec --interactive "$engine" sh -eu <<'EOF'
exec 3>&1 >/tmp/said 2>&1
until docker info; do sleep 1; done
tar -C /usr -c bin/busybox | docker import - busybox:local
docker swarm init
cat >/tmp/stack.yaml <<'FILE'
version: "3.9"
services:
  service: {image: "busybox:local", command: [/bin/busybox, sleep, "900"]}
  job:
    image: busybox:local
    command: [/bin/busybox, "true"]
    deploy: {mode: replicated-job}
FILE
# How often a service of the stack has been started.
runs() { docker service ps --quiet "s_$1" | wc -l; }
ended() { [ "$(docker service ps --format '{{.CurrentState}}' s_job | grep -c ^Complete)" -eq "$1" ]; }
for deploy in 1 2; do
    docker stack deploy --detach=true --resolve-image never -c /tmp/stack.yaml s
    for second in $(seq 30); do ! ended "$deploy" || break; sleep 1; done
done
docker version --format 'docker {{.Server.Version}}' >&3
echo "expected: service 1, job 1" >&3
echo "seen: service $(runs service), job $(runs job)" >&3
[ "$(runs service) $(runs job)" = "1 2" ]
EOF
