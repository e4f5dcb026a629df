#!/bin/sh
# The report that Exim sends back for an address that a redirect router fails says "Status: 5.0.0"
# and has no Diagnostic-Code, although the router's text begins with "550 5.1.1".
#
# Software: exim4-daemon-light 4.98.2 of Debian 13 (trixie), Postfix 3.10 of the same for comparison;
#   2026-12-01.
# Guess: both say "user unknown" in the fields for programs, so that whoever reads reports finds the
#   reason there (RFC 3464, 2.3.4: Status is required, and ought to be as precise as is known).
# Expected: 5.1.1, and the words, from both.
# Seen: Postfix: "Status: 5.1.1" and its words as Diagnostic-Code. Exim: "Status: 5.0.0" alone, and the
#   router's text in the part for people only. Whoever sorts reports by status takes it for unknown.
# Exit 0: still so. Exit 1: the behaviour has changed.
set -eu

image=${DEBIAN_IMAGE:-debian:trixie}
docker image inspect "$image" >/dev/null 2>&1 || image=soc-offline/debian:trixie

ask() {
    docker run --rm -i --network host "$image" bash -eu -s -- "$1" <<'INSIDE'
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null
apt-get install -y -qq --no-install-recommends "$1" >/dev/null 2>&1
useradd --create-home box
install -d -m 777 /mail
if [ "$1" = postfix ]; then
    postconf -e maillog_file=/dev/stdout inet_interfaces=127.0.0.1 mydestination= \
        myhostname=relay.example.test virtual_mailbox_base=/mail virtual_mailbox_limit=0 \
        virtual_mailbox_domains=example.test 'virtual_mailbox_maps=inline:{a@example.test=all}' \
        virtual_uid_maps=static:1000 virtual_gid_maps=static:1000 smtpd_reject_unlisted_recipient=no
    postconf -M -X smtp/inet
    postconf -M 2588/inet='2588 inet n - n - - smtpd'
    postfix start >/log 2>&1
else
    cat >/etc/exim4/exim4.conf <<'C'
primary_hostname = relay.example.test
daemon_smtp_ports = 2588
local_interfaces = 127.0.0.1
keep_environment =
acl_smtp_rcpt = accept
begin routers
gone:
  driver = redirect
  local_parts = gone
  allow_fail
  data = :fail: 550 5.1.1 user unknown
all:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  file = /mail/all
  user = box
C
    exim4 -bdf >/log 2>&1 &
fi
until exec 3<>/dev/tcp/127.0.0.1/2588; do sleep 0.2; done 2>/dev/null
reply() { while IFS= read -r line <&3; do case $line in ???-*) ;; *) break ;; esac; done; }
reply
for said in 'EHLO client.example.test' 'MAIL FROM:<a@example.test>' 'RCPT TO:<gone@example.test>' DATA; do
    printf '%s\r\n' "$said" >&3; reply
done
printf 'Subject: hello\r\n\r\nhello\r\n.\r\nQUIT\r\n' >&3; reply
for _ in $(seq 60); do grep -q '^Status:' /mail/all 2>/dev/null && break; sleep 1; done
dpkg-query -W "$1"
grep -E '^(Status|Diagnostic-Code):' /mail/all || true
INSIDE
}

exim=$(ask exim4-daemon-light | tr -d '\r')
postfix=$(ask postfix | tr -d '\r')
printf '%s\n%s\n' "$exim" "$postfix"
case $postfix in *"Status: 5.1.1"*"Diagnostic-Code:"*) ;; *) echo "changed: Postfix"; exit 1 ;; esac
case $exim in
    *Diagnostic-Code:*) echo "changed: Exim"; exit 1 ;;
    *"Status: 5.0.0"*) echo "still so" ;;
    *) echo "changed: Exim"; exit 1 ;;
esac
