import { availableParallelism } from "node:os"
import { defineConfig } from "vitest/config"

// These start the real driver, and measure it: one file at a time, when everything else has ended.
const processes = ["test/process/**/*.test.ts", "test/conformance/**/*.test.ts", "test/mutation/**/*.test.ts"]

export default defineConfig({
  test: {
    // Tests share nothing but the process: one worker per core, files in parallel, no isolation cost per file.
    pool: "threads",
    isolate: false,
    // Beside a real API server they share that: one file at a time.
    fileParallelism: process.env["TEST_KUBECONFIG"] === undefined,
    testTimeout: 20_000,
    sequence: { shuffle: { files: true, tests: false } },
    reporters: ["default"],
    projects: [
      {
        extends: true,
        test: {
          name: "parts",
          // By default one less than there are processors: half of a small machine.
          maxWorkers: Math.min(availableParallelism(), 4),
          include: ["test/**/*.test.ts"],
          // The cluster's have a configuration of their own.
          exclude: [...processes, "test/cluster/**"],
          sequence: { groupOrder: 0 }
        }
      },
      {
        extends: true,
        test: {
          name: "processes",
          include: processes,
          globalSetup: ["test/setup/bundle.ts"],
          maxWorkers: 1,
          testTimeout: 60_000,
          sequence: { groupOrder: 1 }
        }
      }
    ]
  }
})
