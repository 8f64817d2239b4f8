/**
 * A text in quotation marks as Go's `strconv.Quote` writes it, which is what klog lines and flag errors carry.
 */

const ESCAPES: Readonly<Record<string, string>> = {
  '"': '\\"',
  "\\": "\\\\",
  "\u0007": "\\a",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v"
}

/** Everything that needs no escape: Go's idea of what can be printed, without quotation mark and backslash. */
const PLAIN = /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$/u
const ALL_PLAIN_ASCII = /^[ !#-[\]-~]*$/u

const escape = (character: string): string => {
  const short = ESCAPES[character]
  if (short !== undefined) return short
  if (PLAIN.test(character)) return character
  const point = character.codePointAt(0) ?? 0
  if (point < 0x80) return `\\x${point.toString(16).padStart(2, "0")}`
  // Half of a surrogate pair has no UTF-8.
  if (point >= 0xd800 && point <= 0xdfff) return "\ufffd"
  return point < 0x10000 ? `\\u${point.toString(16).padStart(4, "0")}` : `\\U${point.toString(16).padStart(8, "0")}`
}

/**
 * @shape  (text) -> the text, quoted and escaped
 * @errors none
 * @source Go 1.25, strconv.Quote
 */
export const goQuote = (text: string): string =>
  ALL_PLAIN_ASCII.test(text) ? `"${text}"` : `"${[...text].map(escape).join("")}"`
