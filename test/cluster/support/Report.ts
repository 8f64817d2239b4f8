/** What was measured, told together at the end. */
const lines: Array<string> = []

export const report = (what: string, figure: string): void => {
  lines.push(`  ${what}: ${figure}`)
}

export const reported = (): string => lines.join("\n")
