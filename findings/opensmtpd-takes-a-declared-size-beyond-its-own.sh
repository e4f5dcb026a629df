#!/bin/sh
# OpenSMTPD announces a size limit and then accepts a mail that is declared to be larger.
#
# Software: opensmtpd 7.6.0p1 of Debian 13 (trixie), Exim 4.98 of the same for comparison; 2026-12-01.
# Guess: a server that answers EHLO with "SIZE 3000" refuses MAIL with SIZE=9000 at once, as RFC 1870,
#   6.1, describes, so that a client that declares its size sends nothing in vain.
# Expected: 552 at MAIL from both.
# Seen: Exim refuses at MAIL; OpenSMTPD answers 250 to MAIL, 354 to DATA, and 554 5.3.4 after the
#   whole mail. A client must take the limit from EHLO itself.
# Exit 0: still so. Exit 1: the behaviour has changed.
set -eu

image=${DEBIAN_IMAGE:-debian:trixie}
docker image inspect "$image" >/dev/null 2>&1 || image=soc-offline/debian:trixie

ask() {
    docker run --rm -i --network host "$image" bash -eu -s -- "$1" <<'INSIDE'
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null
apt-get install -y -qq --no-install-recommends "$1" >/dev/null 2>&1
if [ "$1" = opensmtpd ]; then
    cat >/c <<'C'
listen on 127.0.0.1 port 2587
smtp max-message-size 3000
action "file" maildir "/tmp/box"
match from any for any action "file"
C
    smtpd -d -f /c >/log 2>&1 &
else
    cat >/etc/exim4/exim4.conf <<'C'
primary_hostname = relay.example.test
daemon_smtp_ports = 2587
local_interfaces = 127.0.0.1
message_size_limit = 3000
keep_environment =
acl_smtp_rcpt = accept
C
    exim4 -bdf >/log 2>&1 &
fi
until exec 3<>/dev/tcp/127.0.0.1/2587; do sleep 0.2; done 2>/dev/null
reply() {
    while IFS= read -r line <&3; do
        case $line in *SIZE*) echo "$(dpkg-query -W "$1"): EHLO $line" ;; esac
        case $line in ???-*) ;; *) break ;; esac
    done
}
reply "$1"
printf 'EHLO client.example.test\r\n' >&3; reply "$1"
printf 'MAIL FROM:<a@example.test> SIZE=9000\r\n' >&3; reply "$1"; echo "MAIL: $line"
printf 'QUIT\r\n' >&3
INSIDE
}

exim=$(ask exim4-daemon-light | tr -d '\r')
opensmtpd=$(ask opensmtpd | tr -d '\r')
printf '%s\n%s\n' "$exim" "$opensmtpd"
case $exim in *"MAIL: 552"*) ;; *) echo "changed: Exim"; exit 1 ;; esac
case $opensmtpd in
    *"SIZE 3000"*"MAIL: 250"*) echo "still so" ;;
    *) echo "changed: OpenSMTPD"; exit 1 ;;
esac
