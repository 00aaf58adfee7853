// Several objects in one image, as Python's `wastejax.deployment.regions` finds them: boxes around what stands out in
// the class maps, each classified like an image of its own, of which those stay that do not overlap. Boxes are
// [left, top, right, bottom]. Images are resized by the browser here, so that probabilities differ a little.

import { roundHalfEven } from "./resize.js";

const STEP = 64; // pixels: sides that the network takes
const FINER = 4; // positions are interpolated this many times before boxes are drawn around them
const SMALLEST = 0.03; // of the longer side of the image: less is no object
const FLAT = 3; // gray levels, standard deviation in each channel: an empty table or sky
const LARGEST = 2048; // pixels of the longer side: no crop needs more
const LOOKED = 512; // the same for `isFlat`

/**
 * Finds objects.
 *
 * bitmap: the image.
 * network: { probabilities(canvas), classMap(canvas) }, both promises; a class map is { data, height, width, classes }.
 * settings: of labels.json, Python's `Settings`.
 * progress: called with how many boxes are looked at, and of how many.
 * wanted: asked after each run of the network, which leaves no room for anything else in its thread; once it says no,
 *   { reason: "stopped" } is thrown.
 * Returns [{ index, probability, box }], the surest first; boxes in shares of the image.
 */
export async function findRegions(bitmap, network, size, settings, progress = () => {}, wanted = () => true) {
  const others = async () => {
    await new Promise((done) => setTimeout(done)); // ONNX Runtime leaves no time for messages by itself
    if (!wanted()) throw { reason: "stopped" };
  };
  const scale = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  const image = drawn(bitmap, [0, 0, bitmap.width, bitmap.height], bitmap.width * scale, bitmap.height * scale);
  const { width, height } = image;
  // A long strip is itself lower than this share of its length.
  const least = Math.min(SMALLEST * Math.max(width, height), width, height);
  let boxes = [];
  for (const times of settings.scales) {
    const sides = shownSides(bitmap, times, size);
    const map = await network.classMap(drawn(image, [0, 0, width, height], ...sides));
    await others();
    const some = propose(map, settings.levels, settings.prominence)
      .map(([l, t, r, b]) => [l * width, t * height, r * width, b * height])
      .filter(([l, t, r, b]) => Math.min(r - l, b - t) >= least);
    boxes.push(...distinct(some));
  }
  boxes = distinct(boxes.filter((box) => !isFlat(image, box)));
  const found = [];
  for (const [i, box] of boxes.entries()) {
    progress(i, boxes.length);
    const row = await network.probabilities(drawn(image, surroundings(box, width, height, settings.margin), size, size));
    const index = row.indexOf(Math.max(...row));
    found.push({ index, probability: row[index], box });
    await others();
  }
  return choose(found, width * height, settings)
    .map((one) => ({ ...one, box: one.box.map((x, i) => x / (i % 2 ? height : width)) }))
    .sort((a, b) => b.probability - a.probability);
}

/** The sides at which the network is shown a whole image, as Python's `shown_sides` gives them to the pixel. */
export function shownSides({ width, height }, times, size) {
  const longer = (times * size) / Math.max(width, height);
  return [width, height].map((side) => Math.max(STEP, STEP * roundHalfEven((longer * side) / STEP)));
}

/** A part of an image, resized. */
function drawn(image, [left, top, right, bottom], width, height) {
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(width)), Math.max(1, Math.round(height)));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, left, top, right - left, bottom - top, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** Whether a box shows one even ground: a classifier that knows no "nothing" is sure of it. */
function isFlat(image, [left, top, right, bottom]) {
  const scale = Math.min(1, LOOKED / Math.max(image.width, image.height));
  const canvas = drawn(image, [left, top, right, bottom], (right - left) * scale, (bottom - top) * scale);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const count = data.length / 4;
  return [0, 1, 2].every((c) => {
    let sum = 0;
    let squares = 0;
    for (let i = c; i < data.length; i += 4) {
      sum += data[i];
      squares += data[i] ** 2;
    }
    return Math.sqrt(Math.max(0, squares / count - (sum / count) ** 2)) < FLAT;
  });
}

/** Boxes around what stands out in a class map, in shares of the image: of all classes, and of each prominent one. */
export function propose({ data, height, width, classes }, levels, prominence) {
  const positions = height * width;
  const maps = Array.from({ length: classes }, () => new Float32Array(positions));
  const strongest = new Float32Array(positions).fill(-Infinity);
  for (let p = 0; p < positions; p++) {
    let mean = 0; // what lifts all classes alike changes no probability
    for (let c = 0; c < classes; c++) mean += data[p * classes + c] / classes;
    for (let c = 0; c < classes; c++) {
      maps[c][p] = data[p * classes + c] - mean;
      strongest[p] = Math.max(strongest[p], maps[c][p]);
    }
  }
  const peaks = maps.map((map) => map.reduce((a, b) => Math.max(a, b)));
  const most = Math.max(...peaks);
  const prominent = maps.filter((_, c) => peaks[c] >= prominence * most && peaks[c] > 0);
  return [strongest, ...prominent].flatMap((map) => {
    if (map.reduce((a, b) => Math.max(a, b)) <= 0) return [];
    const smooth = finer(map, height, width);
    return levels.flatMap((level) => components(smooth, FINER * height, FINER * width, level));
  });
}

/** A map interpolated between its positions, linearly. */
function finer(map, height, width) {
  const out = new Float32Array(FINER * height * FINER * width);
  const at = (i, length) => {
    const x = (i + 0.5) / FINER - 0.5;
    const low = Math.floor(x);
    return [Math.max(0, low), Math.min(length - 1, low + 1), x - low];
  };
  for (let y = 0; y < FINER * height; y++) {
    const [top, bottom, down] = at(y, height);
    for (let x = 0; x < FINER * width; x++) {
      const [left, right, across] = at(x, width);
      const row = (r) => map[r * width + left] * (1 - across) + map[r * width + right] * across;
      out[y * FINER * width + x] = row(top) * (1 - down) + row(bottom) * down;
    }
  }
  return out;
}

/** Boxes of connected positions above a share of the largest value, in shares of the map, in reading order. */
function components(map, height, width, level) {
  const least = level * map.reduce((a, b) => Math.max(a, b));
  const open = Uint8Array.from(map, (value) => Number(value >= least));
  const boxes = [];
  for (let start = 0; start < open.length; start++) {
    if (!open[start]) continue;
    const box = [width, height, 0, 0];
    const waiting = [start];
    open[start] = 0;
    while (waiting.length) {
      const p = waiting.pop();
      const [x, y] = [p % width, Math.floor(p / width)];
      box[0] = Math.min(box[0], x);
      box[1] = Math.min(box[1], y);
      box[2] = Math.max(box[2], x + 1);
      box[3] = Math.max(box[3], y + 1);
      const around = [x > 0 && p - 1, x + 1 < width && p + 1, y > 0 && p - width, y + 1 < height && p + width];
      for (const next of around) {
        if (next === false || !open[next]) continue;
        open[next] = 0;
        waiting.push(next);
      }
    }
    boxes.push([box[0] / width, box[1] / height, box[2] / width, box[3] / height]);
  }
  return boxes;
}

/** A box with a margin, widened to a square and moved into the image; cut where it is too large. */
export function surroundings([left, top, right, bottom], width, height, margin) {
  const side = (1 + 2 * margin) * Math.max(right - left, bottom - top);
  const [[x0, x1], [y0, y1]] = [[left, right, width], [top, bottom, height]].map(([low, high, whole]) => {
    const length = Math.min(Math.max(side, high - low), whole);
    const start = Math.min(Math.max((low + high - length) / 2, 0), whole - length);
    return [start, start + length];
  });
  return [x0, y0, x1, y1];
}

/** Of what was found, what stays, best first: a whole object wins against its own surest part. */
export function choose(found, area, { growth, overlap, least }) {
  const score = ({ probability, box }) => probability * (areaOf(box) / area) ** growth;
  const kept = [];
  for (const one of [...found].sort((a, b) => score(b) - score(a))) {
    if (one.probability < least) continue;
    const clear = kept.every(({ box }) => shared(one.box, box) <= overlap * Math.min(areaOf(one.box), areaOf(box)));
    if (clear) kept.push(one);
  }
  return kept;
}

/** Boxes none of which is nearly the same as an earlier one. */
export function distinct(boxes, same = 0.8) {
  const kept = [];
  for (const box of boxes) {
    const common = (other) => shared(box, other) / (areaOf(box) + areaOf(other) - shared(box, other));
    if (kept.every((other) => common(other) <= same)) kept.push(box);
  }
  return kept;
}

const areaOf = ([left, top, right, bottom]) => (right - left) * (bottom - top);

function shared(one, other) {
  const across = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const down = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  return Math.max(0, across) * Math.max(0, down);
}
