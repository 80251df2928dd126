// Prints every array of a zipped Zarr group as JSON: node segment.mjs FILE. Needs the npm package zarrita.
import { readFile } from "node:fs/promises";
import ZipFileStore from "@zarrita/storage/zip";
import * as zarr from "zarrita";

const blob = new Blob([await readFile(process.argv[2])]);
const store = ZipFileStore.fromBlob(blob);
const root = await zarr.open.v3(store, { kind: "group" });
const out = {};
for (const name of process.argv.slice(3)) {
  const array = await zarr.open.v3(root.resolve(name), { kind: "array" });
  const { data, shape } = await zarr.get(array);
  out[name] = { shape, data: Array.from(data, (x) => String(x)) };
}
console.log(JSON.stringify(out));
