// The model in a thread of its own, so that the page stays quick while it computes.

import { loadModel } from "./local.js";

let compute = null;

async function answer({ id, labels, image }) {
  if (!labels) return { id, probabilities: await compute(image) };
  compute = await loadModel(labels, (loaded, total) => postMessage({ id, loaded, total }));
  return { id, ready: true };
}

addEventListener("message", async ({ data }) => {
  try {
    postMessage(await answer(data));
  } catch (error) {
    postMessage({ id: data.id, error: error.reason ? { reason: error.reason } : { reason: String(error) } });
  }
});
