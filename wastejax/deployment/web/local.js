// The model in the browser: an exported ONNX file, run by ONNX Runtime. Images do not leave the machine.

import { decode, isNearlyBlack, pixelsOf, upright } from "./files.js";
import { findRegions } from "./regions.js";
import { center, margin, resizeSquare } from "./resize.js";

const PACKED = ".gzip";
const GZIP = [0x1f, 0x8b];

/**
 * Loads the model of labels.json. Returns { answer, regions }: of an image, a blob or a bitmap, its probabilities and its
 * class map (null where the file has none), and the objects in it, see `findRegions`.
 * `kept`: whether our service worker answers, which has the files unpacked.
 * `progress` is called with the bytes loaded and those in all, 0 where the host does not say.
 */
export async function loadModel(labels, kept = false, progress = () => {}) {
  const files = [`./${labels.onnx.file}`, "./ort/ort-wasm-simd-threaded.wasm.gzip"];
  const [ort, [model, wasm]] = await Promise.all([
    import("./ort/ort.wasm.min.mjs"),
    download(kept ? [files[0].slice(0, -PACKED.length)] : files, progress),
  ]);
  ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  // Where it is unpacked, ONNX Runtime fetches it: the browser compiles what it fetches once for all visits.
  if (wasm) ort.env.wasm.wasmBinary = wasm.buffer;
  ort.env.wasm.numThreads = 1; // more would need headers that plain web hosts do not send
  const session = await ort.InferenceSession.create(model);
  const [probabilities, classMap] = session.outputNames;

  async function run(pixels, height, width) {
    const bytes = labels.onnx.input === "uint8";
    const data = bytes ? pixels : normalize(pixels, labels.preprocessing);
    const input = new ort.Tensor(bytes ? "uint8" : "float32", data, [1, height, width, 3]);
    const output = await session.run({ [session.inputNames[0]]: input });
    return {
      probabilities: Array.from(output[probabilities].data),
      map: classMap ? mapOf(output[classMap]) : null,
    };
  }

  async function answer(image) {
    const size = labels.preprocessing.image_size;
    return run(await squareOf(image, labels.preprocessing), size, size);
  }

  async function regions(image, whenDone, wanted) {
    const { bitmap, orientation } = await decode(image);
    const whole = orientation === 1 ? bitmap : upright(bitmap, orientation);
    const onCanvas = (canvas) => run(rgbOf(canvas), canvas.height, canvas.width);
    const network = {
      probabilities: async (canvas) => (await onCanvas(canvas)).probabilities,
      classMap: async (canvas) => (await onCanvas(canvas)).map,
    };
    return findRegions(whole, network, labels.preprocessing.image_size, labels.onnx.regions, whenDone, wanted);
  }

  return { answer, regions };
}

function mapOf({ data, dims: [, height, width, classes] }) {
  return { data, height, width, classes };
}

function rgbOf(canvas) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const pixels = new Uint8Array((data.length / 4) * 3);
  for (let i = 0, j = 0; i < data.length; i += 4) {
    pixels[j++] = data[i];
    pixels[j++] = data[i + 1];
    pixels[j++] = data[i + 2];
  }
  return pixels;
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
    const { value: first } = await reader.read();
    const pass = (controller, part) => {
      controller.enqueue(part);
      progress(loaded += part.length, total);
    };
    const bytes = new ReadableStream({
      start: (controller) => pass(controller, first),
      pull: async (controller) => {
        const { done, value } = await reader.read();
        if (done) controller.close();
        else pass(controller, value);
      },
    });
    // A host that says that the file is encoded has had the browser unpack it.
    const packed = first[0] === GZIP[0] && first[1] === GZIP[1];
    const plain = packed ? bytes.pipeThrough(new DecompressionStream("gzip")) : bytes;
    return new Uint8Array(await new Response(plain).arrayBuffer());
  }));
}

/** The square that the model sees: RGB bytes, as Python's `Preprocessing` makes them. */
export async function squareOf(image, preprocessing) {
  const decoded = image instanceof ImageBitmap ? { bitmap: image, orientation: 1, deep: false } : await decode(image);
  const { bitmap, orientation, deep } = decoded;
  const [width, height] = orientation < 5 ? [bitmap.width, bitmap.height] : [bitmap.height, bitmap.width];
  const { image_size: size, interpolation } = preprocessing;
  const box = center(width, height, preprocessing);
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

function normalize(pixels, { mean, std, channels }) {
  const order = channels === "bgr" ? [2, 1, 0] : [0, 1, 2];
  return Float32Array.from(pixels, (_, i) => {
    const c = order[i % 3];
    return pixels[i - (i % 3) + c] / 255 / std[c] - mean[c] / std[c];
  });
}
