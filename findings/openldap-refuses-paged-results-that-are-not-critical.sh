#!/bin/sh
# OpenLDAP refuses a search because of a paged-results control that was sent as not critical.
#
# Software: OpenLDAP slapd 2.6.10 of Debian 13 (trixie); 2.5.13 does the same. Seen on 2026-11-27.
# Expected: where an administrator has disabled paged results (limits … size.prtotal=disabled), a
# search with the control marked "not critical" is answered as if the control were not there: RFC
# 4511, section 4.1.11, has the server ignore a control that it is unwilling to perform and that is
# not critical.
# Seen: result 11, administrative limit exceeded, "pagedResults control not allowed", and no entry,
# whether the control is critical or not. The same search without the control finds the entry.
# It hurts clients that send the control always and trust the flag: to them an account that
# may read everything looks as if its search was over a limit. Ask again without the control.
set -eu

image=${DEBIAN_IMAGE:-debian:trixie}
docker image inspect "$image" >/dev/null 2>&1 || image=soc-offline/debian:trixie

docker run --rm -i --network host "$image" bash -eu -s <<'INSIDE'
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null
apt-get install -y -qq --no-install-recommends slapd ldap-utils >/dev/null 2>&1
cd "$(mktemp -d)"
mkdir data
cat >slapd.conf <<'CONF'
include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
suffix dc=example
directory data
limits * size.prtotal=disabled
access to * by * read
CONF
printf 'dn: dc=example\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: x\n' |
  slapadd -q -f slapd.conf
slapd -f slapd.conf -h 'ldapi://%2Ftmp%2Fsock' -d none 2>version &
slapd=$!
find() { ldapsearch -x -LLL -H 'ldapi://%2Ftmp%2Fsock' -b dc=example "$@" 1.1 2>/dev/null; }
until ldapsearch -x -H 'ldapi://%2Ftmp%2Fsock' -s base -b '' >/dev/null 2>&1; do sleep 0.1; done
plain=0; find >/dev/null || plain=$?
paged=0; find -E pr=1/noprompt >/dev/null || paged=$?
critical=0; find -E '!pr=1/noprompt' >/dev/null || critical=$?
kill "$slapd"
grep -o 'slapd [0-9.]*[^ ]*' version | head -1
echo "expected: without 0, not critical 0, critical not 0"
echo "seen:     without $plain, not critical $paged, critical $critical"
test "$plain $paged $critical" = "0 11 11"
INSIDE
