/**
 * PEM blocks, read as Go's encoding/pem reads them: what is around and between blocks is skipped, and so is a block that
 * is damaged.
 *
 * Headers are kept as one character per byte, so that they are written again as they were.
 *
 * @source Go, encoding/pem; reference/driver.md 6.6
 */

export interface PemBlock {
  readonly label: string
  readonly headers: ReadonlyArray<readonly [name: string, value: string]>
  readonly der: Uint8Array
}

const COLUMNS = 64
const BEGIN = "-----BEGIN "
const DASHES = "-----"
const BYTE_ORDER_MARK = "\u00ef\u00bb\u00bf"

const lineEnd = (text: string, from: number): number => {
  const end = text.indexOf("\n", from)
  return end === -1 ? text.length : end
}

/** What is between the lines BEGIN and END; undefined: it is damaged. */
const readBody = (label: string, body: string): PemBlock | undefined => {
  const headers: Array<readonly [string, string]> = []
  let at = 0
  while (at < body.length) {
    const end = lineEnd(body, at)
    const line = body.slice(at, end)
    const colon = line.indexOf(":")
    if (colon === -1) break
    headers.push([line.slice(0, colon).trim(), line.slice(colon + 1).trim()])
    at = end + 1
  }
  const base64 = body.slice(at).replaceAll(/[ \t\r\n]+/gu, "")
  if (base64.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/u.test(base64)) return undefined
  return { label, headers, der: new Uint8Array(Buffer.from(base64, "base64")) }
}

/**
 * Every block in order, and what follows the last of them: all of the file when there is none.
 *
 * @shape  (file) -> { blocks, rest }
 * @units  takes time in proportion to the file, whatever is in it
 * @errors none: what is no block is skipped
 * @source Go, encoding/pem, Decode
 */
export const decode = (
  file: Uint8Array
): { readonly blocks: ReadonlyArray<PemBlock>; readonly rest: Uint8Array<ArrayBuffer> } => {
  const text = Buffer.from(file.buffer, file.byteOffset, file.byteLength).toString("latin1")
  const blocks: Array<PemBlock> = []
  let rest = 0
  // A byte order mark in front must not cost the first block.
  const start = text.startsWith(BYTE_ORDER_MARK) ? BYTE_ORDER_MARK.length : 0
  let at = text.startsWith(BEGIN, start) ? start : text.indexOf(`\n${BEGIN}`) + 1
  while (text.startsWith(BEGIN, at)) {
    const first = lineEnd(text, at)
    const line = text.slice(at, first).trimEnd()
    // The next line of dashes ends the block, or nothing does: none can be inside of it.
    const last = text.indexOf(`\n${DASHES}`, first)
    if (last === -1) break
    const end = lineEnd(text, last + 1)
    if (line.endsWith(DASHES)) {
      const label = line.slice(BEGIN.length, -DASHES.length)
      const block =
        text.slice(last + 1, end).trimEnd() === `-----END ${label}-----`
          ? readBody(label, text.slice(first + 1, last + 1))
          : undefined
      if (block !== undefined) {
        blocks.push(block)
        rest = Math.min(end + 1, text.length)
      }
    }
    const next = text.indexOf(`\n${BEGIN}`, last)
    if (next === -1) break
    at = next + 1
  }
  return { blocks, rest: new Uint8Array(file.subarray(rest)) }
}

/** Go writes Proc-Type first, and the others by name. */
const byName = ([a]: readonly [string, string], [b]: readonly [string, string]): number =>
  a === b ? 0 : a === "Proc-Type" ? -1 : b === "Proc-Type" ? 1 : a < b ? -1 : 1

/**
 * One block: headers by name and a blank line where there are headers, then base64 in lines of 64, each with its LF.
 *
 * @shape  (block) -> text, one character per byte
 * @source Go, encoding/pem, Encode
 */
export const encode = ({ label, headers, der }: PemBlock): string => {
  const base64 = Buffer.from(der).toString("base64")
  const lines = [`-----BEGIN ${label}-----`]
  for (const [name, value] of [...headers].sort(byName)) lines.push(`${name}: ${value}`)
  if (headers.length > 0) lines.push("")
  for (let at = 0; at < base64.length; at += COLUMNS) lines.push(base64.slice(at, at + COLUMNS))
  lines.push(`-----END ${label}-----`, "")
  return lines.join("\n")
}
