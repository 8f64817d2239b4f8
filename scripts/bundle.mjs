// One CommonJS file per image: less than half the memory of running the sources. Native and on-demand packages stay
// outside. Build information comes from the environment, as release builds set it. Written to dist, or to the directory
// that is given.
import { rolldown } from "rolldown"

const env = process.env
const define = {
  __BUILD_VERSION__: JSON.stringify(env["BUILD_VERSION"] ?? "local-dev"),
  __BUILD_VCS__: JSON.stringify(env["BUILD_VCS"] ?? ""),
  __BUILD_TIME__: JSON.stringify(env["BUILD_TIME"] ?? "")
}
const bundle = await rolldown({
  input: { driver: "src/main/driver.ts" },
  platform: "node",
  external: ["koffi", "@kubernetes/client-node"],
  transform: { define },
  logLevel: "warn"
})
await bundle.write({
  dir: process.argv[2] ?? "dist",
  format: "cjs",
  minify: true,
  entryFileNames: "[name].cjs",
  chunkFileNames: "[name].cjs"
})
await bundle.close()
