#!/usr/bin/env bash
# Ray 2.60.0: ray.init() of one program makes clusters that are started later refuse programs that name their address
#
# A program calls ray.init() for a cluster of its own machine. Ray writes a token into the home folder (.ray/auth_token),
# which stays. From then on `ray start --head` finds it, and starts every cluster with it. A program that names the
# cluster's address (ray.init(address="HOST:PORT"), or RAY_ADDRESS) does not send the token unless RAY_AUTH_MODE=token is
# set, and is refused after some twenty seconds: "Failed to connect to Ray cluster". Before the first program ran, the
# same two commands worked.
#
# One expects that a program which starts and ends a cluster of its own changes nothing for others.
# Seen when this was written: connected before, RuntimeError or ConnectionError after.
# Ends with 0 as long as this is so, with 1 once it is otherwise.
set -euo pipefail
folder=$(mktemp -d /tmp/rayXXXX)
export HOME="$folder/home" RAY_USAGE_STATS_ENABLED=0
unset RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_AUTH_TOKEN_PATH RAY_ADDRESS
mkdir "$HOME"
python3 -m venv "$folder/venv"
bin="$folder/venv/bin"
"$bin/pip" --quiet --disable-pip-version-check install ray==2.60.0
head=
trap '[ -z "$head" ] || kill "$head" 2> "$folder/killed" || true; wait; rm -rf "$folder"' EXIT
cat > "$folder/connect.py" <<'PYTHON'
import sys

import ray

try:
    ray.init(address=sys.argv[1], log_to_driver=False)
    print("connected")
except Exception as error:
    print(type(error).__name__)
PYTHON
try() {
    "$bin/ray" start --head --block --port "$1" --num-cpus 1 --include-dashboard=false --temp-dir "$folder/$1" \
        --object-store-memory 100000000 > "$folder/log$1" 2>&1 &
    head=$!
    sleep 15
    "$bin/python" "$folder/connect.py" "127.0.0.1:$1" 2> "$folder/said$1" | tail -n 1
    kill "$head"; wait "$head" || true
    head=
}
before=$(try 6411)
"$bin/python" -c 'import ray; ray.init(num_cpus=1, include_dashboard=False, object_store_memory=100000000)' > "$folder/own" 2>&1
[ -f "$HOME/.ray/auth_token" ] && echo "a token is in the home folder"
after=$(try 6412)
echo "before: $before, after: $after"
[ "$before" = connected ] && [ "$after" != connected ] || { echo "otherwise than written above"; exit 1; }
