// Earlier answers, in the browser's own database: they never leave the device.

const STORE = "answers";
const MOST = 100;
const SIDE = 160; // of the small images that are kept

let opened = null;

function database() {
  opened ??= new Promise((done, fail) => {
    const request = indexedDB.open("wastejax", 1);
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

/** Keeps an answer with a small form of its image; the oldest beyond `MOST` go. */
export async function keep(blob, answer, seen) {
  const image = await small(blob);
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
  const bitmap = await createImageBitmap(blob);
  const scale = Math.min(1, SIDE / Math.min(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale)));
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.8 });
}
