#!/usr/bin/env bash
# Writes .env for docker-compose.yml with fresh secrets: a token for the API (only its digest goes to the instances), passwords for
# Postgres and Grafana. It never touches a .env that is there.
set -euo pipefail
cd "$(dirname "$0")/.."
to=${1:-.env}
if [ -e "$to" ]; then
  echo "$to is there already; nothing changed"
  exit 0
fi
secret() { head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \n'; }
token=mgv_$(secret)
digest=$(printf %s "$token" | sha256sum | cut -d' ' -f1)
umask 077
cat >"$to.new" <<END
# Written by \`make env\`. Keep it to yourself: it is not in git. Settings: .env.example.
# Callers show this: curl -H "Authorization: Bearer \$MANGROVE_TOKEN" localhost:8000/v1/health
MANGROVE_TOKEN=$token
# What the instances know of it.
API_TOKENS=owner:query+write+erase+admin:$digest
POSTGRES_PASSWORD=$(secret)
GRAFANA_PASSWORD=$(secret)
END
mv -n "$to.new" "$to"
echo "wrote $to: the API's token is MANGROVE_TOKEN, the password of Grafana's admin GRAFANA_PASSWORD"
