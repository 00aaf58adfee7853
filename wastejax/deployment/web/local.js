// The model in the browser: an exported ONNX file, run by ONNX Runtime. Pictures do not leave the machine.

import { decode, isNearlyBlack, pixelsOf } from "./files.js";
import { centre, margin, resizeSquare } from "./resize.js";

/** Loads the model of labels.json; returns a function of a picture's blob that gives its probabilities. */
export async function loadModel(labels) {
  const ort = await import("./ort/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  ort.env.wasm.numThreads = 1; // more would need headers that plain web hosts do not send
  const session = await ort.InferenceSession.create(labels.onnx.file);
  return async (blob) => {
    const pixels = await squareOf(blob, labels.preprocessing);
    const size = labels.preprocessing.image_size;
    const bytes = labels.onnx.input === "uint8";
    const data = bytes ? pixels : normalise(pixels, labels.preprocessing);
    const input = new ort.Tensor(bytes ? "uint8" : "float32", data, [1, size, size, 3]);
    const output = await session.run({ [session.inputNames[0]]: input });
    return Array.from(output[session.outputNames[0]].data);
  };
}

/** The square that the model sees: RGB bytes, as Python's `Preprocessing` makes them. */
export async function squareOf(blob, preprocessing) {
  const { bitmap, orientation, deep } = await decode(blob);
  const upright = orientation < 5 ? bitmap : { width: bitmap.height, height: bitmap.width };
  const { width, height } = upright;
  const { image_size: size, interpolation } = preprocessing;
  const box = centre(width, height, preprocessing);
  const extra = margin(box.side, size, interpolation);
  const x0 = Math.max(0, Math.floor(box.left) - extra);
  const y0 = Math.max(0, Math.floor(box.top) - extra);
  const columns = Math.min(width, Math.ceil(box.left + box.side) + extra) - x0;
  const rows = Math.min(height, Math.ceil(box.top + box.side) + extra) - y0;
  const data = pixelsOf(bitmap, orientation, x0, y0, columns, rows);
  bitmap.close();
  if (deep && isNearlyBlack(data)) throw { reason: "16 bits" };
  return resizeSquare({ data, columns, x0, y0 }, width, height, box, size, interpolation);
}

function normalise(pixels, { mean, std, channels }) {
  const order = channels === "bgr" ? [2, 1, 0] : [0, 1, 2];
  return Float32Array.from(pixels, (_, i) => {
    const c = order[i % 3];
    return pixels[i - (i % 3) + c] / 255 / std[c] - mean[c] / std[c];
  });
}

/** What probabilities say, in the form that the server answers in. */
export function interpret(probabilities, { classes, reject_below: least }) {
  const best = probabilities.map((_, i) => i).sort((a, b) => probabilities[b] - probabilities[a]);
  const top = best.slice(0, 3).map((i) => ({
    class: classes[i].name,
    bin: classes[i].bin,
    probability: probabilities[i],
  }));
  return { rejected: least === null || !(top[0].probability >= least), top };
}
