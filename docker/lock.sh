# shellcheck shell=sh
# Keeps two commands from changing one site at once; sourced by both stacks.

# The lock ends with the process. A host without flock(1) goes without one.
lock() {
    command -v flock >/dev/null || return 0
    mkdir -p var
    exec 9>"var/$1.lock"
    flock --nonblock 9 ||
        die "another make command is changing the site $1 at this moment: wait until it has ended"
}
