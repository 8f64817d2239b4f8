// Writes the CustomResourceDefinitions of schemas/crd as YAML, into assets/crds or the directory that is named.
import { mkdirSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { stringify } from "yaml"
import { CRD_FILES, PLAIN_CRD_FILES } from "../schemas/crd/Crds.ts"

const root = join(dirname(fileURLToPath(import.meta.url)), "..")
const directory = process.argv[2] ?? join(root, "assets/crds")

mkdirSync(directory, { recursive: true })
for (const [name, definition] of Object.entries({ ...CRD_FILES, ...PLAIN_CRD_FILES })) {
  const yaml = stringify(definition, { sortMapEntries: true, aliasDuplicateObjects: false, lineWidth: 0 })
  const warning = name in PLAIN_CRD_FILES ? "# Not for OpenShift, which has its own.\n" : ""
  const head = `# Made from schemas/crd by "npm run crds"; changes belong there.\n${warning}---\n`
  writeFileSync(join(directory, name), `${head}${yaml}`)
}
