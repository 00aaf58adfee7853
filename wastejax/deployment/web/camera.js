// The live view: one answer after the other, as fast as the device gives them.

import { wordsOf } from "./cards.js";
import { paint } from "./signs.js";
import { percent, say } from "./words.js";

const WIDE = 1280; // pixels: enough for a photo, few enough to resize many times a second
const SERVED = 640; // longer side of what is sent to a server
const PAUSE = 1000; // ms, after a server said that it is busy
const AGREE = 2; // so many answers in a row name a bin before the view does: hands shake
const RATE = 0.2; // weight of the latest answer in the mean time

const find = (id) => document.getElementById(id);
let stream = null;
let opening = null; // the promise of `openCamera`, until it is open
let shown = null; // the entry in the view

/**
 * Opens the view; `ask` answers a bitmap or, where `local` is false, a JPEG. Throws where there is no camera. A camera
 * that is open or about to be is not opened again: nothing would ever close the first one. `gone` is called when it has
 * closed by itself, as one that is unplugged.
 */
export function openCamera(ask, local, gone) {
  opening ??= open(ask, local, gone).finally(() => { opening = null; });
  return opening;
}

async function open(ask, local, gone) {
  if (stream?.active) return;
  closeCamera(); // one that ended without a word
  const video = { facingMode: { ideal: "environment" }, width: { ideal: WIDE } };
  stream = await navigator.mediaDevices.getUserMedia({ video });
  const mine = stream;
  for (const track of mine.getTracks()) { // our own stop() tells nobody
    track.addEventListener("ended", () => {
      if (stream !== mine) return;
      closeCamera();
      gone();
    });
  }
  find("video").srcObject = stream;
  find("camera").hidden = false;
  find("camera").scrollIntoView({ block: "nearest" });
  find("shoot").focus();
  showLive(null);
  watch(stream, ask, local);
}

export function closeCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  find("video").srcObject = null;
  find("camera").hidden = true;
}

/** The present image as a JPEG, null where there is none yet. */
export async function takePhoto() {
  const { videoWidth: width, videoHeight: height } = find("video");
  return width ? photo(width, height) : null;
}

function photo(width, height) {
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").drawImage(find("video"), 0, 0, width, height);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
}

async function watch(mine, ask, local) {
  let last = "";
  let agreed = 0;
  let mean = 0;
  while (stream === mine) {
    const { videoWidth: width, videoHeight: height } = find("video");
    if (!width || document.hidden) {
      await pause(100);
      continue;
    }
    const start = performance.now();
    try {
      const scale = Math.min(1, SERVED / Math.max(width, height));
      const image = local ? await createImageBitmap(find("video")) : await photo(Math.round(width * scale), Math.round(height * scale));
      const entry = { answer: await ask(image), seen: "" };
      if (stream !== mine) return;
      const { head } = wordsOf(entry);
      agreed = head === last ? agreed + 1 : 1;
      last = head;
      if (agreed >= AGREE || !shown) showLive(entry);
    } catch (error) {
      if (stream !== mine) return;
      find("rate").textContent = say()[error.key] ?? say().failed;
      await pause(PAUSE);
      continue;
    }
    const ms = performance.now() - start;
    mean = mean ? mean + RATE * (ms - mean) : ms;
    find("rate").textContent = say().rate(new Intl.NumberFormat(document.documentElement.lang, { maximumSignificantDigits: 2 }).format(1000 / mean));
    await pause(0); // keys and buttons first
  }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Writes an answer over the view; again in another language where none is given. */
export function showLive(entry = shown) {
  shown = entry;
  const live = find("live");
  const words = entry ? wordsOf(entry) : { head: say().point, bin: null, line: "", why: "" };
  paint(live, words.bin);
  const bin = live.querySelector(".bin"); // a live region: written only where it changes
  if (bin.textContent !== words.head) bin.textContent = words.head;
  live.querySelector(".label").textContent = words.line ? `${words.line} ${percent(words.probability)}` : "";
}
