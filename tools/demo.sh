#!/usr/bin/env bash
# The main job on one machine: a real data set, a trained and judged model, a monitored endpoint.
set -euo pipefail
cd "$(dirname "$0")/.."
longshore=.venv/bin/longshore

stop() {
    if [ -n "${KEEP:-}" ]; then
        echo "The server stays up. End it with: $longshore local stop"
    else
        "$longshore" local stop penguins >/dev/null 2>&1 || true
        echo "The server has been stopped. KEEP=1 make demo leaves it up."
    fi
}
trap stop EXIT

"$longshore" run train_and_deploy --local \
    --set data=examples/data/penguins.csv \
    --set target=species \
    --set name=penguins \
    --set 'thresholds={"accuracy": 0.9, "roc_auc": 0.95}'
