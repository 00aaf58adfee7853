// What is drawn on an image: what speaks for its class, and the boxes of several objects.

import { canvasOf } from "./files.js";
import { center } from "./resize.js";
import { lookOf } from "./signs.js";

const LARGEST = 800; // pixels of the longer side
const UNSEEN = 0.65; // darkness of what the network is not shown
const OPACITY = 0.7; // where the evidence is largest; none where there is none
// Matplotlib's 'inferno' (van der Walt & Smith 2015, CC0) at equal steps, as in Python's heat maps.
const COLORS = [
  [0, 0, 4], [51, 10, 95], [120, 28, 109], [188, 55, 84], [237, 105, 37], [251, 180, 26], [252, 255, 164],
];

/**
 * How much each position of a class map speaks for a class, 0 to 1: rather than for the average one, or by itself where
 * an image shows `several` classes, each with a probability of its own.
 */
export function evidence({ data, height, width, classes }, index, several = false) {
  const heat = Float32Array.from({ length: height * width }, (_, p) => {
    const row = data.subarray(p * classes, (p + 1) * classes);
    const common = several ? 0 : row.reduce((sum, value) => sum + value, 0) / classes;
    return Math.max(0, row[index] - common);
  });
  const most = Math.max(heat.reduce((a, b) => Math.max(a, b)), 1e-12);
  return heat.map((value) => value / most);
}

/**
 * Draws an image with the evidence for a class laid over the square that the network saw; returns a JPEG. The rest is
 * of labels.json.
 */
export async function drawHeatMap(blob, map, index, { preprocessing, multilabel }) {
  const { canvas, context } = await copy(blob);
  const { left, top, side } = center(canvas.width, canvas.height, preprocessing);
  const pixels = evidence(map, index, multilabel).reduce((all, share) => [...all, ...colorOf(share)], []);
  const small = new OffscreenCanvas(map.width, map.height);
  small.getContext("2d").putImageData(new ImageData(Uint8ClampedArray.from(pixels), map.width, map.height), 0, 0);
  context.fillStyle = `rgb(0 0 0 / ${UNSEEN})`;
  context.beginPath();
  context.rect(0, 0, canvas.width, canvas.height);
  context.rect(left, top, side, side);
  context.fill("evenodd");
  context.imageSmoothingQuality = "high";
  context.drawImage(small, left, top, side, side);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 });
}

function colorOf(share) {
  const at = share * (COLORS.length - 1);
  const low = Math.min(COLORS.length - 2, Math.floor(at));
  const mixed = COLORS[low].map((value, c) => value + (at - low) * (COLORS[low + 1][c] - value));
  return [...mixed, 255 * OPACITY * share];
}

/** Draws an image with numbered boxes in the colors of their bins, [{ box, bin }]; returns a JPEG. */
export async function drawBoxes(blob, regions) {
  const { canvas, context } = await copy(blob);
  const line = Math.max(3, Math.round(Math.max(canvas.width, canvas.height) / 160));
  context.lineWidth = line;
  context.font = `700 ${6 * line}px system-ui, sans-serif`;
  context.textBaseline = "top";
  for (const [i, { box, bin }] of regions.entries()) {
    const { color, ink } = lookOf(bin);
    const [left, top, right, bottom] = box.map((x, at) => x * (at % 2 ? canvas.height : canvas.width));
    context.strokeStyle = color;
    context.strokeRect(left, top, right - left, bottom - top);
    const label = String(i + 1);
    context.fillStyle = color;
    context.fillRect(left, top, context.measureText(label).width + 4 * line, 8 * line);
    context.fillStyle = ink;
    context.fillText(label, left + 2 * line, top + line);
  }
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 });
}

/** A canvas with the image, no larger than need be. */
async function copy(blob) {
  const canvas = await canvasOf(blob, (width, height) => LARGEST / Math.max(width, height));
  return { canvas, context: canvas.getContext("2d") };
}
