// The model in the browser: an exported ONNX file, run by ONNX Runtime. Images do not leave the machine.

import { decode, isNearlyBlack, pixelsOf } from "./files.js";
import { centre, margin, resizeSquare } from "./resize.js";

const GZIP = [0x1f, 0x8b];

/**
 * Loads the model of labels.json; returns a function of an image, a blob or a bitmap, that gives its probabilities.
 * `progress` is called with the bytes loaded and those in all, 0 where the host does not say.
 */
export async function loadModel(labels, progress = () => {}) {
  const [ort, [wasm, model]] = await Promise.all([
    import("./ort/ort.wasm.min.mjs"),
    download(["./ort/ort-wasm-simd-threaded.wasm.gzip", `./${labels.onnx.file}`], progress),
  ]);
  ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  ort.env.wasm.wasmBinary = wasm.buffer;
  ort.env.wasm.numThreads = 1; // more would need headers that plain web hosts do not send
  const session = await ort.InferenceSession.create(model);
  return async (image) => {
    const pixels = await squareOf(image, labels.preprocessing);
    const size = labels.preprocessing.image_size;
    const bytes = labels.onnx.input === "uint8";
    const data = bytes ? pixels : normalise(pixels, labels.preprocessing);
    const input = new ort.Tensor(bytes ? "uint8" : "float32", data, [1, size, size, 3]);
    const output = await session.run({ [session.inputNames[0]]: input });
    return Array.from(output[session.outputNames[0]].data);
  };
}

async function download(files, progress) {
  const replies = await Promise.all(files.map((file) => fetch(new URL(file, import.meta.url))));
  for (const reply of replies) if (!reply.ok) throw new Error(`${reply.url}: ${reply.status}`);
  // The length of what is compressed on the way says nothing of what arrives.
  const lengths = replies.map(({ headers }) => headers.has("content-encoding") ? 0 : Number(headers.get("content-length")));
  const total = lengths.every(Boolean) ? lengths.reduce((a, b) => a + b) : 0;
  let loaded = 0;
  return Promise.all(replies.map(async (reply) => {
    const reader = reply.body.getReader();
    const chunks = [];
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      chunks.push(part.value);
      progress(loaded += part.value.length, total);
    }
    return unpacked(new Blob(chunks));
  }));
}

/** The bytes of a file that may still be compressed: a host that sends it as encoded had the browser unpack it. */
async function unpacked(blob) {
  const start = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  const stream = blob.stream();
  const packed = start[0] === GZIP[0] && start[1] === GZIP[1];
  const plain = packed ? stream.pipeThrough(new DecompressionStream("gzip")) : stream;
  return new Uint8Array(await new Response(plain).arrayBuffer());
}

/** The square that the model sees: RGB bytes, as Python's `Preprocessing` makes them. */
export async function squareOf(image, preprocessing) {
  const decoded = image instanceof ImageBitmap ? { bitmap: image, orientation: 1, deep: false } : await decode(image);
  const { bitmap, orientation, deep } = decoded;
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
