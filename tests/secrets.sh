#!/usr/bin/env bash
# Searches what Strait's programs logged during a run of all tests for secrets: tests/secrets.sh FILE…
#
# It looks at log lines alone (a time, then a level): what a test prints itself is its own affair. Secrets are known by their
# form, so that no test has to tell which it used; and by the words of those that have none.
set -euo pipefail

readonly LINE='[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z +(TRACE|DEBUG|INFO|WARN|ERROR) '
readonly FORMS=(
    '-----BEGIN [A-Z ]*PRIVATE KEY'                                # PEM
    'eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}' # a JWT with its signature
    'strait-[a-z0-9-]*(\.[0-9a-f]*){4}\.[0-9]+\.[0-9A-Fa-f]{32,}'  # a signed credential with its signature
    '[a-z]://[^/@: ]*:[^/@ *]+@'                                   # a password in a URL
    '[Ii]ce-pwd:|\bpwd: "|\b(password|secret|token)(=|: )"?[A-Za-z0-9+/]{8,}' # of ICE, or whatever says what it is
    '[Bb]earer [A-Za-z0-9._-]{3,}|[Aa]uthorization: '              # a header
    '\b(key|salt)(: |=)\[[0-9]+(, [0-9]+){7}|\b(key|salt)(: |=)"?([0-9a-f]{24,}|[A-Za-z0-9+/]{22,}=)' # of a session
    'browser-token|interop-token|an operator.s token'              # words of tests
)

# found FILE…: log lines with a secret in them.
found() {
    local all
    all=$(IFS='|' && echo "${FORMS[*]}")
    # Reports of tests are XML.
    cat "$@" | grep -aE -- "$LINE" | sed 's/&quot;/"/g' | grep -aE -- "$all" || true
}

# What is planted must be found, each by itself, or the search is worth nothing.
planted() {
    local line="2026-01-01T00:00:00.000000Z  INFO strait_control: " secret
    for secret in '-----BEGIN EC PRIVATE KEY-----' \
        'token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJlc2lnbmF0dXJl' \
        'strait-hmac-sha256.61.62.63.64.1700000000.0123456789abcdef0123456789abcdef' \
        'redis://user:hunter2@127.0.0.1:6379' 'a=ice-pwd:abcdefghijklmnop' 'Credentials { pwd: "abc" }' 'Credentials { pwd: &quot;abc&quot; }' \
        'password=correcthorse' 'Authorization: x' 'Bearer dev' 'key: [1, 2, 3, 4, 5, 6, 7, 8, 9]' \
        'salt=0123456789abcdef01234567' 'token browser-token'; do
        [[ $(found <(echo "$line$secret")) ]] || { echo "planted and not found: $secret"; return 1; }
    done
    for secret in 'at redis://127.0.0.1:6379, redis://user:***@host' 'session created; token refused: expired' \
        'key: changed' 'a certificate of its own: sha-256 0123456789abcdef0123456789abcdef'; do
        [[ ! $(found <(echo "$line$secret")) ]] || { echo "found where there is none: $secret"; return 1; }
    done
}

planted
lines=$(cat "$@" | grep -acE -- "$LINE" || true)
((lines > 0)) || { echo "there are no logs to search in: $*"; exit 1; }
if secrets=$(found "$@") && [[ $secrets ]]; then
    echo "secrets in logs:"
    cut -c1-400 <<<"$secrets"
    exit 1
fi
echo "no secret in $lines log lines"
