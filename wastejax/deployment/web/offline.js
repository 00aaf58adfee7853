// The page without a network, and its new versions.

/** Has the browser keep the page; `newer` is called with a function that goes over to a new version. */
export async function keepOffline(newer) {
  if (!navigator.serviceWorker) return; // over plain http
  const registration = await navigator.serviceWorker.register("service-worker.js");
  const offer = (worker) => newer(() => {
    navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
    worker.postMessage("take over");
  });
  if (registration.waiting && navigator.serviceWorker.controller) offer(registration.waiting);
  registration.addEventListener("updatefound", () => {
    const worker = registration.installing;
    worker.addEventListener("statechange", () => {
      if (worker.state === "installed" && navigator.serviceWorker.controller) offer(worker);
    });
  });
}
