// From a file to pixels as Python's `images.decode` reads them, where browsers leave something undone: the orientation
// in a WebP, and files that lack only their end.

const JPEG_END = [0xff, 0xd9];
const PNG_END = [0, 0, 0, 0, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82];
const CRCS = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});
// What takes the stored image upright: [a, b, c, d] of x' = a x + c y, y' = b x + d y (EXIF 2.3, Orientation).
const UPRIGHT = [
  null, [1, 0, 0, 1], [-1, 0, 0, 1], [-1, 0, 0, -1], [1, 0, 0, -1], [0, 1, 1, 0], [0, 1, -1, 0], [0, -1, -1, 0],
  [0, -1, 1, 0],
];
// A lossless WebP of 2 x 1 pixels whose EXIF says that it stands on its side.
const TURNED = "UklGRk4AAABXRUJQVlA4WAoAAAAIAAAAAQAAAAAAVlA4TA4AAAAvAQAAAAcQEf0PRET/A0VYSUYaAAAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAA=";

/**
 * Decodes an image.
 *
 * Returns its bitmap, the orientation (1 to 8) that the browser has left to do, and whether it has 16 bits a sample.
 */
export async function decode(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const [bitmap, other] = await Promise.all(endings(bytes).map(bitmapOf));
  if (other && !samePixels(bitmap, other)) throw { reason: "truncated" };
  other?.close();
  return { bitmap, orientation: await orientationLeft(bytes), deep: isPng(bytes) && bytes[24] === 16 };
}

/** The file as browsers read it: with an end, where it lacks only that. */
export async function mended(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const [whole] = endings(bytes);
  return whole === bytes ? blob : new Blob([whole]);
}

/**
 * Decodes an image to be looked at: a canvas with it, upright and on white, at the scale that `scaleOf` gives for its
 * width and height, 1 at most. Throws where the browser cannot read it, which a server may be able to.
 */
export async function canvasOf(blob, scaleOf) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const bitmap = await bitmapOf(endings(bytes)[0]);
  const canvas = upright(bitmap, await orientationLeft(bytes), scaleOf);
  bitmap.close();
  return canvas;
}

/** The same of a bitmap whose orientation is left to do. */
export function upright(bitmap, orientation, scaleOf = () => 1) {
  const [width, height] = sidesOf(bitmap, orientation);
  const scale = Math.min(1, scaleOf(width, height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  draw(canvas.getContext("2d"), bitmap, orientation, 0, 0, canvas.width / width, canvas.height / height);
  return canvas;
}

/** RGBA bytes of a part of the upright image, on white. */
export function pixelsOf(bitmap, orientation, x0, y0, columns, rows) {
  const canvas = new OffscreenCanvas(columns, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  draw(context, bitmap, orientation, x0, y0);
  return context.getImageData(0, 0, columns, rows).data;
}

/** Fills a canvas with a bitmap from (x0, y0) of the upright image on, in units of `wide` x `high` pixels. */
function draw(context, bitmap, orientation, x0, y0, wide = 1, high = 1) {
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, context.canvas.width, context.canvas.height);
  const [a, b, c, d] = UPRIGHT[orientation];
  const [width, height] = sidesOf(bitmap, orientation);
  const right = a + c < 0 ? width : 0;
  const down = b + d < 0 ? height : 0;
  context.setTransform(wide * a, high * b, wide * c, high * d, wide * (right - x0), high * (down - y0));
  context.drawImage(bitmap, 0, 0);
  context.resetTransform();
}

const sidesOf = ({ width, height }, orientation) => (orientation < 5 ? [width, height] : [height, width]);

/** The orientation that this browser leaves to do. */
const orientationLeft = async (bytes) => (isWebP(bytes) && !(await turnsWebP()) ? webpOrientation(bytes) : 1);

/** Whether only the lower bits of an image of 16 are in use, which browsers do not keep. */
export function isNearlyBlack(data) {
  for (let i = 0; i < data.length; i++) if (i % 4 !== 3 && data[i] >= 64) return false;
  return true;
}

const bitmapOf = (bytes) => createImageBitmap(new Blob([bytes]), {
  imageOrientation: "from-image",
  colorSpaceConversion: "default", // to sRGB
  premultiplyAlpha: "none",
});

function samePixels(one, other) {
  const [a, b] = [one, other].map((bitmap) => pixelsOf(bitmap, 1, 0, 0, bitmap.width, bitmap.height));
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

const isPng = (bytes) => tag(bytes, 1, 3) === "PNG";
const isWebP = (bytes) => tag(bytes, 0, 4) === "RIFF" && tag(bytes, 8, 4) === "WEBP";
const tag = (bytes, at, length) => String.fromCharCode(...bytes.subarray(at, at + length));
const view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function joined(...parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/**
 * The file, where it has an end; else with an end. A JPEG gets two: their pixels are the same where none is missing,
 * see Python's `jpeg_endings`.
 */
export function endings(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && !jpegHasEnd(bytes)) {
    const cut = bytes.at(-1) === 0xff ? bytes.subarray(0, -1) : bytes;
    const pattern = Uint8Array.from({ length: 64 }, (_, i) => [0x5a, 0xc3, 0x96, 0x3c][i % 4]);
    return [joined(cut, new Uint8Array(64), JPEG_END), joined(cut, pattern, JPEG_END)];
  }
  return [isPng(bytes) ? pngWithEnd(bytes) : bytes];
}

function jpegHasEnd(bytes) {
  for (let at = 2; at + 1 < bytes.length;) {
    const kind = bytes[at + 1];
    // Within a scan: data, stuffed zeros, restarts; fill bytes.
    if (bytes[at] !== 0xff || kind === 0 || kind === 0xff || (kind >= 0xd0 && kind < 0xd8)) at++;
    else if (kind === 0xd9) return true;
    else if (kind === 1 || kind === 0xd8) at += 2;
    else at += 2 + Math.max(2, (bytes[at + 2] << 8) | bytes[at + 3]);
  }
  return false;
}

function pngWithEnd(bytes) {
  let at = 8;
  let end = 8;
  while (end + 8 <= bytes.length) {
    at = end;
    if (tag(bytes, at + 4, 4) === "IEND") return bytes;
    end = at + 12 + view(bytes).getUint32(at);
  }
  if (end <= bytes.length) return joined(bytes.subarray(0, end), PNG_END);
  // The last chunk is cut: a chunk of as much of it as there is.
  const content = bytes.subarray(at + 4, Math.min(bytes.length, end - 4));
  const around = new Uint8Array(8);
  view(around).setUint32(0, content.length - 4);
  view(around).setUint32(4, crc(content));
  return joined(bytes.subarray(0, at), around.subarray(0, 4), content, around.subarray(4), PNG_END);
}

function crc(bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = CRCS[(sum ^ byte) & 255] ^ (sum >>> 8);
  return ~sum >>> 0;
}

/** EXIF's orientation in a WebP, 1 where there is none. */
export function webpOrientation(bytes) {
  const data = view(bytes);
  for (let at = 12; at + 8 <= bytes.length;) {
    const length = data.getUint32(at + 4, true);
    if (tag(bytes, at, 4) === "EXIF") return exifOrientation(bytes.subarray(at + 8, at + 8 + length));
    at += 8 + length + (length % 2);
  }
  return 1;
}

function exifOrientation(bytes) {
  const exif = tag(bytes, 0, 6) === "Exif\0\0" ? bytes.subarray(6) : bytes;
  const data = view(exif);
  try {
    const little = tag(exif, 0, 2) === "II";
    const first = data.getUint32(4, little);
    for (let i = 0; i < data.getUint16(first, little); i++) {
      const entry = first + 2 + 12 * i;
      if (data.getUint16(entry, little) !== 0x0112) continue;
      const value = data.getUint16(entry + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // broken EXIF says nothing against the pixels
  }
  return 1;
}

let turning = null;

/** Whether this browser turns a WebP by itself. */
function turnsWebP() {
  turning ??= bitmapOf(Uint8Array.from(atob(TURNED), (c) => c.charCodeAt(0))).then((bitmap) => bitmap.height === 2);
  return turning;
}
