// Keeps the page for use without a network. Each version has a cache of its own, filled before it takes over, so that
// a page is never made of two versions. What is sent packed is kept unpacked: it is used at every visit, and the browser
// compiles WebAssembly while it arrives and keeps what it compiled, if it comes as a file of its kind.

// Path below this one -> hash; '' is the page itself. Written in by website.py.
const FILES = {};

const scope = self.registration.scope;
const ours = `wastejax ${scope} `; // other pages of the same host have caches too
const version = digest(JSON.stringify(FILES));

/** FNV-1a, 32 bits: only tells versions apart, the files are checked by their own hashes. */
function digest(text) {
  let sum = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) sum = Math.imul(sum ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return sum.toString(16);
}

const nameOf = () => ours + version;
const PACKED = ".gzip";
const GZIP = [0x1f, 0x8b];

/** What is in a packed file, as a reply of its own; `path` is its own path, without the ending. */
async function unpack(reply, path) {
  const bytes = await reply.arrayBuffer();
  const [first, second] = new Uint8Array(bytes, 0, 2);
  const { body } = new Response(bytes);
  // A host that says that the file is encoded has had the browser unpack it.
  const plain = first === GZIP[0] && second === GZIP[1] ? body.pipeThrough(new DecompressionStream("gzip")) : body;
  const type = path.endsWith(".wasm") ? "application/wasm" : "application/octet-stream";
  return new Response(plain, { headers: { "content-type": type } });
}

/** Fetches one of our files; [the path that the page asks for, the reply]. */
async function load(file, options) {
  const reply = await fetch(new URL(file, scope), options);
  if (!reply.ok) throw new Error(`${reply.url}: ${reply.status}`);
  if (!file.endsWith(PACKED)) return [file, reply];
  const path = file.slice(0, -PACKED.length);
  return [path, await unpack(reply, path)];
}

async function install() {
  const cache = await caches.open(nameOf());
  await Promise.all(Object.entries(FILES).map(async ([file, integrity]) => {
    // Asks the host whether what the browser has is still right; a file of another version does not match.
    const [path, reply] = await load(file, { cache: "no-cache", integrity });
    await cache.put(new URL(path, scope), reply);
  }));
}

async function activate() {
  for (const name of await caches.keys()) {
    if (name.startsWith(ours) && name !== nameOf()) await caches.delete(name);
  }
  await self.clients.claim();
}

/** Which of our files a request asks for, null for all else. */
function fileOf({ method, url }) {
  if (method !== "GET" || !url.startsWith(scope)) return null;
  const path = url.slice(scope.length).replace(/[?#].*$/, "").replace(/^index\.html$/, "");
  return [path, path + PACKED].find((file) => Object.hasOwn(FILES, file)) ?? null;
}

async function answer(file) {
  const cache = await caches.open(nameOf());
  const path = file.endsWith(PACKED) ? file.slice(0, -PACKED.length) : file;
  return await cache.match(new URL(path, scope)) ?? (await load(file))[1];
}

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("message", ({ data }) => {
  if (data === "take over") self.skipWaiting();
});
self.addEventListener("fetch", (event) => {
  const file = fileOf(event.request);
  if (file !== null) event.respondWith(answer(file));
});
