#!/bin/sh
# 389 Directory Server shows its replica update vector to anonymous clients, and hides it from a
# user that has bound.
#
# Software: 389-ds-base 3.1.2 of Debian 13 (trixie). Seen on 2026-11-27.
# Expected: who binds sees at least what an anonymous client sees. The suffix grants reading to
# ldap:///anyone, which includes both, so a search for the vector (nsds50ruv of the entry with the
# nsuniqueid ffffffff-…) answers both alike.
# Seen: the anonymous client gets the entry (as cn=replica,…,cn=config) with the vector; an ordinary
# user that has bound gets success and no entry; the directory manager gets it.
# It hurts monitoring that compares replicas: with a service account it finds no replication and no
# error, where it would have worked without a password.
set -eu

image=${DEBIAN_IMAGE:-debian:trixie}
docker image inspect "$image" >/dev/null 2>&1 || image=soc-offline/debian:trixie

docker run --rm -i --network host --hostname ds.example.test "$image" bash -eu -s <<'INSIDE'
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null
apt-get install -y -qq --no-install-recommends 389-ds-base ldap-utils >/dev/null 2>&1
cat >/i.inf <<'INF'
[general]
full_machine_name = localhost.localdomain
start = False
strict_host_checking = False
systemd = False
[slapd]
instance_name = one
root_password = Manager-Secret-1
port = 38389
secure_port = 38636
self_sign_cert = True
[backend-userroot]
suffix = dc=example
create_suffix_entry = True
INF
dscreate from-file /i.inf >/create.log 2>&1
ns-slapd -D /etc/dirsrv/slapd-one -d 0 >/ds.log 2>&1 &
url=ldap://localhost:38389
manager() { "$@" -x -H "$url" -D 'cn=Directory Manager' -w Manager-Secret-1; }
until ldapsearch -x -H "$url" -s base -b '' >/dev/null 2>&1; do sleep 0.2; done
manager ldapadd >/dev/null <<'LDIF'
dn: cn=reader,dc=example
objectClass: person
cn: reader
sn: reader
userPassword: Reader-Secret-1
LDIF
manager ldapmodify >/dev/null <<'LDIF'
dn: dc=example
changetype: modify
add: aci
aci: (targetattr="*")(version 3.0; acl "read"; allow (read,search,compare) userdn="ldap:///anyone";)
LDIF
dsconf -D 'cn=Directory Manager' -w Manager-Secret-1 "$url" replication enable --suffix dc=example \
  --role supplier --replica-id 1 >/dev/null
vector='(&(nsuniqueid=ffffffff-ffffffff-ffffffff-ffffffff)(objectClass=nsTombstone))'
count() { ldapsearch -x -LLL -H "$url" "$@" -b dc=example "$vector" nsds50ruv | grep -c '^nsds50ruv:' || true; }
anonymous=$(count)
bound=$(count -D cn=reader,dc=example -w Reader-Secret-1)
own=$(ldapsearch -x -LLL -H "$url" -D cn=reader,dc=example -w Reader-Secret-1 -b dc=example cn=reader cn | grep -c '^cn: reader')
ns-slapd -v 2>&1 | grep -m1 389-Directory
echo "expected: values for the anonymous client and for the bound user alike"
echo "seen:     anonymous $anonymous, bound $bound (which reads its own entry: $own)"
test "$anonymous" -gt 0 && test "$bound" = 0 && test "$own" = 1
INSIDE
