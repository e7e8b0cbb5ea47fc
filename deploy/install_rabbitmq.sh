#!/bin/sh
# Installs RabbitMQ for the integration tests on Debian and Ubuntu, as root, without starting its service.
# Already there: does nothing. Elsewhere, or not root: says in one line what is missing; the tests then skip, or fail with CI=true.
set -eu
if command -v rabbitmq-server >/dev/null 2>&1 || [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "ctdeface: rabbitmq-server is not installed, so tests that need it are skipped: install it with your package manager" >&2
    exit 0
fi
echo "ctdeface: installing rabbitmq-server for the tests, without starting its service"
policy=/usr/sbin/policy-rc.d
made=""
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made=$policy
fi
trap '[ -z "$made" ] || rm -f "$made"' EXIT
install() {
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --quiet --no-install-recommends rabbitmq-server </dev/null >/dev/null
}
if ! install 2>/dev/null; then
    apt-get update --quiet --quiet </dev/null || true
    install || echo "ctdeface: apt-get could not install rabbitmq-server, so tests that need it are skipped" >&2
fi
if command -v systemctl >/dev/null 2>&1 && [ -n "$made" ]; then
    systemctl disable rabbitmq-server >/dev/null 2>&1 || true # nor at the next boot
fi
