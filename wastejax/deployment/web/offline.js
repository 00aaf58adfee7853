// The page without a network, and its new versions.

const OURS = new URL("./service-worker.js", import.meta.url).href;

/** Whether our service worker answers the page: until it does, that of another site on the same host may. */
export const controlled = () => navigator.serviceWorker?.controller?.scriptURL === OURS;

/** Has the browser keep the page; `newer` is called with a function that goes over to a new version. */
export async function keepOffline(newer) {
  if (!navigator.serviceWorker) return; // over plain http
  const registration = await navigator.serviceWorker.register(OURS);
  const offer = (worker) => newer(() => {
    // Another tab went over already: nothing changes any more that could be waited for.
    if (worker.state === "activated" || navigator.serviceWorker.controller === worker) return location.reload();
    navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
    worker.postMessage("take over");
  });
  if (registration.waiting && controlled()) offer(registration.waiting);
  registration.addEventListener("updatefound", () => {
    const worker = registration.installing;
    worker.addEventListener("statechange", () => {
      if (worker.state === "installed" && controlled()) offer(worker);
    });
  });
}
