#!/bin/sh
# python-ldap decodes "the password has expired" as "it has not".
#
# Software: python-ldap 3.4.4 of Debian 13 (trixie); 3.4.8 from PyPI does the same. Python 3.13.
# Seen on 2026-11-27.
# Expected: PasswordExpiredControl (2.16.840.1.113730.3.4.4, value "0", draft-vchu-ldap-pwd-policy)
# of a server's answer has passwordExpired True: that is all that the control says.
# Seen: False, for every value that a server can send: the octets are compared with a str. Only the
# presence of the control says something; the attribute never does.
# It hurts login pages and monitoring for 389-ds, FreeIPA and their relatives, which let a user with
# an expired password in, or go on until it stops working altogether.
set -eu

image=${DEBIAN_IMAGE:-debian:trixie}
docker image inspect "$image" >/dev/null 2>&1 || image=soc-offline/debian:trixie

docker run --rm -i --network host "$image" bash -eu -s <<'INSIDE'
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null
apt-get install -y -qq --no-install-recommends python3-ldap >/dev/null 2>&1
python3 - <<'EOF'
import ldap
from ldap.controls import DecodeControlTuples
from ldap.controls.pwdpolicy import PasswordExpiredControl

# As 389-ds 3.1 sends it, and as python-ldap hands it to its decoder.
(control,) = DecodeControlTuples([(PasswordExpiredControl.controlType, 0, b"0")])
print("python-ldap", ldap.__version__)
print("expected: passwordExpired True")
print("seen:     passwordExpired", control.passwordExpired)
raise SystemExit(control.passwordExpired is not False)
EOF
INSIDE
