// The model in the browser: an exported ONNX file, run by ONNX Runtime. Pictures do not leave the machine.

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
  const bitmap = await createImageBitmap(blob, {
    imageOrientation: "from-image",
    colorSpaceConversion: "none",
    premultiplyAlpha: "none",
  });
  const { width, height } = bitmap;
  const { image_size: size, interpolation } = preprocessing;
  const box = centre(width, height, preprocessing);
  const extra = margin(box.side, size, interpolation);
  const x0 = Math.max(0, Math.floor(box.left) - extra);
  const y0 = Math.max(0, Math.floor(box.top) - extra);
  const columns = Math.min(width, Math.ceil(box.left + box.side) + extra) - x0;
  const rows = Math.min(height, Math.ceil(box.top + box.side) + extra) - y0;
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, columns, rows);
  context.drawImage(bitmap, -x0, -y0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, columns, rows);
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
