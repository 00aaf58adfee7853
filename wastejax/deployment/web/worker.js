// The model in a thread of its own, so that the page stays quick while it computes.

import { loadModel } from "./local.js";

let model = null;

async function answer({ id, labels, kept, image, several }) {
  const progress = (...steps) => postMessage({ id, progress: steps });
  if (labels) {
    model = await loadModel(labels, kept, progress);
    return { id };
  }
  return several ? { id, regions: await model.regions(image, progress) } : { id, ...(await model.answer(image)) };
}

addEventListener("message", async ({ data }) => {
  try {
    postMessage(await answer(data));
  } catch (error) {
    postMessage({ id: data.id, error: { reason: error.reason ?? String(error) } });
  }
});
