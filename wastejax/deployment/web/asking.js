// Who answers: the server that the page came from, or the model that came with it, in a thread of its own.

import { interpret } from "./answers.js";
import { controlled } from "./offline.js";
import { now } from "./words.js";

const TRIES = 4; // of an image, where the server is busy
const LONGEST = 30; // seconds that a busy server is waited for; one that asks for more is not asked again

/**
 * Asks the server that the page came from. Throws { status, reason } where the image is at fault; else { key, detail }:
 * what the page says, and of a busy server the seconds that it asks for as `after`. Between it and the page may be a
 * proxy, which answers in HTML.
 */
export async function askServer(blob, heatmap = now.labels.heatmap) {
  let reply;
  try {
    reply = await fetch(`predict?heatmap=${Number(heatmap)}`, { method: "POST", body: blob });
  } catch {
    // Browsers say the same of a file that is gone, whose size is then 0 so that no part of it would tell.
    await blob.arrayBuffer().catch(() => { throw { reason: "unreadable" }; });
    throw { key: "noServer" };
  }
  const content = await reply.json().catch((error) => {
    if (error instanceof SyntaxError) return null;
    throw { key: "noServer" }; // the connection broke
  });
  if (reply.ok && content?.answers) return content.answers[0];
  throw faultIn(reply, typeof content?.error === "string" ? content.error : "");
}

/** What `askServer` throws; `reason` is the server's own, "" of a proxy. */
function faultIn({ status, headers }, reason) {
  if (status === 503 || status === 429) return { key: "busy", after: Number(headers.get("retry-after")) };
  if (status === 502 || status === 504) return { key: "noServer" };
  // That it takes too long or is too large is said of the image by whoever says it.
  if ([408, 413].includes(status) || (reason && [400, 415].includes(status))) return { status, reason };
  return { key: "serverError", detail: `HTTP ${status}` };
}

/** The same, asked again a few times where the server is busy, as long as `wanted()`. */
export async function askPatiently(blob, wanted) {
  for (let tries = 1; ; tries++) {
    try {
      return await askServer(blob);
    } catch (error) {
      const seconds = error.after || 2 ** (tries - 1);
      if (error.key !== "busy" || tries === TRIES || seconds > LONGEST || !wanted()) throw error;
      await new Promise((done) => setTimeout(done, 1000 * seconds));
    }
  }
}

/**
 * Loads the model; returns { ask, findAll, stop }: `findAll` is null where the model cannot find several objects, `stop`
 * ends its searches, which then throw.
 */
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
  await send({ labels: now.labels, kept: controlled() }, [], showProgress);
  const ask = async (image) => {
    const { probabilities, map } = await send({ image }, image instanceof ImageBitmap ? [image] : []);
    return { ...interpret(probabilities, now.labels), map };
  };
  const findAll = async (image, progress) => (await send({ image, several: true }, [], progress)).regions;
  // A class per object: a multi-label model names what a whole image shows.
  const { onnx, multilabel } = now.labels;
  const stop = () => worker.postMessage({ stop: true });
  return { ask, findAll: onnx.any_side && !multilabel ? findAll : null, stop };
}
