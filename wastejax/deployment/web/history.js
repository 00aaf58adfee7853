// Earlier answers, in the browser's own database: they never leave the device.

import { canvasOf } from "./files.js";

const STORE = "answers";
const MOST = 100;
const SIDE = 160; // of the small images that are kept

/** The database of a site, by its path: a host may hold several. One at the root has the name that it always had. */
export const nameAt = (path) => (path === "/" ? "wastejax" : `wastejax ${path}`);

let opened = null;

function database() {
  opened ??= new Promise((done, fail) => {
    const request = indexedDB.open(nameAt(new URL("./", import.meta.url).pathname), 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id", autoIncrement: true });
    request.onsuccess = () => done(request.result);
    request.onerror = () => fail(request.error);
  });
  return opened;
}

async function within(mode, work) {
  const transaction = (await database()).transaction(STORE, mode);
  const result = work(transaction.objectStore(STORE));
  return new Promise((done, fail) => {
    transaction.oncomplete = () => done(result.result);
    transaction.onabort = () => fail(transaction.error);
  });
}

/** Keeps an answer with a small form of its image, null where the browser cannot read it; the oldest beyond `MOST` go. */
export async function keep(blob, answer, seen) {
  const image = await small(blob).catch(() => null);
  const { map, heatmap, ...said } = answer;
  await within("readwrite", (store) => store.add({ time: Date.now(), image, seen, answer: said }));
  const keys = await within("readonly", (store) => store.getAllKeys());
  for (const key of keys.slice(0, -MOST)) await within("readwrite", (store) => store.delete(key));
}

/** All that is kept, the latest first; each has { time, image, answer, seen }. */
export async function earlier() {
  return (await within("readonly", (store) => store.getAll())).reverse();
}

export const forget = () => within("readwrite", (store) => store.clear());

async function small(blob) {
  const canvas = await canvasOf(blob, (width, height) => SIDE / Math.min(width, height));
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.8 });
}
