// An answer as an image: the bin's color and sign, the class, the advice and what was seen; handed to the device's own
// way of sharing where it has one, else saved.

import { canvasOf } from "./files.js";
import { lookOf } from "./signs.js";
import { percent, region, say } from "./words.js";

const WIDTH = 1080;
// Heights, from top to bottom.
const HEAD = 240;
const IMAGE = 720;
const TEXT = 390;
const EDGE = 60;
const FONT = 'system-ui, "Noto Sans KR", "Noto Sans CJK KR", "Noto Sans JP", sans-serif';

/** Draws an answer, `words` of `wordsOf`, without its image where the browser cannot read that; returns a JPEG. */
export async function drawAnswer(blob, words) {
  const image = await canvasOf(blob, (width, height) => Math.max(WIDTH / width, IMAGE / height)).catch(() => null);
  const low = HEAD + (image ? IMAGE : 0);
  const canvas = new OffscreenCanvas(WIDTH, low + TEXT);
  const context = canvas.getContext("2d");
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, WIDTH, canvas.height);
  const { color, ink, path } = lookOf(words.bin);
  context.fillStyle = color;
  context.fillRect(0, 0, WIDTH, HEAD);
  drawSign(context, path, ink, EDGE, 60, 120);
  context.fillStyle = ink;
  context.textBaseline = "middle";
  write(context, words.head, { x: 220, y: 120, width: WIDTH - 220 - EDGE, size: 64, weight: 700, lines: 2, middle: true });
  if (image) drawCovering(context, image, HEAD, IMAGE);
  context.fillStyle = "#14180f";
  const line = [words.line, percent(words.probability)].filter(Boolean).join(" · ");
  let y = write(context, line, { x: EDGE, y: low + EDGE, width: WIDTH - 2 * EDGE, size: 48, weight: 600, lines: 2 });
  y = write(context, words.advice, { x: EDGE, y: y + 16, width: WIDTH - 2 * EDGE, size: 38, weight: 400, lines: 3 });
  context.fillStyle = "#4b5563";
  write(context, `${say().region} ${region()}`, { x: EDGE, y: canvas.height - 50, width: WIDTH - 2 * EDGE, size: 30, weight: 400, lines: 1 });
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 });
}

/** Shares or saves it. */
export async function shareImage(blob, words) {
  const file = new File([await drawAnswer(blob, words)], "wastejax.jpg", { type: "image/jpeg" });
  if (navigator.canShare?.({ files: [file] })) {
    try {
      return await navigator.share({ files: [file], title: words.head });
    } catch (error) {
      if (error.name === "AbortError") return; // the reader changed their mind
    }
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = file.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // after the browser has taken it
}

function drawSign(context, path, ink, x, y, side) {
  context.save();
  context.translate(x, y);
  context.scale(side / 24, side / 24);
  Object.assign(context, { strokeStyle: ink, lineWidth: 1.8, lineCap: "round", lineJoin: "round" });
  context.stroke(new Path2D(path));
  context.restore();
}

/** The middle of an image, over the whole width. */
function drawCovering(context, bitmap, y, height) {
  const scale = Math.max(WIDTH / bitmap.width, height / bitmap.height);
  const [wide, high] = [WIDTH / scale, height / scale];
  context.drawImage(bitmap, (bitmap.width - wide) / 2, (bitmap.height - high) / 2, wide, high, 0, y, WIDTH, height);
}

/** Writes text in lines that fit; returns where the next would begin. */
function write(context, text, { x, y, width, size, weight, lines, middle = false }) {
  context.font = `${weight} ${size}px ${FONT}`;
  const found = wrap(text, width, (part) => context.measureText(part).width).slice(0, lines);
  const top = middle ? y - ((found.length - 1) * size * 1.2) / 2 : y;
  for (const [i, line] of found.entries()) context.fillText(line, x, top + i * size * 1.2);
  return top + found.length * size * 1.2;
}

/** Lines no wider than `width`; words are cut only where one alone is wider, as in Japanese. */
export function wrap(text, width, measure) {
  const lines = [];
  let line = "";
  for (const piece of text.split(/(?<=\s)/).flatMap((word) => (measure(word) > width ? [...word] : [word]))) {
    if (line && measure((line + piece).trimEnd()) > width) {
      lines.push(line.trimEnd());
      line = "";
    }
    line += piece;
  }
  return line ? [...lines, line.trimEnd()] : lines;
}
