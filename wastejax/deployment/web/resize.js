// Resizes as Pillow does, to the bit: browsers resize each in their own way, and the network was trained on Pillow's.
// The method is a separable convolution whose filter is widened by the scale when shrinking; coefficients are rounded
// to 22 bits after the point, and so are the 8-bit values between the two passes.

const BITS = 22;

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

function cubic(x) { // Keys 1981 with a = -0.5
  const a = Math.abs(x);
  if (a < 1) return (1.5 * a - 2.5) * a * a + 1;
  return a < 2 ? -0.5 * (((a - 5) * a + 8) * a - 4) : 0;
}

const FILTERS = {
  bilinear: { reach: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { reach: 2, weight: cubic },
  lanczos: { reach: 3, weight: (x) => (-3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** The center square that a model sees, in the image's pixels: {left, top, side}. */
export function center(width, height, { image_size: size, crop }) {
  const side = (size * Math.min(width, height)) / roundHalfEven(size / crop);
  return { left: (width - side) / 2, top: (height - side) / 2, side };
}

export function roundHalfEven(x) { // as Python's round()
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 ? floor + 1 : floor;
}

/** How many pixels beyond a box of `side` pixels go into its resized form. */
export function margin(side, size, interpolation) {
  return Math.ceil(FILTERS[interpolation].reach * Math.max(1, side / size)) + 1;
}

/** For each of `size` pixels made of the range [from, to) out of `length`: where it starts, and its whole weights. */
function windows(length, from, to, size, { reach, weight }) {
  from = Math.fround(from); // Pillow keeps the box in 32 bits
  const scale = Math.fround(Math.fround(to) - from) / size;
  const wide = Math.max(1, scale);
  return Array.from({ length: size }, (_, i) => {
    const middle = from + (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(middle - reach * wide + 0.5));
    const end = Math.min(length, Math.trunc(middle + reach * wide + 0.5));
    const weights = [];
    let sum = 0;
    for (let x = start; x < end; x++) {
      weights.push(weight((x - middle + 0.5) * (1 / wide)));
      sum += weights.at(-1);
    }
    const whole = weights.map((w) => {
      const scaled = (sum ? w / sum : w) * 2 ** BITS;
      return Math.trunc(scaled + (scaled < 0 ? -0.5 : 0.5));
    });
    return { start, weights: Int32Array.from(whole) };
  });
}

const clip = (sum) => Math.max(0, Math.min(255, sum >> BITS));

/** Resamples along one axis. `step` and `line`: bytes to the next pixel along it, and to its next line. */
function pass(from, { step, line, start: origin }, lines, wanted, to, toStep, toLine) {
  for (let l = 0; l < lines; l++) {
    for (let i = 0; i < wanted.length; i++) {
      const { start, weights } = wanted[i];
      const base = l * line + (start - origin) * step;
      for (let c = 0; c < 3; c++) {
        let sum = 1 << (BITS - 1);
        for (let k = 0; k < weights.length; k++) sum += from[base + k * step + c] * weights[k];
        to[l * toLine + i * toStep + c] = clip(sum);
      }
    }
  }
}

/** The pixels that windows reach, as [start, how many]. */
function reach(wanted) {
  const last = wanted[wanted.length - 1];
  return [wanted[0].start, last.start + last.weights.length - wanted[0].start];
}

/**
 * Resizes a square of an image.
 *
 * part: {data, columns, x0, y0}: RGBA bytes of a part of the image that is `columns` wide and whose corner is
 *   (x0, y0); it must hold the square and a `margin` around it, as far as the image goes.
 * box: of `center`.
 * Returns RGB bytes, size x size x 3.
 */
export function resizeSquare({ data, columns, x0, y0 }, width, height, box, size, interpolation) {
  const filter = FILTERS[interpolation];
  const across = windows(width, box.left, box.left + box.side, size, filter);
  const down = windows(height, box.top, box.top + box.side, size, filter);
  const [left, wide] = reach(across);
  const [top, high] = reach(down);
  const out = new Uint8Array(size * size * 3);
  // Pillow 13 takes tall images by columns first; found by trying, and the order shows in the last bit.
  if (height > size && height + size > 2 * width) {
    const flat = new Uint8Array(wide * size * 3);
    const columnwise = { step: 4 * columns, line: 4, start: y0 };
    pass(data.subarray(4 * (left - x0)), columnwise, wide, down, flat, 3 * wide, 3);
    pass(flat, { step: 3, line: 3 * wide, start: left }, size, across, out, 3, 3 * size);
  } else {
    const narrow = new Uint8Array(high * size * 3);
    const rowwise = { step: 4, line: 4 * columns, start: x0 };
    pass(data.subarray(4 * columns * (top - y0)), rowwise, high, across, narrow, 3, 3 * size);
    pass(narrow, { step: 3 * size, line: 3, start: top }, size, down, out, 3 * size, 3);
  }
  return out;
}
