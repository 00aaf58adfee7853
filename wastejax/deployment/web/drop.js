// What is dropped on the page: files, and of folders the images in them.

/**
 * The files that a drop brings, of its `dataTransfer`; to be called before the event is over. A folder stands for the
 * images in it, by name. Throws { reason: "folder" } where there are only folders, and no image in them.
 */
export async function droppedFiles(transfer) {
  const items = [...transfer.items].filter(({ kind }) => kind === "file")
    .map((item) => ({ file: item.getAsFile(), entry: item.webkitGetAsEntry?.() }));
  const isFolder = ({ entry }) => Boolean(entry?.isDirectory);
  const parts = await Promise.all(items.map((item) => (isFolder(item) ? imagesIn(item.entry) : [item.file])));
  const files = parts.flat().filter(Boolean);
  if (!files.length && items.some(isFolder)) throw { reason: "folder" };
  return files;
}

async function imagesIn(folder) {
  const reader = folder.createReader();
  const entries = [];
  for (;;) { // it gives a hundred at a time
    const some = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!some.length) break;
    entries.push(...some.filter(({ name }) => !name.startsWith("."))); // what systems hide beside images
  }
  entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  const files = await Promise.all(entries.map((entry) => (entry.isDirectory ? imagesIn(entry) : fileOf(entry))));
  return files.flat().filter(({ type }) => type.startsWith("image/"));
}

const fileOf = (entry) => new Promise((done, fail) => entry.file(done, fail));
