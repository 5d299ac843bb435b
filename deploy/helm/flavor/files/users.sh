# Writes the users of the chart into Redis's file of users, and keeps those that `flavor enroll` has added.
set -eu
umask 077
cd "$1"
made='^user (default|flavor-worker:chart|flavor-viewer:chart|flavor-keda) '
{
    while read -r name key rules; do
        secret=$(cat "/run/secrets/flavor-redis/$key")
        [ -n "$secret" ] || { echo "the key $key of the Secret is empty" >&2; exit 1; }
        printf 'user %s on #%s %s\n' "$name" "$(printf %s "$secret" | sha256sum | cut -d ' ' -f 1)" "$rules"
    done < /etc/flavor-redis/users
    if [ -e users.acl ]; then grep -vE "$made" users.acl || true; fi
} > users.acl.new
mv users.acl.new users.acl
