#!/bin/sh
# onnxruntime-web 1.30.0 (WebAssembly, one thread, as on pages without cross-origin isolation): session.run() returns a
# promise, but computes before it returns and settles in microtasks alone. A loop that awaits one run after the other
# therefore never lets the event loop turn: a timer that is due at once fires after the last of 50 runs, and a worker
# that classifies the tiles of an image so does not see a message, such as one to stop, before all of them are done. A
# zero timeout awaited between the runs lets it through after the first.
# Exits with 0 as long as that is so. Needs node and npm.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts onnxruntime-web@1.30.0 >/dev/null
cat >run.mjs <<'END'
import * as ort from "onnxruntime-web/wasm";

ort.env.wasm.numThreads = 1;
// y = x x, a graph of one MatMul in ONNX IR 8
const graph = "CAgSADo4ChEKAXgKAXgSAXkiBk1hdE11bBIBZ1oPCgF4EgoKCAgBEgQKAAoAYg8KAXkSCgoICAESBAoACgBCBAoAEA0=";
const session = await ort.InferenceSession.create(Buffer.from(graph, "base64"));
const x = new ort.Tensor("float32", new Float32Array(200 * 200).fill(0.001), [200, 200]);
await session.run({ x });

async function runsBeforeTimer(between) {
  await new Promise((done) => setTimeout(done, 50));
  let finished = 0;
  const fired = new Promise((done) => setTimeout(() => done(finished), 0));
  while (finished < 50) {
    await session.run({ x });
    finished += 1;
    await between();
  }
  return fired;
}

const alone = await runsBeforeTimer(() => {});
const yielding = await runsBeforeTimer(() => new Promise((done) => setTimeout(done, 0)));
console.log(`a timer due at once fired after ${alone} of 50 awaited runs; with a zero timeout between, after ${yielding}`);
process.exit(alone === 50 && yielding === 1 ? 0 : 1);
END
node run.mjs
