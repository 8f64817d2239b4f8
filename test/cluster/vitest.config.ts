import { defineConfig } from "vitest/config"

/** Started by scripts/cluster.mjs, beside a node: everything in one file after the other. */
export default defineConfig({
  test: {
    include: ["test/cluster/Cluster.test.ts"],
    pool: "threads",
    isolate: false,
    testTimeout: 300_000,
    hookTimeout: 120_000,
    // What comes after a scenario that failed would only say so again, later.
    bail: 1,
    maxConcurrency: 12,
    reporters: ["default"]
  }
})
