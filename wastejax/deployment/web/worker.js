// The model in a thread of its own, so that the page stays quick while it computes.

import { loadModel } from "./local.js";

let model = null;
let stops = 0; // how often the page has said that it wants no search any more
let searches = Promise.resolve(); // for objects, one after the other; single answers come between their steps

function search(image, progress) {
  const mine = stops;
  const found = searches.then(() => model.regions(image, progress, () => mine === stops));
  searches = found.catch(() => {});
  return found;
}

async function answer({ id, labels, kept, image, several }) {
  const progress = (...steps) => postMessage({ id, progress: steps });
  if (labels) {
    model = await loadModel(labels, kept, progress);
    return { id };
  }
  return several ? { id, regions: await search(image, progress) } : { id, ...(await model.answer(image)) };
}

addEventListener("message", async ({ data }) => {
  if (data.stop) {
    stops++; // nobody waits for an answer
    return;
  }
  try {
    postMessage(await answer(data));
  } catch (error) {
    postMessage({ id: data.id, error: { reason: error.reason ?? String(error) } });
  }
});
