// What an answer says, in the form that the server gives it: { rejected, bin_probability, class_sure,
// top: [{ class, bin, probability }, …] }. `bin_probability` is of the first class's bin, the sum over its classes; where
// that is enough and the class alone is not, `class_sure` is false. Of a multi-label model `classes` are all that the image shows, and `bins` theirs.

import { mended } from "./files.js";

const LIKELY = 0.6; // of the first class: it is that, or something that the model does not know
const ALIKE = 0.6; // two classes hold at least so much between them, and
const CLOSE = 0.4; // the second has at least so much of the first: the image looks like both
const SIDE = 64; // of the small image that `seeing` looks at
const DARK = 28; // mean gray level, of 255
const BLANK = 5; // standard deviation of gray levels

/** What probabilities say. */
export function interpret(probabilities, { classes, reject_below: least, multilabel }) {
  const best = probabilities.map((_, i) => i).sort((a, b) => probabilities[b] - probabilities[a]);
  const guess = (i) => ({ class: classes[i].name, bin: classes[i].bin, probability: probabilities[i] });
  const top = best.slice(0, 3).map(guess);
  if (multilabel) {
    const named = best.filter((i) => probabilities[i] >= classes[i].named_from).map(guess);
    const bins = [...new Set(named.map(({ bin }) => bin).filter(Boolean))];
    return { rejected: !named.length, top, classes: named, bins };
  }
  // A class without a rule is a bin of its own.
  const same = best.filter((i) => i === best[0] || (top[0].bin && classes[i].bin === top[0].bin));
  const likely = same.reduce((sum, i) => sum + probabilities[i], 0);
  const enough = (p) => least !== null && p >= least;
  return { rejected: !enough(likely), bin_probability: likely, class_sure: enough(top[0].probability), top };
}

/** How much of an answer is sure: { kind: "class" | "several" | "bin" | "nothing", bin, probability, candidates }. */
export function verdict({ rejected, top, bin_probability: likely, class_sure: sure, classes, bins }) {
  const { bin, probability } = top[0];
  if (rejected) return { kind: "nothing", bin: "", probability: 0, candidates: top };
  if (classes) return { kind: "several", bins, probability: classes[0].probability, candidates: classes };
  if (bin && sure === false) {
    return { kind: "bin", bin, probability: likely, candidates: top.filter((guess) => guess.bin === bin) };
  }
  return { kind: "class", bin, probability, candidates: top };
}

/** Why there is no answer: "dark", "blank", "likely" (the first class, not enough), "alike" (the first two), "strange". */
export function reasonOf({ top: [first, second], classes }, seen = "") {
  if (seen) return seen;
  if (classes) return "strange"; // probabilities of their own do not tell one from the other
  if (first.probability >= LIKELY) return "likely";
  const both = second && first.probability + second.probability >= ALIKE;
  return both && second.probability >= CLOSE * first.probability ? "alike" : "strange";
}

/** What keeps anyone from seeing anything in gray levels: "dark", "blank", or "". */
export function obstacle(grays) {
  const mean = grays.reduce((sum, gray) => sum + gray, 0) / grays.length;
  const spread = Math.sqrt(grays.reduce((sum, gray) => sum + (gray - mean) ** 2, 0) / grays.length);
  if (mean < DARK) return "dark";
  return spread < BLANK ? "blank" : "";
}

/** The same of an image. */
export async function seeing(image) {
  const bitmap = await createImageBitmap(await mended(image), { resizeWidth: SIDE, resizeHeight: SIDE });
  const context = new OffscreenCanvas(SIDE, SIDE).getContext("2d");
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, SIDE, SIDE);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, SIDE, SIDE);
  return obstacle(Array.from({ length: SIDE * SIDE }, (_, i) =>
    0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]));
}
