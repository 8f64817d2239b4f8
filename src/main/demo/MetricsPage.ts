/**
 * Reading a metrics page: as much of Prometheus' text format as the driver writes.
 */

/** What every series of upstream carries; left out when a line is shown. */
const SCOPE = /(?:os_type|otel_scope_\w+)="[^"]*",?/gu

/**
 * @shape  (page, series, some of its labels) -> the lines of that series with these labels, without scope labels
 * @errors none
 */
export const linesOf = (
  page: string,
  series: string,
  labels: Readonly<Record<string, string>> = {}
): ReadonlyArray<string> =>
  page
    .split("\n")
    .filter((line) => line.startsWith(`${series}{`) || line.startsWith(`${series} `))
    .filter((line) => Object.entries(labels).every(([name, value]) => line.includes(`${name}="${value}"`)))
    .map((line) => line.replace(SCOPE, "").replace(",}", "}").replace("{}", ""))

/** @shape (page, series, some of its labels) -> the sum over all lines of that series with these labels */
export const valueOf = (page: string, series: string, labels: Readonly<Record<string, string>> = {}): number =>
  linesOf(page, series, labels).reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0)
