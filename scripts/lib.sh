# SPDX-License-Identifier: MIT
# For the scripts beside it: sourced, with the checkout as the working directory.

# Sees to it that the Debian packages of packages.txt and those that are named are installed. Who is not root is told
# how, and the script ends.
install_packages() {
    local missing
    missing=$(comm -23 <(printf '%s\n' "$@" | sed '/^$/d' | sort - scripts/packages.txt) \
        <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null | sed -n 's/^installed //p' | sort -u))
    [ -n "$missing" ] || return 0
    # shellcheck disable=SC2086 # one word a package
    set -- apt-get install -y --no-install-recommends $missing
    if [ "$(id -u)" -ne 0 ]; then
        printf 'These packages are missing; as root, run:\n%s\n' "$*" >&2
        exit 2
    fi
    step "$@"
    local said
    said=$({ apt-get update && DEBIAN_FRONTEND=noninteractive "$@"; } 2>&1) || { printf '%s\n' "$said" >&2; exit 2; }
}

# Says what comes next, and when.
step() {
    printf '[%4d s] %s\n' "$SECONDS" "$*"
}
