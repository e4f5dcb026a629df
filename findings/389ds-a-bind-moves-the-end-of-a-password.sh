#!/bin/sh
# In 389 Directory Server a bind moves the moment at which the password expires.
#
# Software: 389-ds-base 3.1.2 of Debian 13 (trixie). Seen on 2026-11-27.
# Expected: a password that expires tomorrow expires tomorrow, whether somebody binds with it or
# not, and the expiry that an administrator has set (passwordExpirationTime) stays as it is.
# Seen: the first bind within the warning period sets passwordExpirationTime to that moment plus
# passwordWarning, here 30 days instead of one. So the first time that a monitor looks at an
# account, it puts its end off, and what it reports has been true only since it asked.
# It hurts audits that rely on the expiry, and monitoring that compares it with the policy.
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
manager ldapmodify >/dev/null <<'LDIF'
dn: cn=config
changetype: modify
replace: passwordExp
passwordExp: on
-
replace: passwordMaxAge
passwordMaxAge: 7776000
-
replace: passwordWarning
passwordWarning: 2592000
LDIF
manager ldapadd >/dev/null <<'LDIF'
dn: cn=reader,dc=example
objectClass: person
cn: reader
sn: reader
userPassword: Reader-Secret-1
LDIF
tomorrow=$(date -u -d '+1 day' +%Y%m%d%H%M%SZ)
printf 'dn: cn=reader,dc=example\nchangetype: modify\nreplace: passwordExpirationTime\npasswordExpirationTime: %s\n' \
  "$tomorrow" | manager ldapmodify >/dev/null
expiry() { manager ldapsearch -LLL -b cn=reader,dc=example passwordExpirationTime | sed -n 's/^passwordExpirationTime: //p'; }
before=$(expiry)
ldapwhoami -x -H "$url" -D cn=reader,dc=example -w Reader-Secret-1 >/dev/null
after=$(expiry)
later=$(date -u -d '+29 days' +%Y%m%d%H%M%SZ)
ns-slapd -v 2>&1 | grep -m1 389-Directory
echo "expected: $tomorrow before the bind and after it"
echo "seen:     $before before, $after after"
test "$before" = "$tomorrow" && [ "$after" \> "$later" ]
INSIDE
