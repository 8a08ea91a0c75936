#!/usr/bin/env bash
# Prunes once, for those who run the pruner from cron instead of inside the server.
#
#   scripts/cron-prune.sh [CONFIG]
#
# CONFIG     the server's configuration; else $PRUNE_CONFIG, else /etc/jumar/config.toml
# PRUNE_BIN  the binary; else `jumar` from the PATH
# PRUNE_LOCK the lock file; else jumar-prune.lock in $XDG_RUNTIME_DIR, /run/lock or /tmp
#
# A run that is still busy when the next one is due makes that one leave at once. Pruning is safe beside running servers
# and beside other pruners; the lock only saves the work. Every run writes one line, with its exit code and its seconds.
#
# Exit code: that of `jumar prune`; 0 if another run was busy; 2 if there is no such configuration.
#
# Every hour at 17 past, as the user that runs the server, into the system's log:
#
#   17 * * * *  jumar  /usr/local/bin/cron-prune.sh /etc/jumar/config.toml 2>&1 | logger -t jumar-prune
set -euo pipefail

config="${1:-${PRUNE_CONFIG:-/etc/jumar/config.toml}}"
binary="${PRUNE_BIN:-jumar}"

log() { printf '%s jumar-prune: %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*"; }

if [[ ! -r "$config" ]]; then
  log "code=2 no configuration at $config" >&2
  exit 2
fi

if [[ -z "${PRUNE_LOCK:-}" ]]; then
  PRUNE_LOCK=/tmp/jumar-prune.lock
  for folder in "${XDG_RUNTIME_DIR:-}" /run/lock; do
    if [[ -n "$folder" && -w "$folder" ]]; then
      PRUNE_LOCK="$folder/jumar-prune.lock"
      break
    fi
  done
fi

exec 9>>"$PRUNE_LOCK"
if ! flock --nonblock 9; then
  log "code=0 another run is busy, left"
  exit 0
fi

begun=$SECONDS
code=0
"$binary" prune --config "$config" 9>&- || code=$?
log "code=$code seconds=$((SECONDS - begun))"
exit "$code"
