// One CommonJS file per image, and one per library that is loaded when it is needed: less than half the memory of
// running the sources. Native packages stay outside. Build information comes from the environment, as release builds set
// it. Written to dist, or to the directory that is given.
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { rolldown } from "rolldown"

const directory = process.argv[2] ?? "dist"
const env = process.env
const define = {
  __BUILD_VERSION__: JSON.stringify(env["BUILD_VERSION"] ?? "local-dev"),
  __BUILD_VCS__: JSON.stringify(env["BUILD_VCS"] ?? ""),
  __BUILD_TIME__: JSON.stringify(env["BUILD_TIME"] ?? "")
}
/** Apart from each other: what the one shares with the other would be in the memory of both. */
const programs = {
  driver: "[name].cjs",
  operator: "operator-[name].cjs"
}

for (const [program, chunkFileNames] of Object.entries(programs)) {
  const bundle = await rolldown({
    input: { [program]: `src/main/${program}.ts` },
    platform: "node",
    external: ["koffi", "@kubernetes/client-node"],
    transform: { define },
    logLevel: "warn"
  })
  const written = await bundle.write({
    dir: directory,
    format: "cjs",
    minify: true,
    entryFileNames: "[name].cjs",
    chunkFileNames
  })
  await bundle.close()

  // One character beyond Latin-1 makes V8 keep the whole text at two bytes a character, for as long as the program runs.
  for (const { code, fileName, type } of written.output) {
    if (type !== "chunk") continue
    const escaped = code.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
    writeFileSync(join(directory, fileName), escaped)
  }
}
