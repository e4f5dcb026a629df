#!/bin/sh
# Samba's directory sends every entry that matches, whatever size limit the client sets.
#
# Software: Samba 4.22 as an Active Directory domain controller, of Debian 13 (trixie). Seen on
# 2026-11-27.
# Expected: with sizeLimit 1, one entry and result 4, sizeLimitExceeded (RFC 4511, section 4.5.1.4:
# "restricts the maximum number of entries to be returned"), as OpenLDAP, 389-ds and Microsoft do.
# Seen: all of them and result 0. An ordinary user over ldaps gets the same. A page of one (RFC 2696) has one entry.
# It hurts clients that ask "is there any?" with a size limit of one: they get the whole
# directory, and one that counts on result 4 takes it for the only entry.
set -eu

image=${DEBIAN_IMAGE:-debian:trixie}
docker image inspect "$image" >/dev/null 2>&1 || image=soc-offline/debian:trixie

docker run --rm -i --network host "$image" bash -eu -s <<'INSIDE'
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null
apt-get install -y -qq --no-install-recommends samba-ad-dc samba-ad-provision samba-dsdb-modules \
  ldap-utils >/dev/null 2>&1
rm -f /etc/samba/smb.conf
samba-tool domain provision --realm=CORP.EXAMPLE --domain=CORP --server-role=dc --dns-backend=NONE \
  --adminpass=Passw0rd-xyz --host-name=dc1 --host-ip=127.0.0.1 --option='interfaces=lo' \
  --option='bind interfaces only=yes' --option='posix:eadb=/var/lib/samba/private/eadb.tdb' \
  --option='server services=ldap' >/provision.log 2>&1
samba -D
socket='ldapi://%2Fvar%2Flib%2Fsamba%2Fprivate%2Fldap_priv%2Fldapi'
until ldapsearch -x -H "$socket" -s base -b '' >/dev/null 2>&1; do sleep 0.2; done
ask() { ldapsearch -x -LLL -H "$socket" -b CN=Schema,CN=Configuration,DC=corp,DC=example "$@" \
  '(objectClass=attributeSchema)' 1.1; }
limited=$(ask -z 1 2>/dev/null | grep -c '^dn:' || true)
samba --version
echo "expected: 1 entry with a size limit of 1"
echo "seen:     $limited entries with a size limit of 1"
test "$limited" -gt 1000
INSIDE
