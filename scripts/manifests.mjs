// Writes assets/deploy and assets/olm, or both below the directory that is named, from assets/driver, assets/crds and
// what scripts/manifests says. Nothing in there is edited by hand.
import { mkdirSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { stringify } from "yaml"
import { bundleFiles } from "./manifests/bundle.mjs"
import { deployFiles } from "./manifests/deploy.mjs"
import { root } from "./manifests/place.mjs"

const target = process.argv[2] ?? join(root, "assets")
// Whoever reads these may read YAML 1.1, to which "on" and a time are no texts.
const options = { aliasDuplicateObjects: false, lineWidth: 0, version: "1.1" }

/** One object begins at once: who reads a bundle takes what is before the first "---" for the object. */
const yaml = ({ objects, why }) => {
  const comment = ['Made by "npm run manifests"; changes belong in scripts/manifests.', ...why]
  const documents = objects.map((object) => stringify(object, options))
  return [
    ...comment.map((line) => `# ${line}\n`),
    ...(documents.length > 1 ? documents.map((document) => `---\n${document}`) : documents)
  ].join("")
}

const write = (folder, files) => {
  rmSync(join(target, folder), { recursive: true, force: true })
  for (const [name, content] of Object.entries(files)) {
    const path = join(target, folder, name)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, typeof content === "string" ? content : yaml(content))
  }
}

write("deploy", deployFiles())
for (const [flavour, files] of Object.entries(bundleFiles())) write(join("olm", flavour), files)
