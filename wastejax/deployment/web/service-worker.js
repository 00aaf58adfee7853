// Keeps the page for use without a network. Each version has a cache of its own, filled before it takes over, so that
// a page is never made of two versions.

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

async function install() {
  const cache = await caches.open(nameOf());
  await Promise.all(Object.entries(FILES).map(async ([path, integrity]) => {
    // Asks the host whether what the browser has is still right; a file of another version does not match.
    const reply = await fetch(new URL(path, scope), { cache: "no-cache", integrity });
    if (!reply.ok) throw new Error(`${reply.url}: ${reply.status}`);
    await cache.put(new URL(path, scope), reply);
  }));
}

async function activate() {
  for (const name of await caches.keys()) {
    if (name.startsWith(ours) && name !== nameOf()) await caches.delete(name);
  }
  await self.clients.claim();
}

/** The path of one of our files that a request asks for, null for all else. */
function pathOf({ method, url }) {
  if (method !== "GET" || !url.startsWith(scope)) return null;
  const path = url.slice(scope.length).replace(/[?#].*$/, "").replace(/^index\.html$/, "");
  return Object.hasOwn(FILES, path) ? path : null;
}

async function answer(path, request) {
  const cache = await caches.open(nameOf());
  return await cache.match(new URL(path, scope)) ?? fetch(request);
}

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("message", ({ data }) => {
  if (data === "take over") self.skipWaiting();
});
self.addEventListener("fetch", (event) => {
  const path = pathOf(event.request);
  if (path !== null) event.respondWith(answer(path, event.request));
});
