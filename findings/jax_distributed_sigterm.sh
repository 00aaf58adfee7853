#!/bin/sh
# jax 0.10.2 and 0.12.0: jax.distributed.initialize() takes SIGTERM away from the program without a word. A handler that
# was set before with signal.signal is not called any more, though signal.getsignal still names it, and the process does
# not end either: only jax.experimental.multihost_utils.reached_preemption_sync_point learns of the signal. A training
# that saves and stops on SIGTERM goes on to its end where it runs in several processes, and Orbax, which asks, only
# saves once more. With jax_enable_preemption_service=False, or a handler set after initialize(), all is as without it.
# Exits with 0 as long as that is so.
set -eu
found=
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "jax==0.10.2; python_version < '3.12'" "jax==0.12.0; python_version >= '3.12'"
cat >"$folder/run.py" <<'END'
import os
import signal
import socket
import sys
import time

import jax

heard = []


def hear(number, frame):
    heard.append(number)


with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
if sys.argv[1] == "before":
    signal.signal(signal.SIGTERM, hear)
jax.config.update("jax_enable_preemption_service", sys.argv[2] == "on")
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=1, process_id=0)
if sys.argv[1] == "after":
    signal.signal(signal.SIGTERM, hear)
assert signal.getsignal(signal.SIGTERM) is hear
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(1)
print("heard" if heard else "not heard")
END
cd "$folder"
for case in "before on" "before off" "after on"; do
    found="$found$(JAX_PLATFORMS=cpu venv/bin/python run.py $case 2>>log), "
done
echo "${found%, }"
test "$found" = "not heard, heard, heard, "
echo "jax.distributed.initialize takes SIGTERM from the handler that was there, unless its preemption service is off"
