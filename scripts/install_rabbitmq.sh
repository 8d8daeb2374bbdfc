#!/usr/bin/env bash
# Make sure that rabbitmq-server is installed, so that tests and the demonstration can start private nodes.
#
# On Debian and its relatives, as root, it is installed with apt-get; anywhere else this says what to do and
# exits 1.  The package would start a default node on port 5672: a policy-rc.d (invoke-rc.d(8)) that is there
# only while we install prevents that.  A node that runs already is not touched.
set -euo pipefail

if [ -n "${TXMSG_RABBITMQ_SERVER:-}" ] || [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]; then
    exit 0
fi
# Elsewhere than on Debian the script on PATH is not a wrapper that changes the user.
if found=$(command -v rabbitmq-server) && [ "$(basename "$(readlink -f "$found")")" = rabbitmq-server ]; then
    exit 0
fi

if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    cat >&2 <<'TEXT'
rabbitmq-server is not installed, and can be installed from here only by root on Debian or Ubuntu. Please
  - run as an administrator:  apt-get install rabbitmq-server   (and: systemctl disable --now rabbitmq-server), or
  - install RabbitMQ 3.10 or later in another way and set TXMSG_RABBITMQ_SERVER to its rabbitmq-server script.
TEXT
    exit 1
fi

policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt_get() {
    apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" >&2
}
echo "installing rabbitmq-server with apt-get" >&2
apt_get update || echo "apt-get update failed; trying with the package lists there are" >&2
apt_get install -y --no-install-recommends rabbitmq-server
