import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Tests share nothing but the process: one worker per core, files in parallel, no isolation cost per file.
    pool: "threads",
    isolate: false,
    sequence: { shuffle: { files: true, tests: false } },
    testTimeout: 20_000,
    reporters: ["default"]
  }
})
