/** Keys and certificates made, and read back, by the openssl of the machine. */
import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const OPENSSL = "openssl"

const succeeds = (...args: ReadonlyArray<string>): boolean => {
  try {
    execFileSync(OPENSSL, args, { stdio: "ignore" })
    return true
  } catch {
    return false
  }
}

export const hasOpenssl = succeeds("version")

/** Without its legacy provider openssl cannot encrypt with 40-bit RC2. */
export const hasLegacy = hasOpenssl && succeeds("list", "-providers", "-provider", "legacy")

/** Goes into the title of what is skipped without it. */
export const needsOpenssl = hasOpenssl ? "" : " (needs openssl)"
export const needsLegacy = hasLegacy ? "" : " (needs openssl with its legacy provider)"

/** A directory of files that is gone with `remove`. */
export interface Workshop {
  /** Runs openssl in the directory, with `input` on its standard input. */
  readonly openssl: (args: string, input?: Uint8Array | string) => Buffer
  readonly at: (name: string) => string
  readonly read: (name: string) => Uint8Array
  readonly text: (name: string) => string
  readonly write: (name: string, content: Uint8Array | string) => void
  readonly remove: () => void
}

export const makeWorkshop = (): Workshop => {
  const directory = mkdtempSync(join(tmpdir(), "sync-"))
  const at = (name: string) => join(directory, name)
  return {
    at,
    // Words in single quotes are one argument.
    openssl: (args, input) =>
      execFileSync(
        OPENSSL,
        (args.match(/'[^']*'|\S+/gu) ?? []).map((word) => word.replaceAll("'", "")),
        { cwd: directory, stdio: ["pipe", "pipe", "pipe"], input: input ?? "" }
      ),
    read: (name) => new Uint8Array(readFileSync(at(name))),
    text: (name) => readFileSync(at(name), "utf8"),
    write: (name, content) => writeFileSync(at(name), content),
    remove: () => rmSync(directory, { recursive: true, force: true })
  }
}

/** A root, an intermediate and leaves signed by it: `root.crt`, `int.crt`, `<key>.crt` for each `<key>.pem` that is there. */
export const issue = ({ openssl, text, write }: Workshop, keys: ReadonlyArray<string>): void => {
  write("ca.ext", "basicConstraints=critical,CA:TRUE\n")
  write("leaf.ext", "basicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:leaf\n")
  openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out root.pem")
  openssl("req -x509 -new -key root.pem -subj /CN=root -days 2 -out root.crt")
  openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out int.pem")
  openssl("req -new -key int.pem -subj /CN=int -out int.csr")
  openssl("x509 -req -in int.csr -CA root.crt -CAkey root.pem -CAcreateserial -days 2 -extfile ca.ext -out int.crt")
  openssl("req -new -key int.pem -subj /CN=leaf -out leaf.csr")
  for (const key of keys) {
    // So that keys which cannot sign a request get a certificate, too.
    openssl(`pkey -in ${key}.pem -pubout -out ${key}.pub`)
    openssl(
      `x509 -req -in leaf.csr -force_pubkey ${key}.pub -CA int.crt -CAkey int.pem -CAcreateserial -days 2 -extfile leaf.ext -out ${key}.crt`
    )
  }
  write("chain.crt", text("int.crt") + text("root.crt"))
}
