#!/bin/sh
# Installs RabbitMQ, Prometheus and systemd-analyze for the tests on Debian and Ubuntu, as root, without starting a service.
# Does nothing if they exist. On other systems, or without root, it names what is missing; the tests then skip, or fail with CI=true.
set -eu
wanted=""
if ! command -v rabbitmq-server >/dev/null 2>&1 && [ ! -x /usr/lib/rabbitmq/bin/rabbitmq-server ]; then
    wanted="rabbitmq-server"
fi
if ! command -v prometheus >/dev/null 2>&1 || ! command -v promtool >/dev/null 2>&1; then
    wanted="$wanted prometheus"
fi
if ! command -v systemd-analyze >/dev/null 2>&1; then
    wanted="$wanted systemd"
fi
wanted=${wanted# }
if [ -z "$wanted" ]; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "ctdeface: tests that need what is not installed are skipped ($wanted): install it with your package manager" >&2
    exit 0
fi
echo "ctdeface: installing $wanted for the tests, without starting a service"
policy=/usr/sbin/policy-rc.d
made=""
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made=$policy
fi
trap '[ -z "$made" ] || rm -f "$made"' EXIT
install() {
    # shellcheck disable=SC2086 # one word per package
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --quiet --no-install-recommends $wanted </dev/null >/dev/null
}
if ! install 2>/dev/null; then
    apt-get update --quiet --quiet </dev/null || true
    install || echo "ctdeface: apt-get could not install $wanted, so tests that need it are skipped" >&2
fi
if command -v systemctl >/dev/null 2>&1 && [ -n "$made" ]; then
    for each in $wanted; do
        [ "$each" = systemd ] || systemctl disable "$each" >/dev/null 2>&1 || true # nor at the next boot
    done
fi
