// Who answers: the server that the page came from, or the model that came with it, in a thread of its own.

import { interpret } from "./answers.js";
import { now } from "./words.js";

/** Asks the server that the page came from. */
export async function askServer(blob, heatmap = now.labels.heatmap) {
  let reply;
  try {
    reply = await fetch(`predict?heatmap=${Number(heatmap)}`, { method: "POST", body: blob });
  } catch {
    throw { key: "noServer" };
  }
  if (reply.status === 503) throw { key: "busy" };
  const content = await reply.json();
  if (!reply.ok) throw { status: reply.status, reason: content.error };
  return content.answers[0];
}

/** Loads the model; returns { ask, findAll }, the latter null where the file cannot find several objects. */
export async function localModel(showProgress) {
  const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  const waiting = new Map();
  const send = (content, transfer = [], progress = () => {}) => new Promise((done, fail) => {
    const id = waiting.size ? Math.max(...waiting.keys()) + 1 : 1;
    waiting.set(id, { done, fail, progress });
    worker.postMessage({ id, ...content }, transfer);
  });
  worker.addEventListener("message", ({ data: { id, error, progress: steps, ...rest } }) => {
    const { done, fail, progress } = waiting.get(id);
    if (steps) return progress(...steps);
    waiting.delete(id);
    if (error) fail(error);
    else done(rest);
  });
  worker.addEventListener("error", (event) => {
    for (const { fail } of waiting.values()) fail({ reason: event.message });
  });
  await send({ labels: now.labels, kept: Boolean(navigator.serviceWorker?.controller) }, [], showProgress);
  const ask = async (image) => {
    const { probabilities, map } = await send({ image }, image instanceof ImageBitmap ? [image] : []);
    return { ...interpret(probabilities, now.labels), map };
  };
  const findAll = async (image, progress) => (await send({ image, several: true }, [], progress)).regions;
  return { ask, findAll: now.labels.onnx.any_side ? findAll : null };
}
